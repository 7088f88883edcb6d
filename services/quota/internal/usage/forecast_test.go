package usage_test

import (
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/services/quota/internal/usage"
)

func TestForecast(t *testing.T) {
	t.Parallel()
	start := time.Date(2028, 2, 1, 0, 0, 0, 0, time.UTC)
	end := start.AddDate(0, 1, 0) // 29 days
	day := func(n int) time.Time { return start.AddDate(0, 0, n) }
	for name, c := range map[string]struct {
		now         time.Time
		used, limit int64
		want        time.Time
	}{
		"half used in a quarter": {day(7), 50, 100, day(14)},
		"just enough":            {day(10), 100, 290, time.Time{}},
		"one too many":           {day(10), 100, 280, day(28)},
		"too early to say":       {day(2), 99, 100, time.Time{}},
		"used up":                {day(10), 100, 100, time.Time{}},
		"nothing used":           {day(20), 0, 100, time.Time{}},
		"a limit of nothing":     {day(20), 0, 0, time.Time{}},
		"a period that is over":  {end, 99, 100, time.Time{}},
		"very much":              {day(7), 1 << 49, 1 << 50, day(14)},
	} {
		at, reached := usage.Forecast(start, end, c.now, c.used, c.limit)
		if reached != !c.want.IsZero() || !at.Equal(c.want) {
			t.Errorf("%s: %s, want %s", name, at, c.want)
		}
	}
}
