package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
)

func tenant(id, display string) *tenancyv1.Tenant {
	return &tenancyv1.Tenant{
		Name: "tenants/" + id, Uid: "0198c5f0-7f4b-7cc1-8a5e-3f0f8f1e2d3c", DisplayName: display, Plan: "plans/business",
		State: tenancyv1.TenantState_TENANT_STATE_ACTIVE, Labels: map[string]string{"tier": "1", "area": "eu"},
		Placement:  &tenancyv1.TenantPlacement{Model: tenancyv1.IsolationModel_ISOLATION_MODEL_SHARED, Cell: "cells/cell-1"},
		CreateTime: timestamppb.New(time.Date(2026, 10, 1, 12, 30, 0, 0, time.UTC)), Revision: 7, Etag: `"x"`,
	}
}

// listed has names that take two columns each, none, and what would move a terminal's cursor.
func listed() answer {
	return always(&tenancyv1.ListTenantsResponse{Tenants: []*tenancyv1.Tenant{
		tenant("acme", "東京ロケット"), tenant("globex", "Zoe\u0308 \x1b[31m\tred\u202e"), {Name: "tenants/bare"},
	}})
}

func TestListFormats(t *testing.T) {
	t.Parallel()
	rows := []string{
		"acme\t東京ロケット\tbusiness\tactive\tshared\tcell-1\t2026-10-01T12:30:00Z\n",
		"globex\tZoe\u0308 \\x1b[31m\\tred\\u202e\tbusiness\tactive\tshared\tcell-1\t2026-10-01T12:30:00Z\n", "bare\t\t\t\t\t\t\n",
	}
	table := "TENANT  NAME                     PLAN      STATE   MODEL   CELL    CREATED\n" +
		"acme    東京ロケット             business  active  shared  cell-1  2026-10-01T12:30:00Z\n" +
		"globex  Zoe\u0308 \\x1b[31m\\tred\\u202e  business  active  shared  cell-1  2026-10-01T12:30:00Z\n" +
		"bare\n"
	head, rest, _ := strings.Cut(table, "\n")
	for name, tt := range map[string]struct {
		terminal bool
		env      map[string]string
		args     []string
		want     string
	}{
		"no terminal":     {want: strings.Join(rows, "")},
		"terminal":        {terminal: true, want: "\x1b[1m" + head + "\x1b[0m\n" + rest},
		"NO_COLOR":        {terminal: true, env: map[string]string{"NO_COLOR": "1"}, want: table},
		"table":           {args: []string{"-o", "table"}, want: table},
		"tsv on terminal": {terminal: true, args: []string{"-o", "tsv"}, want: strings.Join(rows, "")},
		"name":            {args: []string{"-o", "name"}, want: "tenants/acme\ntenants/globex\ntenants/bare\n"},
		"flag before":     {args: []string{"--output=name"}, want: "tenants/acme\ntenants/globex\ntenants/bare\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &house{answers: map[string]answer{"TenantService/ListTenants": listed()}, terminal: tt.terminal, env: tt.env}
			got := h.run(t, append([]string{"tenants", "list"}, tt.args...)...)
			if diff := cmp.Diff(result{0, tt.want, ""}, got, cmp.AllowUnexported(result{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestStructuredFormats(t *testing.T) {
	t.Parallel()
	answers := map[string]answer{
		"TenantService/ListTenants": always(&tenancyv1.ListTenantsResponse{Tenants: []*tenancyv1.Tenant{tenant("acme", "true"), {Name: "tenants/bare"}}}),
		"TenantService/GetTenant":   always(&tenancyv1.GetTenantResponse{Tenant: tenant("acme", "東京")}),
	}
	asJSON := func(display string) string {
		return `{
  "name": "tenants/acme",
  "uid": "0198c5f0-7f4b-7cc1-8a5e-3f0f8f1e2d3c",
  "display_name": "` + display + `",
  "plan": "plans/business",
  "state": "TENANT_STATE_ACTIVE",
  "placement": {
    "model": "ISOLATION_MODEL_SHARED",
    "cell": "cells/cell-1"
  },
  "labels": {
    "area": "eu",
    "tier": "1"
  },
  "create_time": "2026-10-01T12:30:00Z",
  "revision": "7",
  "etag": "\"x\""
}`
	}
	yaml := `name: tenants/acme
uid: 0198c5f0-7f4b-7cc1-8a5e-3f0f8f1e2d3c
display_name: "true"
plan: plans/business
state: TENANT_STATE_ACTIVE
placement:
  model: ISOLATION_MODEL_SHARED
  cell: cells/cell-1
labels:
  area: eu
  tier: "1"
create_time: "2026-10-01T12:30:00Z"
revision: "7"
etag: '"x"'
`
	inList := func(text string) string { return strings.ReplaceAll(text, "\n", "\n  ") }
	for line, want := range map[string]string{
		"tenants get acme -o json":    asJSON("東京") + "\n",
		"tenants list -o json":        "[\n  " + inList(asJSON("true")) + ",\n  {\n    \"name\": \"tenants/bare\"\n  }\n]\n",
		"tenants list -o yaml":        "- " + inList(strings.TrimSuffix(yaml, "\n")) + "\n- name: tenants/bare\n",
		"plans list -o json":          "[]\n",
		"plans list -o yaml":          "[]\n",
		"plans list -o name":          "",
		"tenants get acme -o name":    "tenants/acme\n",
		"tenants get acme":            "acme\t東京\tbusiness\tactive\tshared\tcell-1\t2026-10-01T12:30:00Z\n",
		"placements get acme -o name": "\n",
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			got := (&house{answers: answers}).run(t, strings.Fields(line)...)
			if diff := cmp.Diff(result{0, want, ""}, got, cmp.AllowUnexported(result{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDetailForPeople(t *testing.T) {
	t.Parallel()
	h := &house{terminal: true, answers: map[string]answer{"TenantService/GetTenant": always(&tenancyv1.GetTenantResponse{Tenant: tenant("acme", "Acme")})}}
	want := `name             tenants/acme
uid              0198c5f0-7f4b-7cc1-8a5e-3f0f8f1e2d3c
display_name     Acme
plan             plans/business
state            active
placement.model  shared
placement.cell   cells/cell-1
labels           area=eu,tier=1
create_time      2026-10-01T12:30:00Z
revision         7
etag             "x"
`
	if diff := cmp.Diff(want, h.run(t, "tenants", "get", "acme").out); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A placement is a row for each app, also where it has none, and the whole for programs that ask for it.
func TestPlacementsAreShownByApp(t *testing.T) {
	t.Parallel()
	answers := map[string]answer{"PlacementService/GetPlacement": always(&tenancyv1.GetPlacementResponse{Placement: &tenancyv1.Placement{
		Name: "tenants/acme/placement", Cell: "cells/cell-1", Apps: []*tenancyv1.PlacementApp{
			{App: "apps/crm", State: "active", Database: "crm", Schema: "t_1", Migration: "apps/crm/migrations/0002_b"},
			{App: "apps/notes", Database: "notes_db", Schema: "t_1", Reconciling: true, LastError: &spb.Status{Message: "0003_c fails"}},
		},
	}})}
	h := &house{answers: answers}
	const rows = "crm\tactive\tcrm\tt_1\t0002_b\tfalse\t\nnotes\t\tnotes_db\tt_1\t\ttrue\t0003_c fails\n"
	if got := h.run(t, "placements", "get", "acme"); got != (result{0, rows, ""}) {
		t.Errorf("got %+v", got)
	}
	if got := h.run(t, "placements", "get", "acme", "-o", "name"); got.out != "tenants/acme/placement\n" {
		t.Errorf("got %+v", got)
	}
	const table = `APP    STATE   DATABASE  SCHEMA  MIGRATION  RECONCILING  WHY
crm    active  crm       t_1     0002_b     false
notes          notes_db  t_1                true         0003_c fails
`
	if diff := cmp.Diff(table, h.run(t, "placements", "get", "acme", "-o", "table").out); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := h.run(t, "placements", "get", "acme", "-o", "json"); !strings.Contains(got.out, `"cell": "cells/cell-1"`) {
		t.Errorf("got %+v", got)
	}
}

func TestFlagsAreShown(t *testing.T) {
	t.Parallel()
	h := &house{answers: map[string]answer{"FlagService/ExplainFlag": always(&configv1.ExplainFlagResponse{
		Flag: &configv1.Flag{
			Key: "a/b", State: "DISABLED", Layer: "platform", Definition: `{"state":"DISABLED","variants":{"on":true}}`,
			Kill: &configv1.FlagKill{Layer: "plans/free", Key: "a/b", Reason: "it charges twice", Author: "operator:ann@static"},
		},
		Reason: "DISABLED", Metadata: "{}", Provenance: []*configv1.Provenance{
			{Pointer: "/flags/a~1b/state", Layer: "plans/free/kill", Revision: 4, Shadowed: []string{"platform"}},
			{Pointer: "/flags/a~1b/variants", Layer: "platform", Revision: 2},
		},
	})}}
	for args, want := range map[string]string{
		"flags get acme a/b": "{\n  \"state\": \"DISABLED\",\n  \"variants\": {\n    \"on\": true\n  }\n}\n",
		"flags explain acme a/b -o tsv": "/flags/a~1b/state\tDISABLED\tplans/free/kill\t4\tplatform\n" +
			"/flags/a~1b/variants\t{\"on\":true}\tplatform\t2\t\n",
		"flags evaluate acme a/b -o tsv": "\t\tDISABLED\t\t\n",
	} {
		got := h.run(t, strings.Fields(args)...)
		if diff := cmp.Diff(want, got.out); diff != "" || got.code != 0 {
			t.Errorf("%s (-want +got):\n%s%s", args, diff, got.err)
		}
	}
	if got := h.run(t, "flags", "evaluate", "acme", "a/b", "-o", "json"); !strings.Contains(got.out, `"reason": "DISABLED"`) {
		t.Errorf("as JSON: %s", got.out)
	}
}

func TestSettingsAreShownByLeaf(t *testing.T) {
	t.Parallel()
	h := &house{answers: map[string]answer{
		"DocumentService/ExplainSettings": always(&configv1.ExplainSettingsResponse{Effective: &configv1.Effective{
			Namespace: "notes", Content: `{"page":{"size":50},"a/b":["x",null],"long":"` + strings.Repeat("é", 70) + `"}`,
			Provenance: []*configv1.Provenance{
				{Pointer: "/a~1b/0", Layer: "schema"},
				{Pointer: "/a~1b/1", Layer: "tenants/acme", Revision: 9, Shadowed: []string{"plans/free", "platform"}},
				{Pointer: "/long", Layer: "platform", Revision: 2}, {Pointer: "/page/size", Layer: "plans/free", Revision: 3, Lock: "plan"},
			},
			Absent: []*configv1.Provenance{{Pointer: "/gone", Layer: "plans/free", Revision: 3, Shadowed: []string{"platform"}}},
		}, Layers: []*configv1.LayerSource{{Layer: "plans/free", Author: "ada", Reason: "a ticket"}}}),
		"DocumentService/DiffDocument": always(&configv1.DiffDocumentResponse{Differences: []*configv1.LeafDifference{
			{Pointer: "/a", Before: "1", After: "2"}, {Pointer: "/b", After: `"x"`},
		}}),
		"DocumentService/GetDocument": always(&configv1.GetDocumentResponse{Document: &configv1.Document{
			Name: "tenants/acme/config/notes", Content: `{"a":1}`, Revision: 4,
		}}),
	}}
	want := "/a~1b/0\tx\tschema\t0\t\t\t\t\n/a~1b/1\tnull\ttenants/acme\t9\t\t\tplans/free,platform\t\n" +
		"/long\t" + strings.Repeat("é", 60) + "… (140 bytes)\tplatform\t2\t\t\t\t\n/page/size\t50\tplans/free\t3\tada\ta ticket\t\tplan\n" +
		"/gone\t(none)\tplans/free\t3\tada\ta ticket\tplatform\t\n"
	if diff := cmp.Diff(want, h.run(t, "config", "explain", "acme", "notes").out); diff != "" {
		t.Errorf("explain (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff("/a\t1\t2\n/b\t\t\"x\"\n", h.run(t, "config", "diff", "acme", "notes", "--from", "3").out); diff != "" {
		t.Errorf("diff (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff("{\n  \"a\": 1\n}\n", h.run(t, "config", "get", "acme", "notes").out); diff != "" {
		t.Errorf("get (-want +got):\n%s", diff)
	}
	want = "name: tenants/acme/config/notes\ncontent: '{\"a\":1}'\nrevision: \"4\"\n"
	if diff := cmp.Diff(want, h.run(t, "config", "get", "acme", "notes", "-o", "yaml").out); diff != "" {
		t.Errorf("get -o yaml (-want +got):\n%s", diff)
	}
}

// A secret is shown with its webhook: in a line of its own for people, in the answer for programs.
func TestSecretsAreShownOnce(t *testing.T) {
	t.Parallel()
	h := &house{answers: map[string]answer{"WebhookService/CreateWebhook": always(&configv1.CreateWebhookResponse{
		Webhook: &configv1.Webhook{Name: "tenants/acme/webhooks/b", Url: "https://a.dev"}, Secret: "whsec_c2VjcmV0",
	})}}
	args := []string{"webhooks", "create", "acme", "b", "--url", "https://a.dev"}
	if got := h.run(t, args...); got.out != "tenants/acme/webhooks/b\thttps://a.dev\t\tfalse\t\t0\nwhsec_c2VjcmV0\n" {
		t.Errorf("got %+v", got)
	}
	if got := h.run(t, append(args, "-o", "json")...); !strings.Contains(got.out, `"secret": "whsec_c2VjcmV0"`) {
		t.Errorf("got %+v", got)
	}
}

// pages answers a list of n tenants in pages, as the service would.
func pages(n int) answer {
	return func(_ context.Context, request proto.Message) (proto.Message, error) {
		r := request.(*tenancyv1.ListTenantsRequest)
		from := 0
		_, _ = fmt.Sscan(r.GetPageToken(), &from)
		response := &tenancyv1.ListTenantsResponse{}
		for i := from; i < min(n, from+int(r.GetPageSize())); i++ {
			response.Tenants = append(response.Tenants, &tenancyv1.Tenant{Name: fmt.Sprintf("tenants/t%d", i)})
		}
		if next := from + len(response.Tenants); next < n {
			response.NextPageToken = strconv.Itoa(next)
		}
		return response, nil
	}
}

func TestLongLists(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		args        []string
		rows, calls int
	}{
		"all":        {[]string{"-o", "name"}, 2500, 3},
		"as a table": {[]string{"-o", "table"}, 2501, 3},
		"some":       {[]string{"-o", "name", "--limit", "1200"}, 1200, 2},
		"a few":      {[]string{"-o", "name", "--limit", "3"}, 3, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &house{answers: map[string]answer{"TenantService/ListTenants": pages(2500)}}
			got := h.run(t, append([]string{"tenants", "list"}, tt.args...)...)
			if rows := strings.Count(got.out, "\n"); rows != tt.rows || len(h.calls()) != tt.calls || got.code != 0 {
				t.Errorf("%d rows by %d calls, status %d; want %d by %d", rows, len(h.calls()), got.code, tt.rows, tt.calls)
			}
		})
	}
}

// gone is a pipe whose reader went away.
type gone struct{}

func (gone) Write([]byte) (int, error) { return 0, fmt.Errorf("write |1: %w", syscall.EPIPE) }

func TestClosedPipeIsFine(t *testing.T) {
	t.Parallel()
	for _, format := range formats() {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			h := &house{answers: map[string]answer{"TenantService/ListTenants": pages(2500)}, out: gone{}}
			got := h.run(t, "tenants", "list", "-o", format)
			if got.code != 0 || got.err != "" || len(h.calls()) != 1 {
				t.Errorf("status %d, %d calls, said %q; want 0, one page and silence", got.code, len(h.calls()), got.err)
			}
		})
	}
}

func TestWidth(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{"": 0, "abc": 3, "東京": 4, "e\u0301": 1, "Ａ": 2, "\u200bx": 1, "😀": 2, "ﾊ": 1} {
		if got := width(text); got != want {
			t.Errorf("width(%q) = %d, want %d", text, got, want)
		}
	}
}

// What has nothing to show says so to programs too.
func TestEmptyAnswers(t *testing.T) {
	t.Parallel()
	for format, want := range map[string]string{"": "", "tsv": "", "table": "", "json": "{}\n", "yaml": "{}\n", "name": "tenants/acme/domains/n.example\n"} {
		args := []string{"domains", "delete", "acme", "n.example", "--confirm", "n.example"}
		if format != "" {
			args = append(args, "-o", format)
		}
		if got := (&house{}).run(t, args...); got != (result{0, want, ""}) {
			t.Errorf("-o %q: %+v, want %q", format, got, want)
		}
	}
}

func TestVersionFormats(t *testing.T) {
	t.Parallel()
	var build struct{ Version, Go, Platform string }
	got := (&house{}).run(t, "version", "-o", "json")
	if err := json.Unmarshal([]byte(got.out), &build); err != nil || build.Version == "" || build.Go != runtime.Version() {
		t.Errorf("%+v, %v", got, err)
	}
	words := strings.Join([]string{"rowhouse", build.Version, build.Go, build.Platform}, " ") + "\n"
	if got := (&house{}).run(t, "version"); got != (result{0, words, ""}) {
		t.Errorf("%+v, want %q", got, words)
	}
	if got := (&house{}).run(t, "version", "-o", "xml"); got.code != exitUsage {
		t.Errorf("-o xml: %+v", got)
	}
}
