package canary_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/canary"
)

func each(text, format string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		fmt.Fprintf(&b, format, c)
	}
	return b.String()
}

func wide(text string) string {
	var b []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		b = append(b, byte(unit), byte(unit>>8))
	}
	return string(b)
}

func backwards(text string) string {
	b := []byte(text)
	slices.Reverse(b)
	return string(b)
}

func TestSecretsAreFoundInEverySpelling(t *testing.T) {
	t.Parallel()
	watch := canary.New()
	secret := watch.Secret("acme")
	for name, text := range map[string]string{
		"plain":               "title: " + secret,
		"upper case":          strings.ToUpper(secret),
		"twelve letters":      secret[7:19],
		"base64":              base64.StdEncoding.EncodeToString([]byte(secret)),
		"base64 inside, 1":    base64.StdEncoding.EncodeToString([]byte("x" + secret + "yz")),
		"base64 inside, 2":    base64.URLEncoding.EncodeToString([]byte("xy" + secret + "z")),
		"hex":                 hex.EncodeToString([]byte("x" + secret)),
		"upper hex":           fmt.Sprintf("%X", secret),
		"escaped for URLs":    each(secret, "%%%02X"),
		"escaped for JSON":    each(secret, `\u%04x`),
		"UTF-16":              wide(secret),
		"UTF-16, other order": "\x00" + wide(secret),
		"backwards":           backwards(secret),
	} {
		if len(watch.Search("globex", "answer", []byte(text))) == 0 {
			t.Errorf("%s: not found in %q", name, text)
		}
		if len(watch.Search("", "log", []byte(text))) == 0 {
			t.Errorf("%s: not found in a log", name)
		}
		if finds := watch.Search("acme", "answer", []byte(text)); len(finds) > 0 {
			t.Errorf("%s: acme may read its own: %v", name, finds)
		}
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := io.WriteString(z, strings.Repeat("nothing of it", 1000))
	for _, text := range []string{secret[:11], watch.Secret("globex"), packed.String(), ""} {
		if finds := watch.Search("globex", "answer", []byte(text)); len(finds) > 0 || err != nil {
			t.Errorf("%q: %v, %v", text, finds, err)
		}
	}
}

func TestIDsAreTheirOwners(t *testing.T) {
	t.Parallel()
	const acmes, globexs = "01932f5e-7b3c-7a01-8000-00000000000a", "01932f5e-7b3c-7a01-8000-00000000000b"
	watch := canary.New()
	watch.ID("acme", acmes)
	watch.ID("globex", globexs)
	watch.ID("acme", "the id of both")
	watch.ID("globex", "the id of both")
	watch.ID("acme", "short")
	raw, err := hex.DecodeString(strings.ReplaceAll(acmes, "-", ""))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"notes/" + acmes, strings.ToUpper(acmes), string(raw), hex.EncodeToString(raw), base64.StdEncoding.EncodeToString([]byte(acmes)),
	} {
		if finds := watch.Search("globex", "answer", []byte(text)); len(finds) == 0 || finds[0].Value != acmes || finds[0].Owner != "acme" {
			t.Errorf("%q: %v", text, finds)
		}
		if finds := append(watch.Search("acme", "answer", []byte(text)), watch.Search("", "log", []byte(text))...); len(finds) > 0 {
			t.Errorf("%q may be read by acme and stand in logs: %v", text, finds)
		}
	}
	for _, text := range []string{globexs, acmes[:35], "the id of both", "short"} {
		if finds := watch.Search("globex", "answer", []byte(text)); len(finds) > 0 {
			t.Errorf("%q: %v", text, finds)
		}
	}
}

// failures is a test that is expected to fail.
type failures struct {
	t    *testing.T
	said []string
}

func (*failures) Helper()                    {}
func (f *failures) Context() context.Context { return f.t.Context() }
func (f *failures) Errorf(format string, args ...any) {
	f.said = append(f.said, fmt.Sprintf(format, args...))
}

func TestEverythingThatLeavesIsWatched(t *testing.T) {
	t.Parallel()
	leak := map[string]func(*canary.Watch, string){
		"an answer": func(w *canary.Watch, s string) { w.LookAtAnswer("globex", "/x/Y", nil, nil, nil, wrapperspb.String(s)) },
		"an error": func(w *canary.Watch, s string) {
			w.LookAtAnswer("globex", "/x/Y", status.Error(codes.NotFound, s), nil, nil, nil)
		},
		"a detail": func(w *canary.Watch, s string) {
			st, err := status.New(codes.NotFound, "no").WithDetails(wrapperspb.String(s))
			w.LookAtAnswer("globex", "/x/Y", errors.Join(err, st.Err()), nil, nil, nil)
		},
		"a header": func(w *canary.Watch, s string) {
			w.LookAtAnswer("globex", "/x/Y", nil, metadata.Pairs("a", s), nil, nil)
		},
		"a trailer": func(w *canary.Watch, s string) {
			w.LookAtAnswer("globex", "/x/Y", nil, nil, metadata.Pairs("a", s), nil)
		},
		"a log": func(w *canary.Watch, s string) {
			slog.New(slog.NewJSONHandler(w.Writer("log"), nil)).InfoContext(t.Context(), "made", "title", s)
		},
		"a log in two writes": func(w *canary.Watch, s string) {
			log := w.Writer("log")
			fmt.Fprint(log, s[:9])
			fmt.Fprint(log, s[9:17])
		},
		"metrics": func(w *canary.Watch, s string) {
			w.Source("metrics", func(context.Context) ([]byte, error) { return []byte(`made{title="` + s + `"} 1`), nil })
		},
		"a span": func(w *canary.Watch, s string) {
			provider := trace.NewTracerProvider(trace.WithSyncer(w.Exporter("traces")))
			_, span := provider.Tracer("x").Start(t.Context(), "y")
			span.SetAttributes(attribute.String("title", s))
			span.End()
		},
		"a page": func(w *canary.Watch, s string) {
			server := httptest.NewServer(http.HandlerFunc(func(to http.ResponseWriter, _ *http.Request) { fmt.Fprint(to, s) }))
			defer server.Close()
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := (&http.Client{Transport: w.Transport("globex", nil)}).Do(request)
			if err != nil {
				t.Fatal(err)
			}
			if body, err := io.ReadAll(answer.Body); err != nil || string(body) != s {
				t.Errorf("the transport changed the page: %q, %v", body, err)
			}
		},
	}
	for name, cross := range leak {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for text, want := range map[string]int{"foreign": 1, "own": 0} {
				watch, f := canary.New(), &failures{t: t}
				secret := watch.Secret("acme")
				if text == "own" {
					secret = "nobody's secret at all"
				}
				cross(watch, secret)
				watch.Check(f)
				if min(len(f.said), 1) != want {
					t.Errorf("%s: %q", text, f.said)
				}
			}
		})
	}
	watch, f := canary.New(), &failures{t: t}
	watch.Source("metrics", func(context.Context) ([]byte, error) { return nil, errors.New("no such page") })
	if watch.Check(f); len(f.said) != 1 {
		t.Errorf("a source that cannot be read: %q", f.said)
	}
}
