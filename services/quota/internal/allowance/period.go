package allowance

import "time"

// Cycle is how often what was used starts over.
type Cycle int16

// The cycles, numbered as in the API.
const (
	Once Cycle = iota + 1
	Daily
	Monthly
)

// Period is when what was used starts over, in UTC.
type Period struct {
	Cycle Cycle
	// Day is the day on which a month begins, 1 to 31; in a shorter month its last one.
	Day int
	// Hour is the hour at which a period begins.
	Hour int
}

// Always is the start of the one period of what never starts over.
func Always() time.Time { return time.Unix(0, 0).UTC() }

// At returns the period in which a moment is. It begins with start and ends before end, which is zero without a cycle.
func (p Period) At(t time.Time) (start, end time.Time) {
	t = t.UTC()
	switch p.Cycle {
	case Daily:
		start = time.Date(t.Year(), t.Month(), t.Day(), p.Hour, 0, 0, 0, time.UTC)
		if t.Before(start) {
			start = start.AddDate(0, 0, -1)
		}
		return start, start.AddDate(0, 0, 1)
	case Monthly:
		start = p.of(t.Year(), t.Month())
		if t.Before(start) {
			return p.of(t.Year(), t.Month()-1), start
		}
		return start, p.of(t.Year(), t.Month()+1)
	default:
		return Always(), time.Time{}
	}
}

// of is when the period begins that a month has; months beyond a year are of the next or the one before.
func (p Period) of(year int, month time.Month) time.Time {
	first := time.Date(year, month, 1, p.Hour, 0, 0, 0, time.UTC)
	last := first.AddDate(0, 1, -1).Day()
	return first.AddDate(0, 0, min(max(p.Day, 1), last)-1)
}
