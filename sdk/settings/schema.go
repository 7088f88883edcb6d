package settings

import (
	"cmp"
	"crypto/sha256"
)

// Schema is what merging needs of a namespace's JSON Schema, read once. It is immutable; nil is the schema that says
// nothing.
type Schema struct {
	defaults Object
	rule     *rule
	digest   [sha256.Size]byte
}

// NewSchema reads a schema. What it does not understand it leaves alone: the config service checks schemas when they
// are written.
func NewSchema(schema Object) *Schema {
	keywords := keywordsOf(schema)
	s := &Schema{defaults: defaults(schema), rule: readRule(keywords)}
	s.digest = sha256.Sum256(Canonical([]any{s.defaults, keywords}))
	return s
}

// Defaults is the "default" of every property, the widest layer of all; see [Stack].
func (s *Schema) Defaults() Object {
	if s == nil {
		return Object{}
	}
	return s.defaults
}

func (s *Schema) rules() *rule {
	if s == nil {
		return nil
	}
	return s.rule
}

// defaults collects the "default" of every property of a JSON Schema. References are not followed.
func defaults(schema Object) Object {
	out := Object{}
	properties, _ := schema["properties"].(Object)
	for name, p := range properties {
		property, _ := p.(Object)
		if v, ok := property["default"]; ok {
			out[name] = v
			continue
		}
		if nested := defaults(property); len(nested) > 0 {
			out[name] = nested
		}
	}
	return out
}

func compareProblems(a, b Problem) int {
	return cmp.Or(cmp.Compare(a.Pointer, b.Pointer), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Text, b.Text))
}
