package faces_test

import (
	"encoding/base64"
	"errors"
	"html/template"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/faces"
)

func write(accept string, a faces.Refusal) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "https://acme.test/<script>", nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	faces.New().Write(w, r, a)
	return w
}

func TestFaceByAccept(t *testing.T) {
	t.Parallel()
	err := fault.New(fault.NotFound, fault.ReasonResourceNotFound, "nothing is served here")
	for accept, want := range map[string]string{
		"": "application/problem+json", "*/*": "application/problem+json", "application/json": "application/problem+json",
		"text/html": "text/html; charset=utf-8", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8": "text/html; charset=utf-8",
		"application/json, text/html;q=0.5": "application/problem+json", "text/html, application/json;q=0.5": "text/html; charset=utf-8",
	} {
		w := write(accept, faces.Refusal{Err: err})
		if got := w.Header().Get("Content-Type"); got != want || w.Code != http.StatusNotFound || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%q: %d %q %v", accept, w.Code, got, w.Header())
		}
	}
}

// Nothing that somebody else chose becomes HTML: not a brand's name, not a message,
// not what a client asked for.
func TestPagesEscape(t *testing.T) {
	t.Parallel()
	const evil = `"><script>alert(1)</script>`
	for _, logo := range []template.URL{"", "data:image/png;base64,AAAA"} {
		w := write("text/html", faces.Refusal{
			Err:       fault.New(fault.PermissionDenied, evil, evil).WithMetadata(evil, evil),
			Brand:     &faces.Brand{Name: evil, CSS: ":root { --primary: #ff0000; }", Logo: logo},
			RequestID: evil,
		})
		body := w.Body.String()
		if strings.Contains(body, "<script") || !strings.Contains(body, "&lt;script&gt;") || !strings.Contains(body, "--primary: #ff0000") {
			t.Errorf("the page is\n%s", body)
		}
		if logo != "" && !strings.Contains(body, `src="data:image/png;base64,AAAA"`) {
			t.Errorf("the page has no logo:\n%s", body)
		}
	}
}

// Who is behind a page stands at its foot, in the words of the brand.
func TestPagesHaveTheBrandsLinks(t *testing.T) {
	t.Parallel()
	w := write("text/html", faces.Refusal{
		Err: fault.New(fault.PermissionDenied, fault.ReasonTenantSuspended, "x"),
		Brand: &faces.Brand{
			Links: map[string]string{"imprint": "https://acme.example/i?a&b", "privacy": "javascript:alert(1)"},
			Say:   settings.Brand{Texts: map[string]map[string]string{"en": {"link.imprint": "<Legal>"}}}.Text,
		},
	})
	for _, want := range []string{`<a href="https://acme.example/i?a&amp;b" rel="noreferrer">&lt;Legal&gt;</a>`, ">Privacy</a>"} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("it lacks %s:\n%s", want, w.Body)
		}
	}
	if strings.Contains(w.Body.String(), "javascript:") {
		t.Errorf("it has a script:\n%s", w.Body)
	}
}

func TestPageSaysWhenToComeBack(t *testing.T) {
	t.Parallel()
	w := write("text/html", faces.Refusal{Err: fault.New(fault.ResourceExhausted, fault.ReasonRateLimitExceeded, "x").WithRetry(1100 * time.Millisecond)})
	if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "2" || !strings.Contains(w.Body.String(), "Too many requests") {
		t.Errorf("%d %v\n%s", w.Code, w.Header(), w.Body)
	}
}

// Causes are for the log.
func TestCausesAreNotTold(t *testing.T) {
	t.Parallel()
	for _, err := range []error{
		errors.New("secret"), fault.New(fault.Internal, "X", "secret"), fault.New(fault.Unavailable, "X", "x").WithCause(errors.New("secret")),
	} {
		for _, accept := range []string{"", "text/html"} {
			for _, grpc := range []bool{false, true} {
				w := write(accept, faces.Refusal{Err: err, GRPC: grpc})
				all := w.Body.String() + w.Header().Get("Grpc-Message")
				if details, err := base64.RawStdEncoding.DecodeString(w.Header().Get("Grpc-Status-Details-Bin")); err != nil || strings.Contains(all+string(details), "secret") {
					t.Errorf("%v, %q, gRPC %v: %s", err, accept, grpc, all)
				}
			}
		}
	}
}

func TestGRPCStatus(t *testing.T) {
	t.Parallel()
	w := write("text/html", faces.Refusal{GRPC: true, Err: fault.New(fault.PermissionDenied, fault.ReasonTenantDeleted, "100 %% 🏚\n").WithMetadata("k", "v")})
	message, err := url.PathUnescape(w.Header().Get("Grpc-Message"))
	if err != nil || message != "100 % 🏚\n" || w.Header().Get("Grpc-Status") != "7" || w.Code != http.StatusOK ||
		w.Header().Get("Content-Type") != "application/grpc" || w.Body.Len() != 0 {
		t.Errorf("%d %v, %q %v", w.Code, w.Header(), message, err)
	}
	b, err := base64.RawStdEncoding.DecodeString(w.Header().Get("Grpc-Status-Details-Bin"))
	if err != nil {
		t.Fatal(err)
	}
	s := new(spb.Status)
	if err := proto.Unmarshal(b, s); err != nil || codes.Code(s.GetCode()) != codes.PermissionDenied {
		t.Fatalf("%v, %v", s, err)
	}
	info := new(errdetails.ErrorInfo)
	if err := s.GetDetails()[0].UnmarshalTo(info); err != nil || info.GetReason() != fault.ReasonTenantDeleted || info.GetMetadata()["k"] != "v" {
		t.Errorf("%v, %v", info, err)
	}
}
