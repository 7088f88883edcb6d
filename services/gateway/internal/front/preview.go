package front

import (
	"net/http"
	"slices"
	"strings"
)

// Preview is how a browser that looks at a draft of a brand is told apart, and treated. Its zero value knows none.
type Preview struct {
	// Cookie is the name of its cookie, which no app sees: it is a capability.
	Cookie string
	// Private marks an answer that must not be kept or indexed, nor its address told to others.
	Private func(http.Header)
}

// has reports whether a request comes from such a browser. Whether its link is good makes no difference here: who sends
// the cookie gets answers marked that are its own alone.
func (p Preview) has(r *http.Request) bool {
	return p.Cookie != "" && slices.ContainsFunc(r.Header["Cookie"], func(line string) bool { return strings.Contains(line, p.Cookie) })
}

// without are the lines of a Cookie field without the preview's.
func (p Preview) without(lines []string) []string {
	var kept []string
	for _, line := range lines {
		var pairs []string
		for pair := range strings.SplitSeq(line, ";") {
			name, _, _ := strings.Cut(strings.TrimSpace(pair), "=")
			if name != p.Cookie {
				pairs = append(pairs, strings.TrimSpace(pair))
			}
		}
		if len(pairs) > 0 {
			kept = append(kept, strings.Join(pairs, "; "))
		}
	}
	return kept
}

// mark marks the answer to a browser that looks at a draft: also pages of the app are not those that everybody sees.
func (v *visit) mark(h http.Header) {
	if p := v.h.c.Preview; p.has(v.r) {
		p.Private(h)
	}
}
