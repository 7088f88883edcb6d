package limits

import (
	"strconv"
	"time"
)

// Headers sets the fields of draft-ietf-httpapi-ratelimit-headers-10, and
// Retry-After on a refusal, by calling set with each name and value. Names are in the
// spelling of net/http, which would send them in no other. It sets nothing when no limit
// holds.
func (d Decision) Headers(set func(name, value string)) {
	if !d.Limited || d.Degraded {
		return
	}
	const usual = 64 // bytes of a value, more or less
	policy := strconv.AppendQuote(make([]byte, 0, usual), d.Limit)
	policy = strconv.AppendInt(append(policy, ";q="...), d.Policy.Limit.Tokens(), 10)
	if w := d.Policy.Limit.Period(); w >= time.Second {
		policy = strconv.AppendInt(append(policy, ";w="...), seconds(w), 10)
	}
	set("Ratelimit-Policy", string(policy))
	state := strconv.AppendQuote(make([]byte, 0, usual), d.Limit)
	state = strconv.AppendInt(append(state, ";r="...), max(d.Remaining, 0), 10)
	if !d.OK && d.RetryAfter > 0 {
		state = strconv.AppendInt(append(state, ";t="...), seconds(d.RetryAfter), 10)
		set("Retry-After", strconv.FormatInt(seconds(d.RetryAfter), 10))
	}
	set("Ratelimit", string(state))
}
