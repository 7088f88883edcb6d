package usage

import "time"

// earliest is which part of a period must be over before its end is forecast: one call in the first minute says nothing.
const earliest = 10

// Forecast returns when a limit is reached if a period goes on as it went so far, and whether that is before the period ends.
// It says nothing in the first tenth of the period, of what is not used, and of what is used up already.
func Forecast(start, end, now time.Time, used, limit int64) (at time.Time, reached bool) {
	elapsed, whole := now.Sub(start), end.Sub(start)
	if used <= 0 || used >= limit || elapsed < whole/earliest || !now.Before(end) {
		return time.Time{}, false
	}
	at = start.Add(time.Duration(float64(elapsed) * (float64(limit) / float64(used)))) // may be off by a microsecond
	if float64(elapsed)*(float64(limit)/float64(used)) >= float64(whole) {
		return time.Time{}, false
	}
	return at.Truncate(time.Second), true
}
