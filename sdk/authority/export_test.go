package authority

// ParseSlow is the way through IDNA alone.
func ParseSlow(s string) (Host, error) { return parseSlow(s) }
