package door

import (
	"context"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/flags"
)

// Next waits until a stream has something to tell: a change of the flags, or a time at which an answer of view may become
// another. It returns what holds then, with the keys of all flags whose answers may be others; or view, and no keys, when
// there was nothing for as long as patience, or ctx has ended.
func (d *Door) Next(ctx context.Context, s *flags.Subscription, view *flags.View, patience time.Duration) (*flags.View, []string) {
	turns := false
	if in, ok := turn(view, d.Now()); ok && in <= patience {
		patience, turns = in, true
	}
	waiting, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	change, err := s.Next(waiting)
	switch {
	case err == nil:
		return change.View, append([]string{}, change.Keys...)
	case turns && ctx.Err() == nil:
		return view, view.Timed()
	default:
		return view, nil
	}
}

// turn returns how long it is until the next constant that a rule compares with the time. What rules compute of the time
// has no such moment: clients see it when they ask the next time.
func turn(view *flags.View, now time.Time) (time.Duration, bool) {
	var first time.Time
	for _, key := range view.Timed() {
		for _, second := range view.Times(key).Instants {
			if at := time.Unix(second, 0); at.After(now) && (first.IsZero() || at.Before(first)) {
				first = at
			}
		}
	}
	return first.Sub(now), !first.IsZero()
}
