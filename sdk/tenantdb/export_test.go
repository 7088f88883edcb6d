package tenantdb

// SetJitter replaces the randomness of pauses; call it before db is used.
func (db *DB) SetJitter(jitter func() float64) { db.jitter = jitter }
