package settings

import (
	"maps"
	"strconv"
	"strings"
)

// escape writes a member's name for a JSON pointer.
func escape(name string) string {
	return strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
}

// Patch applies an RFC 7396 merge patch and returns the result; neither argument is
// changed.
func Patch(target, patch Object) Object {
	out := make(Object, len(target)+len(patch))
	maps.Copy(out, target)
	for name, v := range patch {
		switch v := v.(type) {
		case nil:
			delete(out, name)
		case Object:
			below, _ := out[name].(Object)
			out[name] = Patch(below, v)
		default:
			out[name] = v
		}
	}
	return out
}

// Pointer writes the JSON pointer (RFC 6901) of names.
func Pointer(names ...string) string {
	var b strings.Builder
	for _, name := range names {
		b.WriteByte('/')
		b.WriteString(escape(name))
	}
	return b.String()
}

// names are the names that a JSON pointer leads along.
func names(pointer string) []string {
	parts := strings.Split(pointer, "/")[1:]
	for i, part := range parts {
		parts[i] = strings.ReplaceAll(strings.ReplaceAll(part, "~1", "/"), "~0", "~")
	}
	return parts
}

// At returns the value at a JSON pointer; false when there is none.
func At(v any, pointer string) (any, bool) {
	if pointer == "" {
		return v, true
	}
	for _, name := range names(pointer) {
		switch in := v.(type) {
		case Object:
			below, ok := in[name]
			if !ok {
				return nil, false
			}
			v = below
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(in) {
				return nil, false
			}
			v = in[i]
		default:
			return nil, false
		}
	}
	return v, true
}
