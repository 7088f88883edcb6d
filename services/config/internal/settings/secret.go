package settings

import sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"

// References are what the owner's document would refer to after the change and did not before, by JSON pointer.
func (c Change) References() map[string]sdk.Reference {
	if c.Layer == nil {
		return nil
	}
	schema := c.Before.Schema.Merge
	found := schema.References(c.Layer.Object)
	if before := c.Before.layer(c.Owner); before != nil {
		for pointer, ref := range schema.References(before.Object) {
			if found[pointer] == ref {
				delete(found, pointer)
			}
		}
	}
	return found
}

// Refers says whether the owner's document refers to a secret, with version 0 to any of its versions.
func (s State) Refers(o Owner, name string, version int32) bool {
	layer := s.layer(o)
	if layer == nil {
		return false
	}
	for _, ref := range s.Schema.Merge.References(layer.Object) {
		if ref.Name == name && (version == 0 || ref.Version == version) {
			return true
		}
	}
	return false
}
