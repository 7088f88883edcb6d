package ofrep_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// protocol holds answers against what OFREP 0.3.0 says of them.
type protocol struct{ compiler *jsonschema.Compiler }

const protocolFile = "testdata/ofrep-0.3.0.json"

func newProtocol(tb testing.TB) protocol {
	tb.Helper()
	f, err := os.Open(protocolFile)
	if err != nil {
		tb.Fatal(err)
	}
	document, err := jsonschema.UnmarshalJSON(f)
	c := jsonschema.NewCompiler()
	if err = errors.Join(err, f.Close(), c.AddResource("ofrep", document)); err != nil {
		tb.Fatal(err)
	}
	return protocol{c}
}

// check says what is wrong with a body; kind is one of the schema's definitions.
func (p protocol) check(kind, body string) error {
	schema, err := p.compiler.Compile("ofrep#/$defs/" + kind)
	if err != nil {
		return err
	}
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(body))
	if err != nil {
		return err
	}
	return schema.Validate(v)
}

// kindOf is the definition that an answer has to fit.
func kindOf(path string, status int) string {
	at := "bulk"
	if strings.HasPrefix(strings.TrimPrefix(path, "/ofrep/v1/evaluate/flags"), "/") && path != "/ofrep/v1/evaluate/flags/" {
		at = "single"
	}
	switch {
	case status == http.StatusOK, status == http.StatusBadRequest, status == http.StatusNotFound && at == "single":
		return fmt.Sprintf("%s%d", at, status)
	default:
		return "other"
	}
}

// Every answer, of flags of every sort to good and bad requests, fits the protocol's description.
func TestAnswersFitTheProtocol(t *testing.T) {
	t.Parallel()
	s, p := newSite(t), newProtocol(t)
	s.SetPlan("free", `{"flags":{
		"object":{"state":"ENABLED","variants":{"o":{"a":[1,null,{"b":"c"}]}},"defaultVariant":"o"},
		"empty":{"state":"ENABLED","variants":{"e":{}},"defaultVariant":"e"},
		"half":{"state":"ENABLED","variants":{"h":0.5},"defaultVariant":"h","metadata":{"n":1,"b":false,"s":"x"}},
		"zero":{"state":"ENABLED","variants":{"z":0,"e":"","f":false},"defaultVariant":"z"},
		"share":{"state":"ENABLED","variants":{"a":"a","b":"b"},"defaultVariant":"a","targeting":{"fractional":[["a",1],["b",1]]}},
		"none":{"state":"ENABLED","variants":{"a":"a"},"targeting":{"if":[false,"a"]}}}}`)
	paths := []string{"/ofrep/v1/evaluate/flags", "/ofrep/v1/evaluate/flags/"}
	for _, key := range []string{
		"plain", "a/b", "a%20b%25", "off", "code", "rule", "tenant", "broken", "lost", "object", "empty", "half", "zero", "share", "none", "absent", "%00", "%ff",
	} {
		paths = append(paths, single(key))
	}
	deep := strings.Repeat(`{"x":`, 40) + "1" + strings.Repeat("}", 40)
	bodies := []string{
		`{"context":{"targetingKey":"u"}}`, `{"context":{"targetingKey":"v","level":"high"}}`, `{}`, `{"context":null}`, ``, `{`, `[]`, `null`, `{}{}`,
		`{"context":[]}`, `{"context":{"targetingKey":7}}`, `{"context":` + deep + `}`, `{"context":{"x":1e400}}`, `{"context":{"tenant":"globex"}}`,
		`{"x":"` + strings.Repeat("x", 1_000_001) + `"}`, "\xff",
	}
	seen := map[string]int{}
	for _, path := range paths {
		for _, body := range bodies {
			for _, a := range []ask{{}, {key: "x"}, {method: http.MethodGet}, {header: map[string]string{"Authorization": ""}}} {
				a.path, a.body = path, body
				got := s.send(a)
				kind := kindOf(path, got.Code)
				seen[kind]++
				if err := p.check(kind, got.Body.String()); err != nil {
					t.Errorf("%s %.60q at %s is answered by %d %.300s: %v", a.method, body, path, got.Code, got.Body, err)
				}
				if got.Code == http.StatusOK && kind == "bulk200" {
					a.header = map[string]string{"If-None-Match": got.Header().Get("ETag")}
					if again := s.send(a); again.Code != http.StatusNotModified || again.Body.Len() > 0 {
						t.Errorf("the same again: %d %s", again.Code, again.Body)
					}
				}
			}
		}
	}
	for _, kind := range []string{"single200", "single400", "single404", "bulk200", "bulk400", "other"} {
		if seen[kind] == 0 {
			t.Errorf("no answer was a %s: %v", kind, seen)
		}
	}
}

// What the gateway refuses before the protocol is reached fits, too.
func TestRefusalsFitTheProtocol(t *testing.T) {
	t.Parallel()
	s, p := newSite(t), newProtocol(t)
	h := newHandler(s)
	limited := fault.New(fault.ResourceExhausted, "RATE_LIMITED", "too many requests")
	limited.RetryAfter = 1
	for status, refusal := range map[int]error{
		http.StatusTooManyRequests: limited, http.StatusInternalServerError: errors.New("a secret"),
		http.StatusForbidden: fault.New(fault.PermissionDenied, "TENANT_SUSPENDED", "suspended"),
	} {
		w := httptest.NewRecorder()
		h.Refuse(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/ofrep/v1/evaluate/flags", http.NoBody), refusal)
		if err := p.check("other", w.Body.String()); err != nil || w.Code != status || strings.Contains(w.Body.String(), "secret") {
			t.Errorf("%v: %d %s, %v", refusal, w.Code, w.Body, err)
		}
		if status == http.StatusTooManyRequests && w.Header().Get("Retry-After") != "1" {
			t.Errorf("header %v", w.Header())
		}
	}
}

func TestEventsFitTheProtocol(t *testing.T) {
	p := newProtocol(t)
	inBubble(t, func(t *testing.T, s *site) {
		l := s.listen(s.address(s.key), nil)
		synctest.Wait()
		l.mu.Lock()
		text := l.Body.String()
		l.mu.Unlock()
		n := 0
		for line := range strings.Lines(text) {
			if data, ok := strings.CutPrefix(line, "data: "); ok {
				n++
				if err := p.check("event", data); err != nil {
					t.Errorf("%s: %v", data, err)
				}
			}
		}
		if n != 1 {
			t.Errorf("%d frames in %q", n, text)
		}
	})
}

// The schema finds what is wrong.
func TestTheProtocolIsStrict(t *testing.T) {
	t.Parallel()
	p := newProtocol(t)
	for body, kind := range map[string]string{
		`{"key":"a"}`: "single200", `{"reason":"STATIC"}`: "single200", `{"key":"a","reason":"MAYBE"}`: "single200",
		`{"key":"a","reason":"STATIC","value":[1]}`: "single200", `{"key":"a","reason":"STATIC","metadata":null}`: "single200",
		`{"key":"a","reason":"STATIC","metadata":{"x":{}}}`: "single200", `{"errorCode":"PARSE_ERROR"}`: "single400",
		`{"key":"a","errorCode":"FLAG_NOT_FOUND"}`: "single400", `{"key":"a","errorCode":"GENERAL"}`: "single404", `{}`: "bulk200",
		`{"flags":[{"key":"a","errorCode":"OOPS"}]}`: "bulk200", `{"errorDetails":"x"}`: "bulk400", `{"errorDetails":1}`: "other",
		`{"flags":[],"eventStreams":[{"type":"sse","endpoint":{"requestUri":"x"}}]}`:                    "bulk200",
		`{"flags":[],"eventStreams":[{"type":"sse","url":"https://a","endpoint":{"requestUri":"/x"}}]}`: "bulk200",
		`{"type":"refetchEvaluation","lastModified":-1}`:                                                "event",
	} {
		if p.check(kind, body) == nil {
			t.Errorf("%s is taken for %s", body, kind)
		}
	}
}
