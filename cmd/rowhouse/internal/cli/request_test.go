package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
)

// write writes a file for a test and returns its path.
func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWhatIsSent(t *testing.T) {
	t.Parallel()
	const id = `"request_id":"` + requestID + `"`
	secondID := strings.Replace(id, "000001\"", "000002\"", 1)
	app := write(t, "app.yaml", "display_name: Notes\nupstreams:\n- {cell: cells/cell-1, spiffe_id: 'spiffe://x/app/notes'}\netag: '\"e\"'\nuid: ignored\n")
	notes := write(t, "notes.yaml", "page: {size: 5}\n")
	dir := filepath.Dir(write(t, "0001_notes.sql", "SELECT 1"))
	flagd := write(t, "flags.json", `{"flags":{"a":{"state":"ENABLED","variants":{"v":1}}}}`)
	flagList := write(t, "list.json", `{"flags":[{"key":"a","state":"ENABLED"}]}`)
	logo := write(t, "logo.png", "\x89PNG\r\n\x1a\nrest")
	svg := write(t, "logo.svg", "<svg/>")
	change := write(t, "change.yaml", "reason: a good reason\nedits:\n- {name: plans/free/config/notes, form: merge-patch, content: {page: {size: 5}}}\n"+
		"- {name: platform/config/notes, form: delete}\n")
	for name, tt := range map[string]struct {
		args []string
		want string // "service Service/Method request"
	}{
		"list":              {[]string{"tenants", "list", "--filter", `plan = "plans/free"`, "--show-deleted"}, `tenancy TenantService/ListTenants {"page_size":1000,"filter":"plan = \"plans/free\"","show_deleted":true}`},
		"id":                {[]string{"tenants", "get", "acme"}, `tenancy TenantService/GetTenant {"name":"tenants/acme"}`},
		"whole name":        {[]string{"tenants", "get", "tenants/acme"}, `tenancy TenantService/GetTenant {"name":"tenants/acme"}`},
		"two ids":           {[]string{"domains", "get", "acme", "a.example"}, `tenancy DomainService/GetDomain {"name":"tenants/acme/domains/a.example"}`},
		"long name":         {[]string{"domains", "get", "tenants/acme/domains/a.example"}, `tenancy DomainService/GetDomain {"name":"tenants/acme/domains/a.example"}`},
		"all tenants":       {[]string{"domains", "list"}, `tenancy DomainService/ListDomains {"parent":"tenants/-","page_size":1000}`},
		"of one":            {[]string{"domains", "list", "acme"}, `tenancy DomainService/ListDomains {"parent":"tenants/acme","page_size":1000}`},
		"migrations":        {[]string{"migrations", "list", "notes"}, `tenancy MigrationService/ListMigrations {"parent":"apps/notes","page_size":1000}`},
		"migration":         {[]string{"migrations", "get", "notes", "0001_notes"}, `tenancy MigrationService/GetMigration {"name":"apps/notes/migrations/0001_notes"}`},
		"register":          {[]string{"migrations", "register", "notes", "--dir", dir}, `tenancy MigrationService/RegisterMigrations {"parent":"apps/notes","migrations":[{"migration_id":"0001_notes","statements":"SELECT 1"}],` + id + `}`},
		"withdraw":          {[]string{"migrations", "delete", "notes", "0001_notes", "--etag", `"e"`, "--confirm", "0001_notes"}, `tenancy MigrationService/DeleteMigration {"name":"apps/notes/migrations/0001_notes","etag":"\"e\"",` + id + `}`},
		"register nothing":  {[]string{"migrations", "register", "notes", "--dir", dir, "--from", "0002"}, ""},
		"placement":         {[]string{"placements", "get", "acme"}, `tenancy PlacementService/GetPlacement {"name":"tenants/acme/placement"}`},
		"create":            {[]string{"tenants", "create", "hooli", "--plan", "business", "--labels", "a=1,b=2", "--model", "schema", "--cell", "cells/c2"}, `tenancy TenantService/CreateTenant {"tenant_id":"hooli","tenant":{"plan":"plans/business","placement":{"model":"ISOLATION_MODEL_SCHEMA","cell":"cells/c2"},"labels":{"a":"1","b":"2"}},` + id + `}`},
		"update":            {[]string{"tenants", "update", "acme", "--display-name", "A", "--delete-protection=false", "--etag", `"e"`}, `tenancy TenantService/UpdateTenant {"tenant":{"name":"tenants/acme","display_name":"A","etag":"\"e\""},"update_mask":"deleteProtection,displayName",` + id + `}`},
		"parent":            {[]string{"tenants", "create", "hooli", "--parent", "acme"}, `tenancy TenantService/CreateTenant {"tenant_id":"hooli","tenant":{"parent":"tenants/acme"},` + id + `}`},
		"no parent":         {[]string{"tenants", "update", "hooli", "--parent="}, `tenancy TenantService/UpdateTenant {"tenant":{"name":"tenants/hooli"},"update_mask":"parent",` + id + `}`},
		"clear":             {[]string{"tenants", "update", "acme", "--external-id="}, `tenancy TenantService/UpdateTenant {"tenant":{"name":"tenants/acme"},"update_mask":"externalId",` + id + `}`},
		"file":              {[]string{"apps", "update", "notes", "--file", app, "--shared-hosts", "a,b"}, `tenancy AppService/UpdateApp {"app":{"name":"apps/notes","uid":"ignored","display_name":"Notes","upstreams":[{"cell":"cells/cell-1","spiffe_id":"spiffe://x/app/notes"}],"shared_hosts":["a","b"],"etag":"\"e\""},"update_mask":"displayName,sharedHosts,upstreams",` + id + `}`},
		"suspend":           {[]string{"tenants", "suspend", "acme", "--cause", "billing", "--reason", "bill", "--confirm", "acme"}, `tenancy TenantService/SuspendTenant {"name":"tenants/acme",` + id + `,"reason":"bill","cause":"SUSPENSION_CAUSE_BILLING"}`},
		"dry run":           {[]string{"tenants", "delete", "acme", "--reason", "end", "--dry-run", "--allow-missing"}, `tenancy TenantService/DeleteTenant {"name":"tenants/acme",` + id + `,"validate_only":true,"allow_missing":true,"reason":"end"}`},
		"repeat":            {[]string{"tenants", "resume", "acme", "--cause", "abuse", "--request-id", "6ba7b810-9dad-41d1-80b4-00c04fd430c8"}, `tenancy TenantService/ResumeTenant {"name":"tenants/acme","request_id":"6ba7b810-9dad-41d1-80b4-00c04fd430c8","cause":"SUSPENSION_CAUSE_ABUSE"}`},
		"lookup":            {[]string{"tenants", "lookup", "external:a/b"}, `tenancy TenantService/LookupTenant {"key":"external:a/b"}`},
		"domain":            {[]string{"domains", "create", "acme", "n.example", "--app", "notes"}, `tenancy DomainService/CreateDomain {"parent":"tenants/acme","domain_id":"n.example","domain":{"app":"apps/notes"},` + id + `}`},
		"delete domain":     {[]string{"domains", "delete", "acme", "n.example", "--confirm", "n.example"}, `tenancy DomainService/DeleteDomain {"name":"tenants/acme/domains/n.example",` + id + `}`},
		"key":               {[]string{"keys", "revoke", "00112233445566ff", "--reason", "lost", "--confirm", "00112233445566ff"}, `tenancy ContextService/RevokeContextKey {"name":"contextKeys/00112233445566ff",` + id + `,"reason":"lost"}`},
		"plan":              {[]string{"plans", "create", "gold", "--allowed-models", "shared,schema", "--retention", "48h"}, `tenancy PlanService/CreatePlan {"plan_id":"gold","plan":{"allowed_models":["ISOLATION_MODEL_SHARED","ISOLATION_MODEL_SCHEMA"],"retention":"172800s"},` + id + `}`},
		"zero limit":        {[]string{"limits", "set", "acme", "requests", "--tokens", "0"}, `quota LimitService/UpdateLimit {"limit":{"name":"tenants/acme/limits/requests"},"update_mask":"tokens","allow_missing":true,` + id + `}`},
		"limit of a plan":   {[]string{"limits", "set", "plans/free", "requests", "--tokens", "9", "--period", "1s", "--on-store-loss", "fail-open"}, `quota LimitService/UpdateLimit {"limit":{"name":"plans/free/limits/requests","tokens":"9","period":"1s","on_store_loss":"STORE_LOSS_POLICY_FAIL_OPEN"},"update_mask":"onStoreLoss,period,tokens","allow_missing":true,` + id + `}`},
		"platform's limits": {[]string{"limits", "list", "platform"}, `quota LimitService/ListLimits {"parent":"platform","page_size":1000}`},
		"explain limits":    {[]string{"limits", "explain", "acme"}, `quota LimitService/ExplainLimits {"parent":"tenants/acme"}`},
		"patch":             {[]string{"config", "set", "acme", "notes", "--set", `page.size=50`, "--set", "page.on=true", "--set", `a\.b=x y`, "--set", "old=null", "--reason", "why"}, `config DocumentService/UpdateDocument {"document":{"name":"tenants/acme/config/notes","content":"{\"a.b\":\"x y\",\"old\":null,\"page\":{\"on\":true,\"size\":50}}"},"allow_missing":true,` + id + `,"merge_patch":true,"reason":"why"}`},
		"replace":           {[]string{"config", "set", "platform", "notes", "--file", notes, "--etag", `"e"`}, `config DocumentService/UpdateDocument {"document":{"name":"platform/config/notes","content":"{\"page\":{\"size\":5}}","etag":"\"e\""},"allow_missing":true,` + id + `}`},
		"stdin":             {[]string{"config", "set", "plans/free/config/notes", "--file", "-", "--merge"}, `config DocumentService/UpdateDocument {"document":{"name":"plans/free/config/notes","content":"{\"in\":1}"},"allow_missing":true,` + id + `,"merge_patch":true}`},
		"JSON patch":        {[]string{"config", "set", "tenants/acme/environments/dev", "notes", "--file", notes, "--patch"}, `config DocumentService/UpdateDocument {"document":{"name":"tenants/acme/environments/dev/config/notes","content":"{\"page\":{\"size\":5}}"},"allow_missing":true,` + id + `,"json_patch":true}`},
		"diff":              {[]string{"config", "diff", "regions/eu", "notes", "--from", "17"}, `config DocumentService/DiffDocument {"name":"regions/eu/config/notes","from_revision":"17"}`},
		"shadow":            {[]string{"namespaces", "update", "notes", "--overrides", "shadow"}, `config NamespaceService/UpdateNamespace {"namespace":{"name":"namespaces/notes"},` + id + `,"overrides":"OVERRIDE_POLICY_SHADOW"}`},
		"rollback":          {[]string{"config", "rollback", "acme", "notes", "--revision", "17", "--reason", "r"}, `config DocumentService/RollbackDocument {"name":"tenants/acme/config/notes",` + id + `,"reason":"r","revision":"17"}`},
		"revisions":         {[]string{"config", "revisions", "acme", "notes"}, `config DocumentService/ListDocumentRevisions {"parent":"tenants/acme/config/notes","page_size":50}`},
		"brand":             {[]string{"brand", "set", "acme", "--name", `A "b" <c>`, "--primary", "#112233", "--text-dark", "#ffffff", "--logo", logo}, `config DocumentService/UpdateDocument {"document":{"name":"tenants/acme/config/brand","content":"{\"dark\":{\"text\":\"#ffffff\"},\"light\":{\"primary\":\"#112233\"},\"logo\":\"data:image/png;base64,iVBORw0KGgpyZXN0\",\"name\":\"A \\\"b\\\" \\u003cc\\u003e\"}"},"allow_missing":true,` + id + `,"merge_patch":true}`},
		"a number as name":  {[]string{"brand", "set", "acme", "--name", "42", "--primary="}, `config DocumentService/UpdateDocument {"document":{"name":"tenants/acme/config/brand","content":"{\"light\":{\"primary\":null},\"name\":\"42\"}"},"allow_missing":true,` + id + `,"merge_patch":true}`},
		"upload":            {[]string{"brand", "asset", "put", "acme", "--file", svg, "--reason", "new logo"}, `config BrandAssetService/CreateBrandAsset {"parent":"tenants/acme","media_type":"image/svg+xml","content":"PHN2Zy8+","reason":"new logo"}`},
		"icons":             {[]string{"brand", "assets", "put", "plans/free", "--file", logo, "--icons", "--ground", "#112233"}, `config BrandAssetService/CreateBrandAsset {"parent":"plans/free","media_type":"image/png","content":"iVBORw0KGgpyZXN0","icons":true,"ground":"#112233"}`},
		"change by file":    {[]string{"config", "changes", "create", "c1", "--file", change}, `config ChangeService/CreateChange {"change_id":"c1","change":{"reason":"a good reason","edits":[{"name":"plans/free/config/notes","content":"{\"page\":{\"size\":5}}","form":"CHANGE_EDIT_FORM_MERGE_PATCH"},{"name":"platform/config/notes","form":"CHANGE_EDIT_FORM_DELETE"}]},` + id + `}`},
		"change by flags":   {[]string{"config", "changes", "create", "c1", "--document", "plans/free/config/notes", "--set", "a.b=1", "--reason", "a good reason"}, `config ChangeService/CreateChange {"change_id":"c1","change":{"reason":"a good reason","edits":[{"name":"plans/free/config/notes","content":"{\"a\":{\"b\":1}}","form":"CHANGE_EDIT_FORM_MERGE_PATCH"}]},` + id + `}`},
		"change again":      {[]string{"config", "changes", "update", "c1", "--reason", "a good reason", "--document", "platform/config/notes", "--delete"}, `config ChangeService/UpdateChange {"change":{"name":"changes/c1","reason":"a good reason","edits":[{"name":"platform/config/notes","form":"CHANGE_EDIT_FORM_DELETE"}]},"update_mask":"reason,edits,rollout",` + id + `}`},
		"approve a change":  {[]string{"config", "changes", "approve", "c1", "--digest", "ab"}, `config ChangeService/ApproveChange {"name":"changes/c1",` + id + `,"digest":"ab"}`},
		"schedule a change": {[]string{"config", "changes", "schedule", "c1", "--at", "2026-12-01T08:00:00+01:00"}, `config ChangeService/ScheduleChange {"name":"changes/c1",` + id + `,"not_before":"2026-12-01T07:00:00Z"}`},
		"changes of a kind": {[]string{"config", "changes", "list", "--state", "halted", "--namespace", "notes"}, `config ChangeService/ListChanges {"page_size":50,"state":"CHANGE_STATE_HALTED","namespace":"namespaces/notes"}`},
		"approval rule":     {[]string{"namespaces", "update", "notes", "--approval-layers", "platform,plan", "--approval-count", "2"}, `config NamespaceService/UpdateNamespace {"namespace":{"name":"namespaces/notes","approval":{"layers":["platform","plan"],"count":2}},"update_mask":"approval.count,approval.layers",` + id + `}`},
		"draft":             {[]string{"brand", "draft", "set", "acme", "--set", "light.primary=#112233", "--reason", "new"}, `config BrandDraftService/UpdateBrandDraft {"brand_draft":{"name":"tenants/acme/brandDraft","content":"{\"light\":{\"primary\":\"#112233\"}}"},` + id + `,"merge_patch":true,"reason":"new"}`},
		"preview":           {[]string{"brand", "draft", "preview", "acme", "--host", "a.example", "--ttl", "1h"}, `config BrandDraftService/CreateBrandPreview {"name":"tenants/acme/brandDraft","host":"a.example","ttl":"3600s"}`},
		"mail":              {[]string{"brand", "mails", "preview", "acme", "notice", "--draft", "--locale", "de", "--values", "title=Hi"}, `config BrandMailService/PreviewBrandMail {"name":"tenants/acme/brandDraft","kind":"notice","locale":"de","values":{"title":"Hi"}}`},
		"publish":           {[]string{"brand", "draft", "publish", "acme"}, `config BrandDraftService/PublishBrandDraft {"name":"tenants/acme/brandDraft",` + id + `}`},
		"show brand":        {[]string{"brand", "explain", "acme"}, `config DocumentService/ExplainSettings {"name":"tenants/acme/config/brand"}`},
		"flags":             {[]string{"flags", "list", "acme"}, `config FlagService/ListFlags {"parent":"tenants/acme","page_size":1000}`},
		"a flag's value":    {[]string{"flags", "evaluate", "acme", "a/b", "--context", `{"x":1}`}, `config FlagService/ExplainFlag {"parent":"tenants/acme","key":"a/b","context":"{\"x\":1}"}`},
		"kill":              {[]string{"flags", "kill", "checkout", "--reason", "it charges twice"}, `config FlagService/KillFlag {"parent":"platform",` + id + `,"reason":"it charges twice","key":"checkout"}`},
		"kill of a plan":    {[]string{"flags", "kill", "checkout", "plans/free", "--reason", "it charges twice"}, `config FlagService/KillFlag {"parent":"plans/free",` + id + `,"reason":"it charges twice","key":"checkout"}`},
		"lift":              {[]string{"flags", "lift", "checkout", "acme", "--reason", "it was repaired"}, `config FlagService/LiftFlag {"parent":"tenants/acme",` + id + `,"reason":"it was repaired","key":"checkout"}`},
		"import": {[]string{"flags", "import", "-f", flagd}, `config DocumentService/GetDocument {"name":"platform/config/flags"}` + "\n" + `config DocumentService/UpdateDocument {"document":{"name":"platform/config/flags","content":"{\"flags\":{\"a\":{\"state\":\"ENABLED\",\"variants\":{\"v\":1}}}}"},"allow_missing":true,` + id + `,"validate_only":true}` + "\n" +
			`config DocumentService/UpdateDocument {"document":{"name":"platform/config/flags","content":"{\"flags\":{\"a\":{\"state\":\"ENABLED\",\"variants\":{\"v\":1}}}}"},"allow_missing":true,` + secondID + `}`},
		"import a list": {[]string{"flags", "import", "plans/free", "-f", flagList}, `config DocumentService/GetDocument {"name":"plans/free/config/flags"}` + "\n" + `config DocumentService/UpdateDocument {"document":{"name":"plans/free/config/flags","content":"{\"flags\":{\"a\":{\"state\":\"ENABLED\"}}}"},"allow_missing":true,` + id + `,"validate_only":true}` + "\n" +
			`config DocumentService/UpdateDocument {"document":{"name":"plans/free/config/flags","content":"{\"flags\":{\"a\":{\"state\":\"ENABLED\"}}}"},"allow_missing":true,` + secondID + `}`},
		"platform chain":   {[]string{"audit", "list"}, `tenancy AuditService/ListEvents {"parent":"chains/platform","page_size":50}`},
		"other chains":     {[]string{"audit", "verify", "platform", "--service", "gateway"}, `gateway AuditService/VerifyChain {"name":"chains/platform"}`},
		"event":            {[]string{"audit", "get", "0198c5f0-7f4b-7cc1-8a5e-3f0f8f1e2d3c", "3", "--service=quota"}, `quota AuditService/GetEvent {"name":"chains/0198c5f0-7f4b-7cc1-8a5e-3f0f8f1e2d3c/events/3"}`},
		"route":            {[]string{"routes", "explain", "https://rowhouse.localhost:8443/t/globex/no%20tes?q=1"}, `gateway EdgeService/ExplainRoute {"host":"rowhouse.localhost:8443","path":"/t/globex/no%20tes"}`},
		"operations":       {[]string{"operations", "list"}, `tenancy Operations/ListOperations {"page_size":50}`},
		"cancel":           {[]string{"operations", "cancel", "operations/1"}, `tenancy Operations/CancelOperation {"name":"operations/1"}`},
		"call":             {[]string{"call", "rowhouse.tenancy.v1.PlanService/UpdatePlan", "-d", `{plan: {name: plans/free}}`}, `tenancy PlanService/UpdatePlan {"plan":{"name":"plans/free"},` + id + `}`},
		"call, camel case": {[]string{"call", "AppService/CreateApp", "--data", `{"appId": "x"}`}, `tenancy AppService/CreateApp {"app_id":"x",` + id + `}`},
		"call a stream":    {[]string{"call", "RoutingService/WatchTenants", "--data", `{"replica": "x"}`}, `tenancy RoutingService/WatchTenants {"replica":"x"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &house{stdin: `{"in":1}`}
			got := h.run(t, tt.args...)
			var calls []string
			for _, s := range h.calls() {
				calls = append(calls, s.service+" "+s.method+" "+s.json(t))
			}
			if diff := cmp.Diff(tt.want, strings.Join(calls, "\n")); diff != "" {
				t.Errorf("said %q, sent (-want +got):\n%s", got.err, diff)
			}
		})
	}
}

// A chain is named by the tenant's uid, which people do not know.
func TestChainsOfTenants(t *testing.T) {
	t.Parallel()
	h := &house{answers: map[string]answer{"TenantService/GetTenant": always(&tenancyv1.GetTenantResponse{Tenant: tenant("acme", "")})}}
	if got := h.run(t, "audit", "list", "acme", "--service", "quota", "--limit", "2"); got.code != 0 {
		t.Fatal(got.err)
	}
	calls := h.calls()
	if len(calls) != 2 || calls[0].service != "tenancy" {
		t.Fatalf("calls %v, want tenancy's GetTenant first", calls)
	}
	want := `quota {"parent":"chains/0198c5f0-7f4b-7cc1-8a5e-3f0f8f1e2d3c","page_size":2}`
	if got := calls[1].service + " " + calls[1].json(t); got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
}

func TestMistakesSendNothing(t *testing.T) {
	t.Parallel()
	big := write(t, "big.png", "\x89PNG\r\n\x1a\n"+strings.Repeat("x", maxLogo))
	odd := filepath.Dir(write(t, "foo.sql", "SELECT 1"))
	for name, tt := range map[string]struct{ line, want string }{
		"noun":             {"tenats list", "did you mean tenants?"},
		"verb":             {"tenants lst", "did you mean list?"},
		"verb unlike any":  {"tenants xyzxyz", `rowhouse tenants has no command "xyzxyz"; see`},
		"flag":             {"tenants list --fliter x", "did you mean --filter?"},
		"flag's synonym":   {"brand set acme --colour #777777", "has no flag --colour; did you mean --primary?"},
		"no synonym here":  {"tenants list --colour red", "has no flag --colour"},
		"short flag":       {"tenants list -z", "see: rowhouse tenants list --help"},
		"enum":             {"tenants resume acme --cause biling", "did you mean billing?"},
		"number":           {"limits set acme requests --tokens many", `"many" is not a whole number`},
		"duration":         {"limits set acme requests --period 5", "write 500ms, 5s, 10m or 24h"},
		"negative":         {"tenants list --limit -1", "want how many at most"},
		"bool":             {"tenants update acme --delete-protection=perhaps", "neither true nor false"},
		"labels":           {"tenants update acme --labels a", "is not key=value"},
		"reference":        {"tenants update acme --plan apps/x", `"apps/x" is no <plan>`},
		"format":           {"tenants list -o jsn", "did you mean json?"},
		"missing argument": {"domains get acme", "get needs <tenant> <host>"},
		"extra argument":   {"tenants get acme globex", `not also "globex"`},
		"empty argument":   {"tenants get ''", "<tenant> is empty"},
		"wrong name":       {"tenants get plans/free", `"plans/free" is no <tenant>`},
		"wrong layer":      {"limits list cells/x", "is no layer"},
		"no confirmation":  {"tenants delete acme --reason x", "nothing was sent: TenantService/DeleteTenant needs confirmation; repeat with --confirm acme"},
		"other id":         {"tenants suspend acme --cause abuse --reason x --confirm globex", "--confirm globex is not acme"},
		"confirm revoke":   {"keys revoke 0011 --reason x", "--confirm 0011"},
		"confirm call":     {`call LimitService/DeleteLimit -d {"name":"tenants/a/limits/requests"}`, "--confirm requests"},
		"no reason":        {"tenants delete acme --confirm acme", `required flag(s) "reason" not set`},
		"no cause":         {"tenants suspend acme --reason x --confirm acme", `"cause" not set`},
		"nothing to do":    {"tenants update acme", "nothing to change"},
		"no value":         {"config set acme notes", "pass either --set or --file"},
		"both":             {"config set acme notes --set a=1 --file x", "pass either --set or --file"},
		"no path":          {"config set acme notes --set =1", "is not path=value"},
		"no file":          {"config set acme notes --file /nonexistent", "no such file"},
		"file's mistake":   {"apps update notes --file -", `unknown field "colour"`},
		"migration's name": {"migrations register notes --dir " + odd, filepath.Join(odd, "foo.sql") + " is no migration: want four digits, an underscore and a name of a-z, 0-9 and _, such as 0001_notes.sql"},
		"confirm withdraw": {"migrations delete notes 0001_notes", "repeat with --confirm 0001_notes"},
		"other resource":   {"config explain platform notes x", "explain takes"},
		"logo's size":      {"brand set acme --logo " + big, "a logo has at most 98304"},
		"asset's kind":     {"brand assets put acme --file request_test.go", "is none of .png"},
		"logo's kind":      {"brand set acme --logo request_test.go", "is not a PNG image"},
		"method":           {"call TenantService/GetTenat", "did you mean TenantService/GetTenant?"},
		"data":             {`call TenantService/GetTenant -d {"nam":1}`, `unknown field "nam"`},
		"data's form":      {`call TenantService/GetTenant -d {`, "neither JSON nor YAML"},
		"audit's service":  {"audit list --service tenency", "did you mean tenancy?"},
		"shell":            {"completion bsh", "did you mean bash?"},
		"context":          {"contexts add x --service nope", "is not {tenancy|config|quota|gateway}=host:port,SPIFFE-URI"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &house{stdin: "colour: red\n", contexts: filepath.Join(t.TempDir(), "contexts.yaml")}
			got := h.run(t, split(tt.line)...)
			if got.code != 2 || !strings.Contains(got.err, tt.want) || strings.Count(got.err, "\n") != 1 {
				t.Errorf("status %d, said %q; want 2 and one line with %q", got.code, got.err, tt.want)
			}
			if calls := h.calls(); len(calls) > 0 {
				t.Errorf("sent %v", calls)
			}
		})
	}
}

// split splits a line as a shell does: quotes keep words together.
func split(line string) []string {
	var words []string
	var word strings.Builder
	quote, open := rune(0), false
	for _, r := range line + " " {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"' && !strings.Contains(word.String(), "{")):
			quote, open = r, true
		case quote == 0 && r == ' ':
			if open || word.Len() > 0 {
				words = append(words, word.String())
			}
			word.Reset()
			open = false
		default:
			word.WriteRune(r)
		}
	}
	return words
}

// A number that is missing cannot be filled later, and whoever registers is told so.
func TestGapsInMigrationsAreSaid(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"0001_a.sql", "0002_b.sql", "0002_c.sql", "0005_d.sql"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("SELECT 1"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const said = "there is no 0003 between 0002_c and 0005_d; it could not be added later\n"
	got := (&house{}).run(t, "migrations", "register", "notes", "--dir", dir, "-o", "name")
	if got.code != 0 || got.err != said {
		t.Errorf("got %+v, want %q", got, said)
	}
}
