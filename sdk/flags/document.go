package flags

import (
	_ "embed" // schemas
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/rowhouse-platform/rowhouse/sdk/flags/flagset"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

//go:embed flags.schema.json
var schema string

//go:embed kills.schema.json
var killSchema string

// Schema is the JSON Schema of the namespace "flags". [Check] looks at what a schema cannot say.
func Schema() string { return schema }

// KillSchema is the JSON Schema of the namespace "flag-kills".
func KillSchema() string { return killSchema }

// Check says what must not be published: what [flagset.Validate] finds, members that flagd's format does not have,
// variants of several types, and a layer that changes what belongs to the layer
// that defines a flag. It is for the effective value of the namespace "flags".
func Check(e settings.Effective, with ...flagset.Option) []settings.Problem {
	document := whole(e.Object)
	if _, list := document["flags"].([]any); list {
		return []settings.Problem{{Pointer: "/flags", Rule: "type", Text: "is a list; layers merge flags by their keys, in an object"}}
	}
	found, err := flagset.Validate(document, with...)
	if err != nil { // without flags nothing else can be looked at
		return []settings.Problem{{Pointer: pointerOf(err), Rule: "type", Text: strings.TrimPrefix(err.Error(), "flagset: ")}}
	}
	problems := make([]settings.Problem, 0, len(found))
	for _, p := range found {
		problems = append(problems, settings.Problem{Pointer: p.Pointer, Rule: "flag", Text: p.Text})
	}
	problems = append(problems, checkMembers(document)...)
	problems = append(problems, checkOwners(e)...)
	return problems
}

// pointerOf is where a document of flags is none.
func pointerOf(err error) string {
	if !errors.Is(err, flagset.ErrDocument) {
		return ""
	}
	for _, member := range []string{"/metadata", "/$evaluators", "/flags"} {
		if strings.Contains(err.Error(), member) {
			return member
		}
	}
	return ""
}

// shared are the members of a flag that every layer may set. The others are those of the layer that defines it.
var shared = []string{"state", "defaultVariant", "targeting", "metadata"} //nolint:gochecknoglobals // a constant list

// Owners returns the layers that define flags, by the flags' keys.
func Owners(e settings.Effective) map[string]string {
	owners := make(map[string]string)
	for _, o := range e.Origins {
		if key, member, ok := memberOf(o.Pointer); ok && member == "variants" {
			owners[key] = o.Layer
		}
	}
	return owners
}

// memberOf is the key and the member of a flag that a leaf belongs to.
func memberOf(pointer string) (key, member string, ok bool) {
	parts := strings.Split(pointer, "/")
	const least = 4 // "", "flags", key, member
	if len(parts) < least || parts[1] != "flags" {
		return "", "", false
	}
	return unescape(parts[2]), unescape(parts[3]), true
}

func unescape(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "~1", "/"), "~0", "~")
}

// checkOwners looks for flags whose variants, or other members that are not shared, come from several layers.
func checkOwners(e settings.Effective) []settings.Problem {
	owners, wrong := Owners(e), make(map[string]bool)
	for _, o := range e.Origins {
		key, member, ok := memberOf(o.Pointer)
		if !ok || slices.Contains(shared, member) {
			continue
		}
		if owner := owners[key]; owner != "" && owner != o.Layer || len(o.Shadowed) > 0 {
			wrong[settings.Pointer("flags", key, member)] = true
		}
	}
	problems := make([]settings.Problem, 0, len(wrong))
	for _, at := range slices.Sorted(maps.Keys(wrong)) {
		problems = append(problems, settings.Problem{Pointer: at, Rule: "owner",
			Text: "is set by more than one layer; below the one that defines a flag, layers may set " + strings.Join(shared, ", ")})
	}
	return problems
}

// whole is a document with the member that there must be: a layer need not set any flag.
func whole(document settings.Object) settings.Object {
	if _, ok := document["flags"]; ok {
		return document
	}
	out := settings.Object{"flags": settings.Object{}}
	maps.Copy(out, document)
	return out
}

// Killed returns the flags with those switched off that were killed: their state is DISABLED, so that every client uses
// its own default. Flags that do not exist are passed over. The arguments are not changed.
func Killed(document, kills settings.Object) settings.Object {
	document = whole(document)
	defined, ok := document["flags"].(settings.Object)
	if !ok || len(kills) == 0 {
		return document
	}
	out := maps.Clone(document)
	defined = maps.Clone(defined)
	for key := range kills {
		if flag, ok := defined[key].(settings.Object); ok {
			off := maps.Clone(flag)
			off["state"] = "DISABLED"
			defined[key] = off
		}
	}
	out["flags"] = defined
	return out
}
