package feed

import (
	"errors"
	"maps"
	"slices"
)

// sift parts the entries of a change into those to apply and the reasons of those to quarantine. In a whole image the
// last good value stands in for a refused one.
func (f *Feed) sift(c Change) ([]Entry, map[string]string) {
	if f.cfg.Check == nil && f.guard == nil {
		return c.Entries, make(map[string]string)
	}
	good, bad := slices.Clip(c.Entries), make(map[string]string)
	for i, e := range c.Entries {
		err := f.judge(e, c)
		if err == nil {
			if len(bad) > 0 {
				good = append(good, e)
			}
			continue
		}
		if len(bad) == 0 {
			good = slices.Clone(c.Entries[:i])
		}
		bad[e.Key] = err.Error()
		if last, ok := f.state.lastGood(e.Key); ok && c.Reset {
			good = append(good, Entry{Key: e.Key, Value: last})
		}
	}
	if c.Reset && f.guard.holdsBack() {
		good = f.keepMissing(c, good, bad)
	}
	return good, bad
}

// judge says why an entry is not to be applied.
func (f *Feed) judge(e Entry, c Change) error {
	if f.cfg.Urgent == nil || !f.cfg.Urgent(e) {
		last, has := f.state.lastGood(e.Key)
		if f.guard.holds(e, Entry{Key: e.Key, Value: last, Deleted: !has}, c) {
			if f.cfg.Held != nil {
				f.cfg.Held(e)
			}
			return errors.New(heldFor)
		}
	}
	if e.Deleted || f.cfg.Check == nil {
		return nil
	}
	return guard(func() error { return f.cfg.Check(e.Key, e.Value) })
}

// keepMissing holds back deletions that a whole image shows by what it has not.
func (f *Feed) keepMissing(c Change, good []Entry, bad map[string]string) []Entry {
	gone := make(map[string]bool)
	for key := range f.state.entries {
		gone[key] = true
	}
	for key := range f.state.good {
		gone[key] = true
	}
	for _, e := range c.Entries {
		delete(gone, e.Key)
	}
	for _, key := range slices.Sorted(maps.Keys(gone)) {
		if err := f.judge(Entry{Key: key, Deleted: true}, c); err != nil {
			bad[key] = err.Error()
			if last, ok := f.state.lastGood(key); ok {
				good = append(good, Entry{Key: key, Value: last})
			}
		}
	}
	return good
}
