package settings

// Schema is what merging needs of a namespace's JSON Schema, read once. It is immutable; nil is the schema that says
// nothing.
type Schema struct {
	object, defaults Object
}

// NewSchema reads a schema. What it does not understand it leaves alone: the config service checks schemas when they
// are written.
func NewSchema(schema Object) *Schema {
	return &Schema{object: schema, defaults: defaults(schema)}
}

// Object is the schema itself.
func (s *Schema) Object() Object {
	if s == nil {
		return nil
	}
	return s.object
}

// Defaults is the "default" of every property, the widest layer of all; see [Stack].
func (s *Schema) Defaults() Object {
	if s == nil {
		return Object{}
	}
	return s.defaults
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
