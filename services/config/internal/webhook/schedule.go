package webhook

import (
	"net/http"
	"strconv"
	"time"

	"github.com/rowhouse-platform/rowhouse/internal/egress"
)

const (
	maxRetryAfter = time.Hour
	// An endpoint rests after a failure, for longer with each: so that one that fails at once does not have its whole
	// backlog tried at once. One that is slow or overloaded rests longer.
	failPause = time.Second
	slowPause = 5 * time.Second
	maxPause  = 5 * time.Minute
)

// delays are those of Standard Webhooks between one attempt and the next: ten attempts in three days and a bit.
//
//nolint:gochecknoglobals // a table that never changes
var delays = [...]time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour,
	20 * time.Hour, 24 * time.Hour,
}

// Result is how an attempt went and what follows.
type Result struct {
	// Delivered: a 2xx. Gone: a 410, nothing more is to be sent there. Neither: it is tried again after Delay, or, when
	// Dead is set, never. Released: it was not tried at all.
	Delivered, Gone, Dead, Released bool
	// Fast says that it was delivered soon.
	Fast bool
	// Delay is from now to the next attempt, Pause to the next of any message of the endpoint.
	Delay, Pause time.Duration
	// Status is the answer's, Failure the class of what went wrong.
	Status  int
	Failure string
}

// judge says what follows from an answer. attempts are those before, failures the endpoint's since the last success;
// random is in [0, 1).
func judge(t Task, answer *egress.Answer, err error, random float64) Result {
	r := Result{Failure: "STATUS"}
	pause := failPause
	if err != nil {
		class := egress.ClassOf(err)
		if r.Failure = string(class); class == egress.Timeout {
			pause = slowPause
		}
	} else {
		r.Status = answer.Status
		switch {
		case r.Status >= 200 && r.Status < 300:
			return Result{Delivered: true, Status: r.Status}
		case r.Status == http.StatusGone:
			r.Gone, r.Dead = true, true
			return r
		case r.Status == http.StatusTooManyRequests || r.Status == http.StatusBadGateway || r.Status == http.StatusGatewayTimeout:
			pause = slowPause
		}
	}
	if t.Attempts >= len(delays) {
		r.Dead = true
		return r
	}
	// Up to a fifth later, so that what failed together does not come back together.
	r.Delay = time.Duration(float64(delays[t.Attempts]) * (1 + random/5))
	r.Pause = min(pause*time.Duration(1+min(t.Failures, int(maxPause/failPause))), maxPause)
	if answer != nil {
		if seconds, err := strconv.Atoi(answer.Header.Get("Retry-After")); err == nil && seconds > 0 {
			wait := min(time.Duration(min(seconds, int(maxRetryAfter/time.Second)))*time.Second, maxRetryAfter)
			r.Delay, r.Pause = max(r.Delay, wait), max(r.Pause, wait)
		}
	}
	return r
}
