package flags

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// rootMembers and flagMembers are the members of flagd's format, of a document and of a flag, and what its tools and
// its users put beside them, which says nothing: notes, and where a flag came from. flagd itself passes over all others.
var (
	rootMembers = []string{ //nolint:gochecknoglobals // a constant list
		"flags", "$evaluators", "metadata", "$schema", "$id", "$comment", "title", "description",
	}
	flagMembers = []string{ //nolint:gochecknoglobals // a constant list
		"state", "variants", "defaultVariant", "targeting", "metadata", "key", "$comment", "name", "title", "description",
		"flagType", "flagSetId", "priority", "source", "selector",
	}
)

// checkMembers looks for members that mean nothing to anybody, which are mistakes, and for variants of several types.
func checkMembers(document settings.Object) []settings.Problem {
	problems := unknown(document, rootMembers)
	defined, _ := document["flags"].(settings.Object)
	for key, raw := range defined {
		flag, ok := raw.(settings.Object)
		if !ok {
			continue
		}
		problems = append(problems, unknown(flag, flagMembers, "flags", key)...)
		variants, _ := flag["variants"].(settings.Object)
		types := make(map[string]bool)
		for _, value := range variants {
			types[typeOf(value)] = true
		}
		if len(types) > 1 {
			problems = append(problems, settings.Problem{Pointer: settings.Pointer("flags", key, "variants"), Rule: "type",
				Text: "are of several types, " + strings.Join(slices.Sorted(maps.Keys(types)), " and ") + "; all variants of a flag have one"})
		}
	}
	return problems
}

// unknown are the members of an object that are not among the known ones.
func unknown(o settings.Object, known []string, path ...string) (problems []settings.Problem) {
	for name := range o {
		if slices.Contains(known, name) {
			continue
		}
		text := "is no member of flagd's format"
		if near := settings.Nearest(name, known); near != "" {
			text += fmt.Sprintf("; did you mean %q?", near)
		}
		at := append(slices.Clone(path), name)
		problems = append(problems, settings.Problem{Pointer: settings.Pointer(at...), Rule: "unknown", Text: text})
	}
	return problems
}

// typeOf is the type of a value in JSON.
func typeOf(v any) string {
	switch v.(type) {
	case bool:
		return "boolean"
	case string:
		return "string"
	case float64:
		return "number"
	case settings.Object:
		return "object"
	case []any:
		return "array"
	default:
		return "null"
	}
}
