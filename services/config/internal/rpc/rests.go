package rpc

import (
	"maps"
	"time"
)

const (
	// What cannot be tried, because the database is away or by a defect, is tried again later and later, and keeps nothing
	// else waiting.
	firstRest = time.Second
	longRest  = time.Minute
)

// rests are how long what could not be tried is left alone, by its name.
type rests map[string]rest

type rest struct {
	until time.Time
	next  time.Duration
}

// tire leaves something alone for a while, longer each time, and returns how long.
func (r rests) tire(name string, now time.Time, longest time.Duration) time.Duration {
	maps.DeleteFunc(r, func(_ string, old rest) bool { return now.Sub(old.until) > longRest }) // what nobody tries any more
	next := min(max(2*r[name].next, firstRest), longest)
	r[name] = rest{now.Add(next), next}
	return next
}

// done says that something could be tried.
func (r rests) done(name string) { delete(r, name) }

func (r rests) resting(name string, now time.Time) bool { return now.Before(r[name].until) }
