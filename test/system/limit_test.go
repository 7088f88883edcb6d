package system

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	notesv1 "github.com/rowhouse-platform/rowhouse/gen/notes/v1"
	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
)

// A tenant at its limit is refused by HTTP and by gRPC, each with all that a caller needs to wait well; its neighbour
// notices nothing, and a wider limit serves it again.
func TestLimitRefusesOneTenant(t *testing.T) {
	t.Parallel()
	h := shared(t)
	busy, neighbour := h.tenant(t, "busy"), h.tenant(t, "calm")
	client := h.browser()
	ask := func(host string) answer {
		t.Helper()
		a, err := h.ask(t.Context(), client, visit{host: host, path: "/notes"})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}

	const burst = 5
	h.limit(t, "busy", burst, time.Hour) // a token comes back every 12 minutes: none in this test
	var refused answer
	eventually(t, settle, func() error {
		if refused = ask(busy); refused.status != http.StatusTooManyRequests {
			return fmt.Errorf("%d %s", refused.status, refused.body)
		}
		return nil
	})
	wantWait(t, refused)
	h.wantFace(t, busy, http.StatusTooManyRequests, "RATE_LIMIT_EXCEEDED", "Too many requests")
	_, err := notesv1.NewNotesServiceClient(h.front(t, busy, false)).ListNotes(t.Context(), &notesv1.ListNotesRequest{})
	wantQuotaFailure(t, err)

	for range 4 * burst { // what a spent limit lets pass, and what it costs others
		if a := ask(busy); a.status != http.StatusTooManyRequests {
			t.Errorf("after the limit was reached: %d %s", a.status, a.body)
		}
		if a := ask(neighbour); a.status != http.StatusOK {
			t.Errorf("the neighbour: %d %s", a.status, a.body)
		}
	}
	list, err := notesv1.NewNotesServiceClient(h.front(t, neighbour, false)).ListNotes(t.Context(), &notesv1.ListNotesRequest{})
	if err != nil {
		t.Errorf("the neighbour by gRPC: %v, %v", list, err)
	}

	h.limit(t, "busy", 1000, time.Second)
	eventually(t, settle, func() error {
		if a := ask(busy); a.status != http.StatusOK {
			return fmt.Errorf("with a wider limit: %d %s", a.status, a.body)
		}
		return nil
	})
}

// limit sets a tenant's limit of requests.
func (h *house) limit(t *testing.T, tenantID string, tokens int64, period time.Duration) {
	t.Helper()
	_, err := quotav1.NewLimitServiceClient(h.operator(t, "quota")).UpdateLimit(t.Context(), &quotav1.UpdateLimitRequest{
		Limit: &quotav1.Limit{
			Name: "tenants/" + tenantID + "/limits/requests", Tokens: tokens, Period: durationpb.New(period), Burst: tokens,
		},
		AllowMissing: true,
	})
	if err != nil {
		t.Fatal(err)
	}
}

// wantWait wants an HTTP refusal that says how long to wait, in every form that we promise.
func wantWait(t *testing.T, a answer) {
	t.Helper()
	after, err := strconv.Atoi(a.header.Get("Retry-After"))
	if err != nil || after < 1 || after > int(time.Hour/time.Second) {
		t.Errorf("Retry-After is %q", a.header.Get("Retry-After"))
	}
	if got, want := a.header.Get("Ratelimit-Policy"), `"requests";q=5;w=3600`; !strings.HasPrefix(got, want) {
		t.Errorf("RateLimit-Policy is %q, want %s", got, want)
	}
	if got, want := a.header.Get("Ratelimit"), fmt.Sprintf(`"requests";r=0;t=%d`, after); got != want {
		t.Errorf("RateLimit is %q, want %s", got, want)
	}
	if a.reason() != "RATE_LIMIT_EXCEEDED" || !strings.Contains(a.body, `"limit":"requests"`) {
		t.Errorf("the problem is %s", a.body)
	}
}

// wantQuotaFailure wants a gRPC refusal with all its details.
func wantQuotaFailure(t *testing.T, err error) {
	t.Helper()
	st := status.Convert(err)
	if st.Code() != codes.ResourceExhausted || verdict(err) != "ResourceExhausted RATE_LIMIT_EXCEEDED" {
		t.Fatalf("by gRPC: %v", err)
	}
	missing := map[string]bool{"RetryInfo": true, "QuotaFailure": true, "ErrorInfo": true}
	for _, detail := range st.Details() {
		switch d := detail.(type) {
		case *errdetails.RetryInfo:
			delete(missing, "RetryInfo")
			if wait := d.GetRetryDelay().AsDuration(); wait <= 0 || wait > time.Hour {
				t.Errorf("RetryInfo says %s", wait)
			}
		case *errdetails.QuotaFailure:
			delete(missing, "QuotaFailure")
			v := d.GetViolations()
			if len(v) != 1 || v[0].GetSubject() != "tenants/busy" || v[0].GetQuotaId() != "requests" || v[0].GetQuotaValue() != 5 {
				t.Errorf("QuotaFailure says %v", v)
			}
		case *errdetails.ErrorInfo:
			delete(missing, "ErrorInfo")
			if d.GetMetadata()["limit"] != "requests" || d.GetMetadata()["level"] != "tenant" {
				t.Errorf("ErrorInfo says %v", d)
			}
		}
	}
	if len(missing) > 0 {
		t.Errorf("details are missing: %v", missing)
	}
}
