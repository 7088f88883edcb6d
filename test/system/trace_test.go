package system

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/grpc/metadata"

	notesv1 "github.com/rowhouse-platform/rowhouse/gen/notes/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantotel"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantotel/otlptest"
)

// What a client from outside sends to look like another tenant, or to join its trace.
const (
	spoof      = "spoofed-by-me"
	spoofTrace = "0af7651916cd43dd8448eb211c80319c"
)

// One request is one trace from the gateway through the app to its SQL, and every span
// of it says whose request it is, as the verified context has it.
func TestOneTraceFromDoorToRows(t *testing.T) {
	t.Parallel()
	receiver := otlptest.Start(t)
	h := start(t, plan{flags: []string{"--otlp", "http://" + receiver.Endpoint()}})
	const id = "traced"
	host := h.tenant(t, id)
	fakes := map[string]string{
		"Traceparent": "00-" + spoofTrace + "-b7ad6b7169203331-01", "Tracestate": "tenant=" + spoof, "Baggage": "tenant.id=" + spoof,
		"X-Tenant-Id": spoof, "Rowhouse-Tenant": spoof,
	}
	if a := h.visit(t, visit{host: host, path: "/notes", header: fakes}); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	var pairs []string
	for name, value := range fakes {
		pairs = append(pairs, strings.ToLower(name), value)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), pairs...)
	if _, err := notesv1.NewNotesServiceClient(h.front(t, host, false)).ListNotes(ctx, &notesv1.ListNotesRequest{}); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 2*settle)
	defer cancel()
	// Without a log record, looking for the spoof in the logs would show nothing.
	if err := receiver.Wait(ctx, func(r *otlptest.Receiver) bool {
		return len(whole(r.Spans(), id)) >= 2 && len(r.Logs()) > 0
	}); err != nil {
		for _, s := range receiver.Spans() {
			t.Logf("%x %s %s %s", s.TraceId, s.Service, s.Name, s.Attr(string(tenantotel.KeyTenantID)))
		}
		t.Fatalf("no two whole traces, or none of %d log records: %v", len(receiver.Logs()), err)
	}
	for trace, spans := range whole(receiver.Spans(), id) {
		for _, s := range spans {
			if got := s.Attr(string(tenantotel.KeyTenantID)); got != id {
				t.Errorf("trace %s: span %q of %s has %s %q", trace, s.Name, s.Service, tenantotel.KeyTenantID, got)
			}
		}
	}
	for _, s := range receiver.Spans() {
		if hex.EncodeToString(s.GetTraceId()) == spoofTrace {
			t.Errorf("span %q of %s joins a trace from outside", s.Name, s.Service)
		}
		if text := s.String(); strings.Contains(text, spoof) {
			t.Errorf("a header from outside is on a span: %s", text)
		}
	}
	for _, l := range receiver.Logs() {
		if text := l.String(); strings.Contains(text, spoof) {
			t.Errorf("a header from outside is in a log: %s", text)
		}
	}
}

// whole returns the tenant's traces that go from the gateway through the app to SQL.
func whole(spans []otlptest.Span, tenant string) map[string][]otlptest.Span {
	traces := map[string][]otlptest.Span{}
	for _, s := range spans {
		id := hex.EncodeToString(s.GetTraceId())
		traces[id] = append(traces[id], s)
	}
	for id, spans := range traces {
		parts := map[string]bool{}
		for _, s := range spans {
			switch {
			case s.Service == "gateway" && s.Name == "gateway.request" && s.Attr(string(tenantotel.KeyTenantID)) == tenant:
				parts["gateway"] = true
			case s.Service == app && isSQL(s):
				parts["SQL"] = true
			case s.Service == app:
				parts[app] = true
			}
		}
		if len(parts) < 3 {
			delete(traces, id)
		}
	}
	return traces
}

func isSQL(s otlptest.Span) bool {
	return s.Attr("db.system.name") != "" || s.Attr("db.system") != "" || s.Attr("db.statement") != "" || s.Attr("db.query.text") != ""
}

// Metrics have no label that grows with the tenants.
func TestMetricsNameNoTenant(t *testing.T) {
	t.Parallel()
	h := shared(t)
	client := h.browser()
	label := regexp.MustCompile(`([a-zA-Z_]+)="([^"]*)"`)
	for _, name := range processes {
		text, err := metrics(t.Context(), client, h.ports.Ops[name])
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		found := label.FindAllStringSubmatch(text, -1)
		if len(found) == 0 {
			t.Errorf("%s: no metric has a label, so this shows nothing:\n%s", name, text)
		}
		for _, m := range found {
			for tenant := range samples {
				if strings.Contains(strings.ToLower(m[1]), "tenant") || strings.Contains(m[2], tenant) {
					t.Errorf("%s: label %s", name, m[0])
				}
			}
		}
	}
}

func metrics(ctx context.Context, client *http.Client, port int) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+loopback(port)+"/metrics", nil)
	if err != nil {
		return "", err
	}
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s", res.Status)
	}
	return string(b), err
}
