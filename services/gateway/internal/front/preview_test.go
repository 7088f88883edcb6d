package front_test

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/front"
)

// Who looks at a draft gets answers of the app that nobody keeps, and the app never sees by what.
func TestPreviewsOfApps(t *testing.T) {
	t.Parallel()
	s := newStreet(t, func(c *front.Config) {
		c.Preview = front.Preview{Cookie: "__Host-rh-preview", Private: func(h http.Header) { h.Set("Cache-Control", "no-store") }}
	})
	for _, way := range ways() {
		for name, tc := range map[string]struct {
			send, saw []string
			marked    bool
		}{
			"none":   {nil, nil, false},
			"others": {[]string{"a=b; c=d"}, []string{"a=b; c=d"}, false},
			"alone":  {[]string{"__Host-rh-preview=x"}, nil, true},
			"among":  {[]string{"a=b; __Host-rh-preview=x; c=d"}, []string{"a=b; c=d"}, true},
			"lines":  {[]string{"a=b", "__Host-rh-preview=x"}, []string{"a=b"}, true},
			"twice":  {[]string{"__Host-rh-preview=x;__Host-rh-preview=y;a=b"}, []string{"a=b"}, true},
		} {
			a := s.get(way, "acme.localhost", "/", http.Header{"Cookie": tc.send})
			if diff := cmp.Diff(tc.saw, a.said.Header["Cookie"]); diff != "" {
				t.Errorf("%s, %s: the app saw (-want +got)\n%s", way, name, diff)
			}
			if marked := a.header.Get("Cache-Control") == "no-store"; marked != tc.marked || a.status != http.StatusOK {
				t.Errorf("%s, %s: %d %v", way, name, a.status, a.header)
			}
		}
	}
}
