package settings

import (
	"maps"
	"slices"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/text/message"
)

// namesVocabulary checks "propertyNames" once more, beside the library: its own error keeps a location that the library
// writes over while it goes on, so that it may name another place of the document. See [appendProblems].
func namesVocabulary() *jsonschema.Vocabulary {
	return &jsonschema.Vocabulary{
		URL: "https://schema.invalid/names",
		Compile: func(c *jsonschema.CompilerContext, schema map[string]any) (jsonschema.SchemaExt, error) {
			if _, ok := schema["propertyNames"]; !ok {
				return nil, nil
			}
			return namesCheck{c.Enqueue([]string{"propertyNames"})}, nil
		},
	}
}

// namesCheck tells of each member whose name the schema refuses.
type namesCheck struct{ schema *jsonschema.Schema }

// Validate implements jsonschema.SchemaExt.
func (n namesCheck) Validate(c *jsonschema.ValidatorContext, v any) {
	o, _ := v.(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(o)) {
		if n.schema.Validate(name) != nil {
			c.AddError(badName(name))
		}
	}
}

// badName is a name that "propertyNames" refuses. It implements jsonschema.ErrorKind.
type badName string

// KeywordPath implements jsonschema.ErrorKind.
func (badName) KeywordPath() []string { return []string{"propertyNames"} }

// LocalizedString implements jsonschema.ErrorKind.
func (badName) LocalizedString(*message.Printer) string { return "is a name that the schema refuses" }
