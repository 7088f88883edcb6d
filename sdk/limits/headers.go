package limits

import (
	"strconv"
	"strings"
	"time"
)

// Headers sets the fields of draft-ietf-httpapi-ratelimit-headers-10, and
// Retry-After on a refusal, by calling set with each name and value. It sets
// nothing when no limit holds.
func (d Decision) Headers(set func(name, value string)) {
	if !d.Limited || d.Degraded {
		return
	}
	var policy strings.Builder
	policy.WriteString(strconv.Quote(d.Limit) + ";q=" + strconv.FormatInt(d.Policy.Limit.Tokens(), 10))
	if w := d.Policy.Limit.Period(); w >= time.Second {
		policy.WriteString(";w=" + strconv.FormatInt(seconds(w), 10))
	}
	set("RateLimit-Policy", policy.String())
	state := strconv.Quote(d.Limit) + ";r=" + strconv.FormatInt(max(d.Remaining, 0), 10)
	if !d.OK && d.RetryAfter > 0 {
		state += ";t=" + strconv.FormatInt(seconds(d.RetryAfter), 10)
		set("Retry-After", strconv.FormatInt(seconds(d.RetryAfter), 10))
	}
	set("RateLimit", state)
}
