package settings

import (
	"maps"
	"slices"
)

// Difference is one leaf in which two documents differ.
type Difference struct {
	Pointer string
	// Before and After are the values as JSON, empty where there is none.
	Before, After string
}

// Diff returns the leaves in which two documents differ, by pointer. Arrays and empty objects are leaves.
func Diff(before, after Object) []Difference {
	was, is := make(map[string]string), make(map[string]string)
	addLeaves("", before, was)
	addLeaves("", after, is)
	all := maps.Clone(was)
	maps.Copy(all, is)
	var out []Difference
	for _, pointer := range slices.Sorted(maps.Keys(all)) {
		if was[pointer] != is[pointer] {
			out = append(out, Difference{pointer, was[pointer], is[pointer]})
		}
	}
	return out
}

func addLeaves(pointer string, v any, out map[string]string) {
	o, ok := v.(Object)
	if !ok || len(o) == 0 && pointer != "" {
		out[pointer] = string(Canonical(v))
		return
	}
	for name, below := range o {
		addLeaves(pointer+Pointer(name), below, out)
	}
}
