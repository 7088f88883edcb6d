package limits

import (
	"strconv"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
)

// maxShown is how many limits the fields tell of.
const maxShown = 4

// Headers sets the fields of draft-ietf-httpapi-ratelimit-headers-10, and
// Retry-After on a refusal, by calling set with each name and value. They are lists of
// at most four limits, the nearest first. Names are in the spelling of net/http, which
// would send them in no other. It sets nothing when no limit holds. No field tells who
// shares a limit.
func (d Decision) Headers(set func(name, value string)) {
	if !d.Limited || d.Degraded || d.Policy == nil {
		return
	}
	const usual = 64 // bytes of a limit, more or less
	states := d.ordered()
	states = states[:min(len(states), maxShown)]
	policy, state := make([]byte, 0, usual*len(states)), make([]byte, 0, usual*len(states))
	for i := range states {
		if i > 0 {
			policy, state = append(policy, ", "...), append(state, ", "...)
		}
		policy, state = states[i].appendPolicy(policy), states[i].appendState(state)
	}
	set("Ratelimit-Policy", string(policy))
	if !d.OK && d.RetryAfter > 0 {
		set("Retry-After", strconv.FormatInt(seconds(d.RetryAfter), 10))
	}
	set("Ratelimit", string(state))
}

func (l *levelState) appendPolicy(b []byte) []byte {
	p := l.policy
	b = append(strconv.AppendQuote(b, p.ID), ";q="...)
	if p.Kind == lease.Concurrency {
		return append(strconv.AppendInt(b, p.Slots, 10), `;qu="concurrent-requests"`...)
	}
	b = strconv.AppendInt(b, p.Limit.Tokens(), 10)
	if p.Resource == BytesIn || p.Resource == BytesOut {
		b = append(b, `;qu="content-bytes"`...)
	}
	if w := p.Limit.Period(); w >= time.Second {
		b = strconv.AppendInt(append(b, ";w="...), seconds(w), 10)
	}
	return b
}

func (l *levelState) appendState(b []byte) []byte {
	b = strconv.AppendInt(append(strconv.AppendQuote(b, l.policy.ID), ";r="...), max(l.remaining, 0), 10)
	if l.denied && l.retry > 0 {
		b = strconv.AppendInt(append(b, ";t="...), seconds(l.retry), 10)
	}
	return b
}
