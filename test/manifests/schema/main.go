// Command schema cuts the JSON Schemas of the kinds that deploy/k8s uses out of Kubernetes' OpenAPI document and makes
// them strict.
//
// It is run by hand when Kubernetes' version or the list of kinds changes; testdata/README.md has the line. Strict
// means: a field that the document does not know is an error, where the original lets a misspelt one pass. Descriptions
// and status, which no manifest has, are left out.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

const refPrefix = "#/definitions/"

// kinds are what the manifests may hold, as group/version/Kind.
func kinds() []string {
	return []string{
		"/v1/ConfigMap", "/v1/Namespace", "/v1/Service", "/v1/ServiceAccount", "apps/v1/Deployment",
		"autoscaling/v2/HorizontalPodAutoscaler", "batch/v1/Job", "networking.k8s.io/v1/NetworkPolicy",
		"policy/v1/PodDisruptionBudget",
	}
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: schema path/to/swagger.json > schemas.json")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "schema:", err)
		os.Exit(1)
	}
}

// node is a schema, or a part of one.
type node = map[string]any

func run(path string, out io.Writer) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var document struct{ Definitions map[string]node }
	if err := json.Unmarshal(text, &document); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	c := cutter{from: document.Definitions, to: map[string]node{}}
	index := map[string]string{}
	for _, kind := range kinds() {
		name := c.find(kind)
		if name == "" {
			return fmt.Errorf("%s does not know the kind %s", path, kind)
		}
		index[strings.TrimPrefix(kind, "/")] = name
		c.take(name)
		properties, _ := c.to[name]["properties"].(node)
		delete(properties, "status")
	}
	enc := json.NewEncoder(out)
	enc.SetIndent("", " ")
	return enc.Encode(node{"$schema": "http://json-schema.org/draft-07/schema#", "kinds": index, "definitions": c.reached(index)})
}

// cutter copies definitions and what they refer to.
type cutter struct{ from, to map[string]node }

// find returns the definition of a kind.
func (c cutter) find(kind string) string {
	for name, d := range c.from {
		versions, _ := d["x-kubernetes-group-version-kind"].([]any)
		same := func(v any) bool {
			gvk, _ := v.(node)
			return fmt.Sprintf("%v/%v/%v", gvk["group"], gvk["version"], gvk["kind"]) == kind
		}
		if len(versions) == 1 && slices.ContainsFunc(versions, same) {
			return name
		}
	}
	return ""
}

// take copies a definition and all that it refers to.
func (c cutter) take(name string) {
	if _, done := c.to[name]; done {
		return
	}
	c.to[name] = node{} // a definition may refer to itself
	kept, _ := c.strict(c.from[name]).(node)
	switch {
	case strings.HasSuffix(name, ".intstr.IntOrString"):
		kept = node{"type": []string{"integer", "string"}}
	case strings.HasSuffix(name, ".api.resource.Quantity"):
		kept = node{"type": []string{"number", "string"}}
	}
	c.to[name] = kept
}

// strict copies a part without its prose, takes what it refers to, and closes its objects.
func (c cutter) strict(part any) any {
	switch part := part.(type) {
	case node:
		kept := node{}
		for key, value := range part {
			switch {
			case key == "properties":
				kept[key] = c.properties(value)
			case key == "description", key == "default", strings.HasPrefix(key, "x-kubernetes"):
			default:
				kept[key] = c.strict(value)
			}
		}
		if ref, ok := part["$ref"].(string); ok {
			c.take(strings.TrimPrefix(ref, refPrefix))
		}
		if _, known := part["properties"]; known {
			kept["additionalProperties"] = false
		}
		return kept
	case []any:
		kept := make([]any, len(part))
		for i, value := range part {
			kept[i] = c.strict(value)
		}
		return kept
	default:
		return part
	}
}

// properties copies the members of an object; their names are nobody's keywords.
func (c cutter) properties(value any) node {
	members, _ := value.(node)
	kept := node{}
	for name, member := range members {
		kept[name] = c.strict(member)
	}
	return kept
}

// reached returns the definitions that the kinds still need.
func (c cutter) reached(index map[string]string) map[string]node {
	needed := map[string]node{}
	var walk func(part any)
	walk = func(part any) {
		switch part := part.(type) {
		case node:
			if ref, ok := part["$ref"].(string); ok {
				name := strings.TrimPrefix(ref, refPrefix)
				if _, seen := needed[name]; !seen {
					needed[name] = c.to[name]
					walk(c.to[name])
				}
			}
			for _, value := range part {
				walk(value)
			}
		case []any:
			for _, value := range part {
				walk(value)
			}
		}
	}
	for _, name := range index {
		needed[name] = c.to[name]
		walk(c.to[name])
	}
	return needed
}
