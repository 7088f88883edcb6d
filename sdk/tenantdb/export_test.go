package tenantdb

// SetJitter replaces the randomness of pauses; call it before db is used.
func (db *DB) SetJitter(jitter func() float64) { db.jitter = jitter }

// IntoOf is Into for what is not constant.
func IntoOf(table string, columns ...string) Insertion {
	texts := make([]text, len(columns))
	for i, c := range columns {
		texts[i] = text(c)
	}
	return Into(text(table), texts...)
}
