package settings

// Reference is what a document holds in place of a secret: {"$secret": "stripe", "version": 3}. It is also the type of
// such a member in what programs read by [For]; [Secrets] reads what it refers to.
type Reference struct {
	// Name is the secret's id among those of the layer that the reference is written in.
	Name string `json:"$secret"`
	// Version is which of its values is meant.
	Version int32 `json:"version"`
}

const (
	memberSecret  = "$secret"
	memberVersion = "version"
	referenceText = `must be {"$secret": the name of a secret, "version": a number}: no document holds a secret's value`
	// maxSecretName bounds the id of a secret, maxSecretVersion the number of a version.
	maxSecretName    = 63
	maxSecretVersion = 1<<31 - 1
)

// referenceOf reads a reference; false for all else.
func referenceOf(v any) (Reference, bool) {
	o, _ := v.(Object)
	name, isText := o[memberSecret].(string)
	version, isNumber := o[memberVersion].(float64)
	if len(o) != 2 || !isText || !isNumber || !isSecretName(name) {
		return Reference{}, false
	}
	if version < 1 || version > maxSecretVersion || version != float64(int32(version)) {
		return Reference{}, false
	}
	return Reference{Name: name, Version: int32(version)}, true
}

func isReference(v any) bool {
	_, ok := referenceOf(v)
	return ok
}

// isSecretName says whether a text is the id of a secret: lower-case letters, digits and single hyphens, with a letter
// first.
func isSecretName(s string) bool {
	if s == "" || len(s) > maxSecretName || s[0] < 'a' || s[0] > 'z' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		letter, digit := s[i] >= 'a' && s[i] <= 'z', s[i] >= '0' && s[i] <= '9'
		if !letter && !digit && (s[i] != '-' || s[i-1] == '-') {
			return false
		}
	}
	return true
}

// ReferenceAt returns the reference at a JSON pointer of a document or of an effective value; false where the schema marks
// no secret, or none is referred to.
func (s *Schema) ReferenceAt(o Object, pointer string) (Reference, bool) {
	if !s.Secret(pointer) {
		return Reference{}, false
	}
	v, ok := At(o, pointer)
	if !ok {
		return Reference{}, false
	}
	return referenceOf(v)
}

// Secret says whether a secret belongs at a JSON pointer.
func (s *Schema) Secret(pointer string) bool {
	r := s.rules()
	for _, name := range names(pointer) {
		if r == nil || r.manner != deep {
			return false
		}
		r = r.member(name)
	}
	return r != nil && r.secret
}

// References are all references of a document or of an effective value, by their JSON pointers.
func (s *Schema) References(o Object) map[string]Reference {
	out := make(map[string]Reference)
	references(s.rules(), "", o, out)
	return out
}

func references(r *rule, pointer string, v any, out map[string]Reference) {
	if r == nil {
		return
	}
	if r.secret {
		if ref, ok := referenceOf(v); ok {
			out[pointer] = ref
		}
		return
	}
	o, ok := v.(Object)
	if !ok || r.manner != deep {
		return
	}
	for name, below := range o {
		references(r.member(name), pointer+Pointer(name), below, out)
	}
}

// Explained is an effective value as it is shown to people who ask where its values come from: of a secret only that it
// is one, and its version. It shares with o what it leaves as it is.
func (s *Schema) Explained(o Object) Object {
	out, _ := explained(s.rules(), o).(Object)
	return out
}

func explained(r *rule, v any) any {
	if r == nil {
		return v
	}
	if ref, ok := referenceOf(v); ok && r.secret {
		return Object{"secret": true, memberVersion: float64(ref.Version)}
	}
	o, ok := v.(Object)
	if !ok || r.manner != deep {
		return v
	}
	out := make(Object, len(o))
	for name, below := range o {
		out[name] = explained(r.member(name), below)
	}
	return out
}

// WithReferences is a JSON Schema in which references stand where secrets are marked, for whoever validates documents: the
// schema speaks of the text, a document has the reference. It shares with schema what it leaves as it is.
func WithReferences(schema Object) Object {
	if schema[keywordSecret] == true {
		return Object{
			"type": "object", "additionalProperties": false, "required": []any{memberSecret, memberVersion},
			"properties": Object{
				memberSecret:  Object{"type": "string", "minLength": 1.0},
				memberVersion: Object{"type": "integer", "minimum": 1.0},
			},
		}
	}
	out := make(Object, len(schema))
	for name, v := range schema {
		o, ok := v.(Object)
		switch {
		case ok && name == "properties":
			properties := make(Object, len(o))
			for member, p := range o {
				if property, ok := p.(Object); ok {
					p = WithReferences(property)
				}
				properties[member] = p
			}
			out[name] = properties
		case ok && name == "additionalProperties":
			out[name] = WithReferences(o)
		default:
			out[name] = v
		}
	}
	return out
}

// marksSecret says whether a secret belongs below a schema.
func marksSecret(schema Object) bool {
	below, _ := schema["properties"].(Object)
	for _, v := range below {
		if property, ok := v.(Object); ok && (property[keywordSecret] == true || marksSecret(property)) {
			return true
		}
	}
	others, ok := schema["additionalProperties"].(Object)
	return ok && (others[keywordSecret] == true || marksSecret(others))
}

// secret checks "x-secret": what else is said of the text would never be checked, since no document has it.
func (c *keywordCheck) secret(pointer string, schema Object) {
	if _, kills := schema[keywordKill]; kills && marksSecret(schema) {
		c.addf(pointer, keywordKill, "is not for what holds secrets: a safe value would have them in clear")
	}
	v, ok := schema[keywordSecret]
	if !ok {
		return
	}
	if _, isBool := v.(bool); !isBool {
		c.addf(pointer, keywordSecret, "must be true or false")
		return
	}
	if v == false {
		return
	}
	if pointer == "" || schema["type"] != "string" {
		c.addf(pointer, keywordSecret, `is for a member whose "type" is "string"`)
	}
	for _, name := range sortedNames(schema) {
		switch name {
		case keywordSecret, keywordLock, keywordEditable, "type", "title", "description", "$comment", "deprecated":
		case keywordMerge:
			if schema[name] != "replace" {
				c.addf(pointer, keywordSecret, "is replaced as a whole")
			}
		default:
			c.addf(pointer, keywordSecret, "leaves nothing for %q to be about: a document holds a reference, not the text", name)
		}
	}
}
