// Package manifests_test holds deploy/k8s to Kubernetes' schemas, to the rules of the house, and to the services that
// read its configuration. It renders with the kustomize that tools/go.mod pins and asks no cluster.
//
// Every rule has offenders: changes to the real manifests that it has to find. Start with TestRules.
package manifests_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"go.yaml.in/yaml/v3"
)

const (
	root     = "../.."
	deploy   = root + "/deploy/k8s"
	services = 4
)

// overlays lists what is rendered.
func overlays() []string { return []string{"base", "overlays/dev"} }

// object is a Kubernetes object, with the types that JSON has.
type object map[string]any

func (o object) kind() string { return text(o, "kind") }
func (o object) name() string { return text(o, "metadata", "name") }
func (o object) String() string {
	return o.kind() + "/" + o.name()
}

// at returns what is found by following names, and numbers into lists; nil where the way ends.
func at(v any, way ...string) any {
	for _, step := range way {
		switch part := v.(type) {
		case object:
			v = part[step]
		case map[string]any:
			v = part[step]
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i >= len(part) {
				return nil
			}
			v = part[i]
		default:
			return nil
		}
	}
	return v
}

func text(v any, way ...string) string {
	s, _ := at(v, way...).(string)
	return s
}

func list(v any, way ...string) []any {
	l, _ := at(v, way...).([]any)
	return l
}

func members(v any, way ...string) map[string]any {
	m, _ := at(v, way...).(map[string]any)
	return m
}

// is reports whether the value there equals want, as JSON.
func is(want, v any, way ...string) bool {
	a, errA := json.Marshal(want)
	b, errB := json.Marshal(at(v, way...))
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

// kustomize returns the pinned kustomize; it is built when it is missing.
var kustomize = sync.OnceValues(func() (string, error) {
	cmd := exec.Command(root+"/scripts/tools.sh", "kustomize")
	var said bytes.Buffer
	cmd.Stderr = &said
	dir, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("build kustomize: %w\n%s", err, said.Bytes())
	}
	return filepath.Join(strings.TrimSpace(string(dir)), "kustomize"), nil
})

// render returns the objects of a folder.
func render(t *testing.T, folder string) []object {
	t.Helper()
	tool, err := kustomize()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), tool, "build", folder)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("kustomize build %s: %v\n%s", folder, err, said.Bytes())
	}
	if said.Len() > 0 {
		t.Errorf("kustomize build %s warns: %s", folder, said.Bytes())
	}
	objects, err := decode(out)
	if err != nil {
		t.Fatalf("%s: %v", folder, err)
	}
	return objects
}

// decode reads a stream of YAML documents as JSON would be read.
func decode(stream []byte) ([]object, error) {
	var objects []object
	for d := yaml.NewDecoder(bytes.NewReader(stream)); ; {
		var document map[string]any
		if err := d.Decode(&document); errors.Is(err, io.EOF) {
			return objects, nil
		} else if err != nil {
			return nil, err
		}
		o, err := viaJSON(document)
		if err != nil {
			return nil, err
		}
		objects = append(objects, o)
	}
}

// viaJSON is a deep copy with JSON's types.
func viaJSON(v any) (object, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var o object
	err = json.Unmarshal(b, &o)
	return o, err
}

// set replaces, adds or with a nil value removes what is at the end of a way. "-" appends to a list.
func set(v, value any, way ...string) error {
	last := len(way) - 1
	parent := at(v, way[:last]...)
	switch p := parent.(type) {
	case object:
		return setMember(p, way[last], value)
	case map[string]any:
		return setMember(p, way[last], value)
	case []any:
		if way[last] == "-" {
			return set(v, append(slices.Clone(p), value), way[:last]...)
		}
		i, err := strconv.Atoi(way[last])
		if err != nil || i >= len(p) {
			return fmt.Errorf("%v: no such place in a list of %d", way, len(p))
		}
		if value == nil {
			return set(v, slices.Delete(slices.Clone(p), i, i+1), way[:last]...)
		}
		p[i] = value
		return nil
	default:
		return fmt.Errorf("%v leads nowhere", way)
	}
}

func setMember(m map[string]any, key string, value any) error {
	if value != nil {
		m[key] = value
		return nil
	}
	if _, there := m[key]; !there {
		return fmt.Errorf("%s: nothing to remove", key)
	}
	delete(m, key)
	return nil
}
