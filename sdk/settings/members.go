package settings

// MergesMembers says whether a value at a JSON pointer is merged member by member: it is an object, and neither a
// keyword of the schema nor its meaning ("$unset") has it taken as a whole.
func (s *Schema) MergesMembers(pointer string, v any) bool {
	r := s.rules()
	for _, name := range names(pointer) {
		if how, _ := r.how(); how != deep {
			return false
		}
		r = r.member(name)
	}
	how, _ := r.how()
	return how == deep && r.merges(v)
}
