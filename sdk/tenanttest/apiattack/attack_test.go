package apiattack_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/apiattack"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/canary"
)

// as calls for a tenant with what else is in the metadata.
func as(pairs ...string) func(context.Context, string, proto.Message) (context.Context, error) {
	return func(ctx context.Context, _ string, _ proto.Message) (context.Context, error) {
		return metadata.AppendToOutgoingContext(ctx, pairs...), nil
	}
}

// open serves a shop with a hole and returns it as a target.
func open(t *testing.T, h hole) apiattack.Target {
	t.Helper()
	watch := canary.New()
	s := &shop{
		file: shopFile(t), hole: h, log: watch.Writer("log"), metrics: map[string]bool{}, cache: map[string]*row{}, lists: map[string]any{},
		answers: map[string]string{}, changed: make(chan struct{}),
	}
	watch.Source("metrics", func(context.Context) ([]byte, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return fmt.Appendln(nil, slices.Collect(maps.Keys(s.metrics))), nil
	})
	server := grpc.NewServer(grpc.UnknownServiceHandler(s.serve))
	reflectionv1.RegisterServerReflectionServer(server, reflection.NewServerV1(s.reflection()))
	lis := bufconn.Listen(1 << 20)
	done := make(chan error, 1)
	go func() { done <- server.Serve(lis) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	conn, err := grpc.NewClient("passthrough:///shop", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return apiattack.Target{
		Victim:   apiattack.Party{Conn: conn, In: as("tenant", "acme")},
		Attacker: apiattack.Party{Conn: conn, In: as("tenant", "globex")},
		Intruders: []apiattack.Intruder{
			{Name: "expired context", Party: apiattack.Party{Conn: conn, In: as("tenant", "acme", "expired", "yes")}},
			{Name: "stolen context", Party: apiattack.Party{Conn: conn, In: as("tenant", "acme", "bearer", "thief")}},
		},
		Canary:   watch,
		Deadline: 30 * time.Second, // the machine may be busy
		Quiet:    100 * time.Millisecond,
	}
}

// A service that keeps tenants apart has no findings, and every method was exercised.
func TestATightServiceHolds(t *testing.T) {
	t.Parallel()
	target := open(t, "")
	report := apiattack.Run(t, target)
	if len(report.Methods) != 11 || len(report.Findings()) > 0 {
		t.Errorf("%s", report.Coverage())
	}
	seen := map[apiattack.Kind]bool{apiattack.Timing: true} // not asked for
	for _, result := range report.Results {
		if result.Verdict == apiattack.Held {
			seen[result.Attack] = true
		} else {
			t.Logf("%s %s", result.Verdict, result)
		}
	}
	for _, kind := range apiattack.Kinds() {
		if !seen[kind] {
			t.Errorf("no attack of kind %s was made", kind)
		}
	}
}

// caught says by which method and which attacks each hole must show.
var caught = map[hole]struct {
	method string
	kinds  []apiattack.Kind
}{
	"get":                {"GetItem", []apiattack.Kind{apiattack.ForeignID}},
	"list":               {"ListItems", []apiattack.Kind{apiattack.OwnRequest}},
	"update":             {"UpdateItem", []apiattack.Kind{apiattack.ForeignID}},
	"masked update":      {"UpdateItem", []apiattack.Kind{apiattack.ForeignMask}},
	"delete":             {"DeleteItem", []apiattack.Kind{apiattack.ForeignID}},
	"silent delete":      {"DeleteItem", []apiattack.Kind{apiattack.OwnRequest}},
	"archive":            {"ArchiveItem", []apiattack.Kind{apiattack.ForeignID}},
	"find":               {"FindItem", []apiattack.Kind{apiattack.ForeignID}},
	"search":             {"FindItem", []apiattack.Kind{apiattack.ForeignID}},
	"page token":         {"ListItems", []apiattack.Kind{apiattack.ForeignPageToken}},
	"oracle by code":     {"GetItem", []apiattack.Kind{apiattack.ForeignID}},
	"oracle by message":  {"GetItem", []apiattack.Kind{apiattack.ForeignID}},
	"oracle by detail":   {"GetItem", []apiattack.Kind{apiattack.ForeignID}},
	"oracle by etag":     {"DeleteItem", []apiattack.Kind{apiattack.ForeignEtag}},
	"exists by id":       {"CreateItem", []apiattack.Kind{apiattack.ForeignID}},
	"exists by title":    {"CreateItem", []apiattack.Kind{apiattack.ForeignID}},
	"mask":               {"GetItem", []apiattack.Kind{apiattack.ForeignMask}},
	"mask path":          {"GetItem", []apiattack.Kind{apiattack.ForeignMask}},
	"batch":              {"BatchGetItems", []apiattack.Kind{apiattack.ForeignBatch}},
	"watch":              {"WatchItems", []apiattack.Kind{apiattack.Stream}},
	"client stream":      {"TouchItems", []apiattack.Kind{apiattack.ForeignID}},
	"bidi stream":        {"FollowItems", []apiattack.Kind{apiattack.ForeignID}},
	"shared request id":  {"CreateItem", []apiattack.Kind{apiattack.Replay, apiattack.ForeignID}},
	"cache":              {"GetItem", []apiattack.Kind{apiattack.SameRequest}},
	"list cache":         {"ListItems", []apiattack.Kind{apiattack.SameRequest, apiattack.OwnRequest}},
	"title in an error":  {"GetItem", []apiattack.Kind{apiattack.ForeignID}},
	"trailer":            {"GetItem", []apiattack.Kind{apiattack.ForeignID}},
	"write into another": {"UpdateItem", []apiattack.Kind{apiattack.ForeignID}},
	"no context":         {"GetItem", []apiattack.Kind{apiattack.Intrusion}},
	"expired context":    {"DeleteItem", []apiattack.Kind{apiattack.Intrusion}},
	"stolen context":     {"CreateItem", []apiattack.Kind{apiattack.Intrusion}},
	"metrics label":      {"ListItems", []apiattack.Kind{apiattack.Output}},
	"log":                {"ListItems", []apiattack.Kind{apiattack.Output}},
	"timing":             {"GetItem", []apiattack.Kind{apiattack.Timing}},
}

// sample are the holes of the usual run, one for each kind of attack; ROWHOUSE_TEST_LONG has all.
const sample = "get, list, delete, page token, oracle by message, oracle by etag, exists by id, mask, batch, watch, shared request id, " +
	"cache, stolen context, metrics label, timing"

// Each hole is found, by the attack that is meant for it.
func TestEachHoleIsFound(t *testing.T) {
	t.Parallel()
	for h, by := range caught {
		if os.Getenv("ROWHOUSE_TEST_LONG") == "" && !slices.Contains(strings.Split(sample, ", "), string(h)) {
			continue
		}
		t.Run(string(h), func(t *testing.T) {
			t.Parallel()
			target := open(t, h)
			target.Only = []string{"/shop.v1.Shop/" + by.method}
			if h == "timing" {
				target.Timing = 60
			}
			report, err := apiattack.Attack(t.Context(), target)
			if err != nil {
				t.Fatal(err)
			}
			results := report.Findings()
			if h == "timing" {
				results = report.Results // measured here; TestTimesAreJudged judges times that no machine's load changes
			}
			for _, kind := range by.kinds {
				if !slices.ContainsFunc(results, func(f apiattack.Result) bool {
					return f.Attack == kind && f.Verdict != apiattack.Untested && (strings.HasSuffix(f.Method, by.method) || kind == apiattack.Output) && f.Evidence != ""
				}) {
					var text strings.Builder
					report.WriteText(&text)
					t.Errorf("%s was not found by %s:\n%s", h, kind, text.String())
				}
			}
		})
	}
}

// sayings is a test that is expected to fail.
type sayings struct {
	*testing.T

	said []string
}

func (s *sayings) Errorf(format string, args ...any) {
	s.said = append(s.said, fmt.Sprintf(format, args...))
}

// What cannot be exercised is said, never passed over: here nobody can make anything.
func TestUntestedMethodsFail(t *testing.T) {
	t.Parallel()
	target, s := open(t, "cannot create"), &sayings{T: t}
	target.Skip = map[string]string{"/shop.v1.Shop/FollowItems": "its twin is attacked"}
	report := apiattack.Run(s, target)
	if len(s.said) != 10 || len(report.Untested(true)) != 10 || len(report.Untested(false)) != 11 {
		t.Errorf("%q; %s", s.said, report.Coverage())
	}
	for _, said := range s.said {
		if !strings.HasPrefix(said, "untested: ") {
			t.Error(said)
		}
	}
	if said := strings.Join(s.said, "\n"); !strings.Contains(said, "closed today") || !strings.Contains(said, "ListItems: the victim is answered with nothing") {
		t.Error(said)
	}
}

func TestTargetsThatAreNone(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*apiattack.Target){
		"no victim":           func(a *apiattack.Target) { a.Victim.Conn = nil },
		"no attacker":         func(a *apiattack.Target) { a.Attacker.Conn = nil },
		"no such service":     func(a *apiattack.Target) { a.Services = []string{"shop.v1.Stop"} },
		"no service":          func(a *apiattack.Target) { a.Services = []string{"shop.v1.Item"} },
		"an unknown method":   func(a *apiattack.Target) { a.Only = []string{"/shop.v1.Shop/Get"} },
		"an excuse for none":  func(a *apiattack.Target) { a.Skip = map[string]string{"/shop.v1.Shop/Get": "why not"} },
		"nothing was planted": func(a *apiattack.Target) { a.Victim.Plant = plantNothing },
	} {
		target := open(t, "")
		spoil(&target)
		if _, err := apiattack.Attack(t.Context(), target); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func plantNothing(context.Context, string) ([]string, error) { return nil, io.ErrUnexpectedEOF }

// A run is repeated by its seed, and its report is readable by machines.
func TestReportsAreForMachines(t *testing.T) {
	t.Parallel()
	target := open(t, "get")
	target.Only, target.Seed = []string{"/shop.v1.Shop/GetItem"}, 7
	report, err := apiattack.Attack(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	var again apiattack.Report
	if err := json.Unmarshal(text, &again); err != nil || again.Seed != 7 || again.Coverage() != report.Coverage() || len(again.Findings()) == 0 {
		t.Errorf("%v: %s, want %s", err, again.Coverage(), report.Coverage())
	}
	finding := again.Findings()[0]
	if finding.Method != "/shop.v1.Shop/GetItem" || !strings.HasPrefix(finding.Repeat, finding.Method+" {") {
		t.Errorf("%+v", finding)
	}
}
