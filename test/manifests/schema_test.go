package manifests_test

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// schemas are the strict JSON Schemas by "group/version/Kind".
type schemas map[string]*jsonschema.Schema

func loadSchemas(t *testing.T) schemas {
	t.Helper()
	file, err := os.Open("testdata/schemas.json")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	document, err := jsonschema.UnmarshalJSON(file)
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	const url = "kubernetes.json"
	if err := c.AddResource(url, document); err != nil {
		t.Fatal(err)
	}
	found := schemas{}
	for kind, definition := range members(document, "kinds") {
		name, _ := definition.(string)
		if found[kind], err = c.Compile(url + "#/definitions/" + name); err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
	}
	return found
}

// check returns what Kubernetes would not take, or nil.
func (s schemas) check(o object) error {
	schema := s[text(o, "apiVersion")+"/"+o.kind()]
	if schema == nil {
		return &unknownKind{o}
	}
	return schema.Validate(map[string]any(o))
}

type unknownKind struct{ object }

func (u *unknownKind) Error() string {
	return text(u.object, "apiVersion") + " " + u.kind() + " is no kind that we have a schema of"
}

func TestSchemas(t *testing.T) {
	t.Parallel()
	s := loadSchemas(t)
	for _, overlay := range overlays() {
		t.Run(overlay, func(t *testing.T) {
			t.Parallel()
			objects := render(t, deploy+"/"+overlay)
			if len(objects) == 0 {
				t.Fatal("nothing is rendered")
			}
			for _, o := range objects {
				if err := s.check(o); err != nil {
					t.Errorf("%s: %v", o, err)
				}
			}
		})
	}
}

// TestSchemasFindOffenders shows that a misspelt field does not pass, wherever it stands.
func TestSchemasFindOffenders(t *testing.T) {
	t.Parallel()
	s := loadSchemas(t)
	objects := render(t, deploy+"/base")
	tests := map[string]struct {
		object string
		way    []string
		value  any
	}{
		"misspelt at the top":     {"Deployment/tenancy", []string{"spec", "minReadySecond"}, 5},
		"misspelt in a pod":       {"Deployment/quota", []string{"spec", "template", "spec", "enableServicelinks"}, false},
		"misspelt in a container": {"Deployment/gateway", []string{"spec", "template", "spec", "containers", "0", "readinesProbe"}, map[string]any{}},
		"misspelt in a policy":    {"NetworkPolicy/config", []string{"spec", "egres"}, []any{}},
		"wrong type":              {"HorizontalPodAutoscaler/quota", []string{"spec", "minReplicas"}, "two"},
		"another kind":            {"PodDisruptionBudget/quota", []string{"kind"}, "Pod"},
		"list where a map belongs": {
			"Job/tenancy-migrate", []string{"spec", "template", "spec", "securityContext"}, []any{},
		},
		"unknown kind":     {"Service/quota", []string{"kind"}, "Servise"},
		"status":           {"Deployment/config", []string{"status"}, map[string]any{"replicas": 1}},
		"required removed": {"Deployment/config", []string{"spec", "selector"}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			offender := planted(t, objects, test.object, test.way, test.value)
			for _, o := range offender {
				if s.check(o) != nil {
					return
				}
			}
			t.Error("no schema finds it")
		})
	}
}

// planted returns a copy of objects with one change.
func planted(t *testing.T, objects []object, target string, way []string, value any) []object {
	t.Helper()
	b, err := json.Marshal(objects)
	if err != nil {
		t.Fatal(err)
	}
	var copied []object
	if err := json.Unmarshal(b, &copied); err != nil {
		t.Fatal(err)
	}
	for i, o := range copied {
		if o.String() != target {
			continue
		}
		if len(way) == 0 {
			return append(copied[:i], copied[i+1:]...)
		}
		if err := set(o, value, way...); err != nil {
			t.Fatal(err)
		}
		return copied
	}
	t.Fatalf("there is no %s", target)
	return nil
}
