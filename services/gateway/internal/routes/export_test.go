package routes

// Decode is decode, for the fuzz test.
func Decode(key string, value []byte) (any, error) { return decode(key, value) }
