package rls

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Style is which header fields answers ask Envoy to add to the response.
type Style string

// The styles. The zero Style is Draft.
const (
	// Draft are the fields of draft-ietf-httpapi-ratelimit-headers-10, Retry-After, and a problem as the body of a refusal.
	Draft Style = "draft"
	// Three are RateLimit-Limit, -Remaining and -Reset of the tightest limit, with the same body.
	Three Style = "three"
	// Bare adds nothing.
	Bare Style = "none"
)

// Validate says whether there is such a style.
func (s Style) Validate() error {
	switch s {
	case "", Draft, Three, Bare:
		return nil
	}
	return fmt.Errorf("headers: %q is none of %s, %s and %s", string(s), Draft, Three, Bare)
}

// maxFields is how many limits the fields name at most.
const maxFields = 4

// promise prepares what header fields say of a limit. A name that is no text of RFC 9651 is shown in part.
func (b *bound) promise() {
	var name strings.Builder
	for _, r := range b.title {
		switch {
		case r == '"' || r == '\\':
			name.WriteByte('\\')
			name.WriteRune(r)
		case r < ' ' || r > '~':
			name.WriteByte('?')
		default:
			name.WriteRune(r)
		}
	}
	b.quoted = `"` + name.String() + `"`
	b.promised = b.quoted + ";q=" + strconv.FormatInt(b.policy.Limit.Tokens(), 10) +
		";w=" + strconv.FormatInt(int64(b.policy.Limit.Period()/time.Second), 10)
}

// decorate adds header fields and the body.
func (s Style) decorate(d *decision) {
	if s == Bare {
		return
	}
	var room [maxFields]int
	at := d.tightest(room[:0])
	if len(at) == 0 {
		return
	}
	if s == Three {
		d.three(at[0])
	} else {
		d.draft(at)
	}
	if d.answer.over {
		d.problem()
	}
}

// tightest returns the descriptors with the least left, those that are over the limit first; a cell that was asked for
// twice is there once, and what refuses nothing is nobody's business.
func (d *decision) tightest(at []int) []int {
	for i := range d.asked {
		if d.asked[i].verdict != charged || d.asked[i].bound.policy.Shadow || d.has(at, i) {
			continue
		}
		place := len(at)
		for place > 0 && d.tighter(i, at[place-1]) {
			place--
		}
		if place == maxFields {
			continue
		}
		if len(at) < maxFields {
			at = append(at, 0)
		}
		copy(at[place+1:], at[place:])
		at[place] = i
	}
	return at
}

func (d *decision) has(at []int, i int) bool {
	for _, j := range at {
		if d.asked[j].charge == d.asked[i].charge {
			return true
		}
	}
	return false
}

// tighter reports whether less is left of descriptor i than of j.
func (d *decision) tighter(i, j int) bool {
	a, b := &d.answer.statuses[i], &d.answer.statuses[j]
	if a.over != b.over {
		return a.over
	}
	return a.remaining < b.remaining
}

func (d *decision) add(key, value string) {
	d.answer.headers = append(d.answer.headers, header{key, value})
}

// draft adds the fields of the draft.
func (d *decision) draft(at []int) {
	var policies, states []byte
	var retry int64
	for n, i := range at {
		st, b := &d.answer.statuses[i], d.asked[i].bound
		if n > 0 {
			policies, states = append(policies, ", "...), append(states, ", "...)
		}
		policies = append(policies, b.promised...)
		states = append(states, b.quoted...)
		states = strconv.AppendUint(append(states, ";r="...), uint64(st.remaining), 10)
		states = strconv.AppendInt(append(states, ";t="...), st.reset, 10)
		if st.over {
			retry = max(retry, st.reset)
		}
	}
	d.add("RateLimit-Policy", string(policies))
	d.add("RateLimit", string(states))
	if retry > 0 {
		d.add("Retry-After", strconv.FormatInt(retry, 10))
	}
}

// three adds the fields that were usual before the draft.
func (d *decision) three(i int) {
	st, b := &d.answer.statuses[i], d.asked[i].bound
	d.add("RateLimit-Limit", strconv.FormatInt(b.policy.Limit.Tokens(), 10))
	d.add("RateLimit-Remaining", strconv.FormatUint(uint64(st.remaining), 10))
	d.add("RateLimit-Reset", strconv.FormatInt(st.reset, 10))
}

// problem writes the body of a refusal. Its type is registered with IANA.
func (d *decision) problem() {
	violated := []string{}
	for i := range d.asked {
		if d.asked[i].verdict == charged && d.answer.statuses[i].over && len(violated) < maxFields {
			violated = append(violated, d.asked[i].bound.title)
		}
	}
	body, err := json.Marshal(struct {
		Type     string   `json:"type"`
		Title    string   `json:"title"`
		Status   int      `json:"status"`
		Violated []string `json:"violated-policies"`
	}{
		"https://iana.org/assignments/http-problem-types#quota-exceeded", "The request is over its rate limit.",
		http.StatusTooManyRequests, violated,
	})
	if err != nil {
		return // texts and numbers
	}
	d.answer.body = append(d.answer.body, body...)
	d.add("content-type", "application/problem+json")
}
