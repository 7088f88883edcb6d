package settings

// Work is what the last check cost.
func (s *Schema) Work() (units int) {
	for _, n := range s.meter.spent {
		units += n
	}
	return units
}
