package system

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"

	notesv1 "github.com/rowhouse-platform/rowhouse/gen/notes/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

// suspendedWithin is what we promise for every gateway and service.
const suspendedWithin = time.Second

// ways are all the ways to a tenant's data: through the front door and straight to each
// service with a context that was good a moment ago.
type ways map[string]way

// way does one harmless call.
type way func(ctx context.Context) error

// waysTo returns the ways to the tenant behind host. The house's app is hijacked.
func (h *house) waysTo(t *testing.T, host string) ways {
	t.Helper()
	stolen := h.steal(t, host)
	client := h.browser()
	front := notesv1.NewNotesServiceClient(h.front(t, host, false))
	direct := notesv1.NewNotesServiceClient(h.as(t, "gateway", app))
	config := configv1.NewSettingsServiceClient(h.as(t, app, "config"))
	quota := quotav1.NewUsageServiceClient(h.as(t, app, "quota"))
	return ways{
		"gateway, HTTP": func(ctx context.Context) error {
			a, err := h.ask(ctx, client, visit{host: host, path: "/notes"})
			return cmpError(err, a)
		},
		"gateway, gRPC": func(ctx context.Context) error {
			_, err := front.ListNotes(ctx, &notesv1.ListNotesRequest{})
			return err
		},
		"notes, gRPC": func(ctx context.Context) error {
			_, err := direct.ListNotes(presenting(ctx, stolen), &notesv1.ListNotesRequest{})
			return err
		},
		"notes, HTTPS": func(ctx context.Context) error { return h.askApp(ctx, t, stolen) },
		"config": func(ctx context.Context) error {
			_, err := config.GetSettings(presenting(ctx, stolen), &configv1.GetSettingsRequest{Namespace: "brand"})
			return err
		},
		"quota": func(ctx context.Context) error {
			_, err := quota.ListLimitUsage(presenting(ctx, stolen), &quotav1.ListLimitUsageRequest{})
			return err
		},
	}
}

// cmpError turns an HTTP answer into the error that gRPC would have given.
func cmpError(err error, a answer) error {
	if err != nil || a.status == http.StatusOK {
		return err
	}
	kinds := map[int]fault.Kind{
		http.StatusForbidden: fault.PermissionDenied, http.StatusGone: fault.PermissionDenied, http.StatusUnauthorized: fault.Unauthenticated,
		http.StatusConflict: fault.Aborted,
	}
	kind, known := kinds[a.status]
	if !known {
		return fmt.Errorf("%d %s", a.status, a.body)
	}
	return tenantgrpc.Status(fault.New(kind, a.reason(), "%s", a.body)).Err()
}

// steal returns the context that the hijacked app was called with.
func (h *house) steal(t *testing.T, host string) string {
	t.Helper()
	a := h.visit(t, visit{host: host, path: "/stolen"})
	b, err := base64.StdEncoding.DecodeString(a.body)
	if err != nil || a.status != http.StatusOK {
		t.Fatalf("steal: %d %s %v", a.status, a.body, err)
	}
	return string(b)
}

// askApp lists notes over the app's own HTTPS port, as a hijacked gateway would.
func (h *house) askApp(ctx context.Context, t *testing.T, stolen string) error {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: h.source(t, "gateway").ClientTLS(identityOf(t, app)), DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+loopback(h.ports.AppHTTP)+"/notes", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Rowhouse-Tenant-Bin", base64.StdEncoding.EncodeToString([]byte(stolen)))
	res, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	return cmpError(err, answer{res.StatusCode, res.Header, string(b)})
}

// turn asks each way until it says want, and returns when the last one did after since.
// want is the end of the verdict: the code before a reason may differ between HTTP and
// gRPC. Once a way has turned it must stay.
func (w ways) turn(t *testing.T, since time.Time, want string) (slowest time.Duration) {
	t.Helper()
	const stays = 20
	var mu sync.Mutex
	var group sync.WaitGroup
	for name, ask := range w {
		group.Go(func() {
			err := poll(t.Context(), settle, func() error {
				if err := ask(t.Context()); !strings.HasSuffix(verdict(err), want) {
					return fmt.Errorf("%s: %s, want %s: %w", name, verdict(err), want, err)
				}
				return nil
			})
			took := time.Since(since)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			slowest = max(slowest, took)
			for range stays {
				if err := ask(t.Context()); !strings.HasSuffix(verdict(err), want) {
					t.Errorf("%s turned back: %s, want %s", name, verdict(err), want)
				}
			}
			t.Logf("%s: %s after %s", name, want, took.Round(time.Millisecond))
		})
	}
	group.Wait()
	return slowest
}

// A suspension reaches every door and every service within a second, cuts streams, and
// ends with its last cause, wherever the tenant lives. A deleted tenant is told apart.
func TestSuspendResumeDelete(t *testing.T) {
	t.Parallel()
	h := hijacked(t)
	eachModel(t, func(t *testing.T, model tenancyv1.IsolationModel, name string) {
		h.suspendResumeDelete(t, "suspendable-"+name, model)
	})
}

func (h *house) suspendResumeDelete(t *testing.T, id string, model tenancyv1.IsolationModel) {
	t.Helper()
	host := h.tenantIn(t, id, model)
	h.write(t, host, "a note")
	tenants := tenancyv1.NewTenantServiceClient(h.operator(t, "tenancy"))
	name := "tenants/" + id
	all := h.waysTo(t, host)
	all.turn(t, time.Now(), "OK")
	cut := h.streams(t, host)

	began := time.Now()
	if _, err := tenants.SuspendTenant(t.Context(), &tenancyv1.SuspendTenantRequest{
		Name: name, Cause: tenancyv1.SuspensionCause_SUSPENSION_CAUSE_BILLING, Reason: "an unpaid bill, a test",
	}); err != nil {
		t.Fatal(err)
	}
	slowest := all.turn(t, began, "PermissionDenied TENANT_SUSPENDED")
	for range 2 {
		c := <-cut
		took := c.when.Sub(began)
		if got := verdict(c.err); got != "PermissionDenied TENANT_SUSPENDED" {
			t.Errorf("%s was cut with %s: %v", c.name, got, c.err)
		}
		t.Logf("%s: cut after %s", c.name, took.Round(time.Millisecond))
		slowest = max(slowest, took)
	}
	t.Logf("suspended everywhere after %s", slowest.Round(time.Millisecond))
	if slowest > suspendedWithin {
		t.Errorf("the slowest refused after %s, the promise is %s", slowest, suspendedWithin)
	}
	h.wantFace(t, host, http.StatusForbidden, "TENANT_SUSPENDED", "suspended")

	if _, err := tenants.ResumeTenant(t.Context(), &tenancyv1.ResumeTenantRequest{
		Name: name, Cause: tenancyv1.SuspensionCause_SUSPENSION_CAUSE_BILLING,
	}); err != nil {
		t.Fatal(err)
	}
	all["gateway, HTTP"].within(t, "OK")
	old := all["config"]
	if err := old(t.Context()); verdict(err) != "Aborted PLACEMENT_STALE" {
		t.Errorf("a context from before the suspension: %v", err)
	}
	all = h.waysTo(t, host)
	all.turn(t, time.Now(), "OK")

	began = time.Now()
	if _, err := tenants.DeleteTenant(t.Context(), &tenancyv1.DeleteTenantRequest{Name: name, Reason: "the test is over now"}); err != nil {
		t.Fatal(err)
	}
	t.Logf("deleted everywhere after %s", all.turn(t, began, "TENANT_DELETED").Round(time.Millisecond))
	h.wantFace(t, host, http.StatusGone, "TENANT_DELETED", "closed")
}

// wantFace wants a page for people and a problem document for programs.
func (h *house) wantFace(t *testing.T, host string, status int, reason, word string) {
	t.Helper()
	if a := h.visit(t, visit{host: host, path: "/notes"}); a.status != status || a.reason() != reason ||
		!strings.HasPrefix(a.header.Get("Content-Type"), "application/problem+json") {
		t.Errorf("for programs: %d %s %s", a.status, a.header.Get("Content-Type"), a.body)
	}
	a := h.visit(t, visit{host: host, path: "/", header: map[string]string{"Accept": "text/html"}})
	if a.status != status || !strings.Contains(a.body, word) || !strings.HasPrefix(a.header.Get("Content-Type"), "text/html") {
		t.Errorf("for people: %d %s %s", a.status, a.header.Get("Content-Type"), a.body)
	}
}

// cutting is the end of a stream.
type cutting struct {
	name string
	err  error
	when time.Time
}

// streams opens a stream through the front door and one straight at the app, and tells
// how each ends.
func (h *house) streams(t *testing.T, host string) <-chan cutting {
	t.Helper()
	cut := make(chan cutting, 2)
	ctx, cancel := context.WithTimeout(t.Context(), startWithin)
	t.Cleanup(cancel)
	for name, open := range map[string]func() (notesv1.NotesService_WatchNotesClient, error){
		"stream through the gateway": func() (notesv1.NotesService_WatchNotesClient, error) {
			return notesv1.NewNotesServiceClient(h.front(t, host, false)).WatchNotes(ctx, &notesv1.WatchNotesRequest{})
		},
		"stream at notes": func() (notesv1.NotesService_WatchNotesClient, error) {
			return notesv1.NewNotesServiceClient(h.as(t, "gateway", app)).WatchNotes(presenting(ctx, h.steal(t, host)), &notesv1.WatchNotesRequest{})
		},
	} {
		stream, err := open()
		if err == nil {
			_, err = stream.Recv() // it runs
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		go func() {
			_, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				err = nil
			}
			cut <- cutting{name, err, time.Now()}
		}()
	}
	return cut
}

// within waits for a way to say want.
func (w way) within(t *testing.T, want string) {
	t.Helper()
	eventually(t, settle, func() error {
		if err := w(t.Context()); verdict(err) != want {
			return fmt.Errorf("%s, want %s: %w", verdict(err), want, err)
		}
		return nil
	})
}
