package rls_test

import (
	"net/http"
	"strings"
	"testing"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/rowhouse-platform/rowhouse/services/quota/internal/rls"
)

func TestJSON(t *testing.T) {
	t.Parallel()
	r := newRig(t, rls.Bare)
	r.load(edge)
	const closed = `{"domain":"edge","descriptors":[{"entries":[{"key":"closed","value":"x"}]}]}`
	const login = `{"domain":"edge","descriptors":[{"entries":[{"key":"path","value":"/login"}]}],"hitsAddend":2}`
	for what, c := range map[string]struct {
		peer, body string
		code       int
		want       string
	}{
		"OK":            {"envoy", login, http.StatusOK, `"overallCode":"OK"`},
		"over":          {"envoy", closed, http.StatusTooManyRequests, `"OVER_LIMIT"`},
		"unlimited":     {"envoy", `{"domain":"edge","descriptors":[{"entries":[{"key":"free"}]}]}`, http.StatusOK, `4294967295`},
		"other domain":  {"envoy", strings.Replace(closed, "edge", "x", 1), http.StatusOK, `"OK"`},
		"no JSON":       {"envoy", `{`, http.StatusBadRequest, "no RateLimitRequest"},
		"unknown field": {"envoy", `{"domain":"edge","x":1}`, http.StatusBadRequest, "no RateLimitRequest"},
		"no domain":     {"envoy", `{"descriptors":[{}]}`, http.StatusBadRequest, "domain must not be empty"},
		"no list":       {"envoy", `{"domain":"edge"}`, http.StatusBadRequest, "descriptor list must not be empty"},
		"no right":      {"plain", strings.Replace(closed, "edge", "x", 1), http.StatusForbidden, "may not"},
		"stranger":      {"stranger", closed, http.StatusForbidden, "no peer"},
		"nobody":        {"", closed, http.StatusForbidden, "no peer"},
		"large":         {"envoy", `{"domain":"` + strings.Repeat("x", 1<<20) + `"}`, http.StatusBadRequest, "cannot be read"},
		"no method":     {"envoy", "", http.StatusMethodNotAllowed, ""},
	} {
		code, text := r.post(c.peer, "/json", c.body)
		if code != c.code || !strings.Contains(strings.ReplaceAll(text, " ", ""), strings.ReplaceAll(c.want, " ", "")) {
			t.Errorf("%s: %d %s", what, code, text)
		}
		if code == http.StatusOK || code == http.StatusTooManyRequests {
			if err := protojson.Unmarshal([]byte(text), new(rlsv3.RateLimitResponse)); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	r.engine.fail = http.ErrBodyNotAllowed
	if code, _ := r.post("envoy", "/json", closed); code != http.StatusInternalServerError {
		t.Errorf("without an engine: %d", code)
	}
}
