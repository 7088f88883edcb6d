package system

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/durationpb"

	notesv1 "github.com/rowhouse-platform/rowhouse/gen/notes/v1"
	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	_ "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1" // for its descriptors
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	_ "github.com/rowhouse-platform/rowhouse/gen/rowhouse/gateway/v1" // for its descriptors
	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/rule"
)

// neighbours are two tenants of a house, and what one of them has.
type neighbours struct {
	h    *house
	a, b string                     // the tenants' ids
	asA  notesv1.NotesServiceClient // through the front door
	asB  notesv1.NotesServiceClient
	name string // of a note of A's
}

const ofA = "the note of tenant A"

// errCrossed is what a case says when B reached what is A's.
var errCrossed = errors.New("crossed into another tenant")

// crossings hold one case for each RPC that acts for a tenant: B tries to reach what is A's.
// A case returns errCrossed when it did, and another error when it shows nothing.
var crossings = map[string]func(context.Context, *testing.T, neighbours) error{
	"/notes.v1.NotesService/ListNotes": func(ctx context.Context, _ *testing.T, n neighbours) error {
		list, err := n.asB.ListNotes(ctx, &notesv1.ListNotesRequest{PageSize: 1000})
		return crossed(err, strings.Contains(list.String(), ofA))
	},
	"/notes.v1.NotesService/GetNote": func(ctx context.Context, _ *testing.T, n neighbours) error {
		_, err := n.asB.GetNote(ctx, &notesv1.GetNoteRequest{Name: n.name})
		return absent(err)
	},
	"/notes.v1.NotesService/CreateNote": func(ctx context.Context, _ *testing.T, n neighbours) error {
		id := strings.TrimPrefix(n.name, "notes/") // the id of A's note, as request_id
		made, err := n.asB.CreateNote(ctx, &notesv1.CreateNoteRequest{Note: &notesv1.Note{Title: "of B"}, RequestId: id})
		if err != nil || made.GetNote().GetTitle() != "of B" {
			return crossed(err, true)
		}
		list, err := n.asA.ListNotes(ctx, &notesv1.ListNotesRequest{PageSize: 1000})
		return crossed(err, strings.Contains(list.String(), "of B"))
	},
	"/notes.v1.NotesService/UpdateNote": func(ctx context.Context, _ *testing.T, n neighbours) error {
		_, err := n.asB.UpdateNote(ctx, &notesv1.UpdateNoteRequest{Note: &notesv1.Note{Name: n.name, Title: ofA + ", changed by B"}})
		return errors.Join(absent(err), n.unharmed(ctx))
	},
	"/notes.v1.NotesService/DeleteNote": func(ctx context.Context, _ *testing.T, n neighbours) error {
		_, err := n.asB.DeleteNote(ctx, &notesv1.DeleteNoteRequest{Name: n.name})
		return errors.Join(absent(err), n.unharmed(ctx))
	},
	"/notes.v1.NotesService/WatchNotes": func(ctx context.Context, _ *testing.T, n neighbours) error {
		ctx, cancel := context.WithTimeout(ctx, settle)
		defer cancel()
		stream, err := n.asB.WatchNotes(ctx, &notesv1.WatchNotesRequest{})
		if err != nil {
			return err
		}
		const last = "the last of B, for the watch"
		for _, title := range []string{"of B", last} { // so that the last comes after A's only note, wherever it is seen
			if _, err := n.asB.CreateNote(ctx, &notesv1.CreateNoteRequest{Note: &notesv1.Note{Title: title}}); err != nil {
				return err
			}
		}
		for {
			m, err := stream.Recv()
			if err != nil || strings.Contains(m.GetNote().GetTitle(), ofA) {
				return crossed(err, true)
			}
			if m.GetNote().GetTitle() == last {
				return nil
			}
		}
	},
	"/notes.v1.ImportService/AddImportRows": crossAddedRows,
	"/notes.v1.ImportService/StartImport":   crossStart,
	"/notes.v1.ImportService/ListImports":   crossList,
	"/notes.v1.ImportService/GetImport": crossImport(func(ctx context.Context, c notesv1.ImportServiceClient, name string) error {
		_, err := c.GetImport(ctx, &notesv1.GetImportRequest{Name: name})
		return err
	}),
	"/notes.v1.ImportService/CancelImport": crossImport(func(ctx context.Context, c notesv1.ImportServiceClient, name string) error {
		_, err := c.CancelImport(ctx, &notesv1.CancelImportRequest{Name: name})
		return err
	}),
	"/notes.v1.ImportService/RetryImport": crossImport(func(ctx context.Context, c notesv1.ImportServiceClient, name string) error {
		_, err := c.RetryImport(ctx, &notesv1.RetryImportRequest{Name: name})
		return err
	}),
	"/rowhouse.config.v1.SettingsService/GetSettings": func(ctx context.Context, t *testing.T, n neighbours) error {
		const mark = "A has this name alone"
		_, err := configv1.NewDocumentServiceClient(n.h.operator(t, "config")).UpdateDocument(ctx, &configv1.UpdateDocumentRequest{
			Document: &configv1.Document{Name: "tenants/" + n.a + "/config/brand", Content: `{"name":"` + mark + `"}`}, AllowMissing: true, Reason: "a test of isolation",
		})
		if err != nil {
			return err
		}
		settings := configv1.NewSettingsServiceClient(n.h.as(t, app, "config"))
		ask := func(host string) (string, error) {
			got, err := settings.GetSettings(presenting(ctx, n.h.steal(t, host)), &configv1.GetSettingsRequest{Namespace: "brand", Provenance: true})
			return got.String(), err
		}
		return n.contrast(ctx, ask, mark)
	},
	"/rowhouse.config.v1.SettingsService/UpdateSettings": func(ctx context.Context, t *testing.T, n neighbours) error {
		const mark = "A has set this for itself"
		namespace := "own-" + n.a
		_, err := configv1.NewNamespaceServiceClient(n.h.operator(t, "config")).CreateNamespace(ctx, &configv1.CreateNamespaceRequest{
			NamespaceId: namespace, Namespace: &configv1.Namespace{Schema: `{"properties":{"title":{"x-tenant-editable":true}}}`},
		})
		if err != nil {
			return err
		}
		settings := configv1.NewSettingsServiceClient(n.h.as(t, app, "config"))
		if err := poll(ctx, settle, func() error { // config follows tenancy: a moment
			_, err := settings.UpdateSettings(presenting(ctx, n.h.steal(t, app+"."+n.a+".localhost")), &configv1.UpdateSettingsRequest{
				Namespace: namespace, Content: `{"title":"` + mark + `"}`,
			})
			return err
		}); err != nil {
			return err
		}
		ask := func(host string) (string, error) {
			got, err := settings.GetSettings(presenting(ctx, n.h.steal(t, host)), &configv1.GetSettingsRequest{Namespace: namespace, Provenance: true})
			return got.String(), err
		}
		return n.contrast(ctx, ask, mark)
	},
	readSecret: func(ctx context.Context, t *testing.T, n neighbours) error {
		const mark = "a secret of A alone"
		if err := errors.Join(n.keep(ctx, t, n.a, mark), n.keep(ctx, t, n.b, "of B")); err != nil {
			return err
		}
		settings := configv1.NewSettingsServiceClient(n.h.as(t, app, "config"))
		ask := func(host string) (string, error) {
			got, err := settings.ReadSecret(presenting(ctx, n.h.steal(t, host)), &configv1.ReadSecretRequest{Namespace: app, Pointer: "/key"})
			return string(got.GetValue()), err
		}
		return n.contrast(ctx, ask, mark)
	},
	"/rowhouse.quota.v1.UsageService/ListLimitUsage": func(ctx context.Context, t *testing.T, n neighbours) error {
		const mark = 54321
		_, err := quotav1.NewLimitServiceClient(n.h.operator(t, "quota")).UpdateLimit(ctx, &quotav1.UpdateLimitRequest{
			Limit: &quotav1.Limit{Name: "tenants/" + n.a + "/limits/requests", Tokens: mark, Period: durationpb.New(60e9), Burst: mark}, AllowMissing: true,
		})
		if err != nil {
			return err
		}
		usage := quotav1.NewUsageServiceClient(n.h.as(t, app, "quota"))
		ask := func(host string) (string, error) {
			got, err := usage.ListLimitUsage(presenting(ctx, n.h.steal(t, host)), &quotav1.ListLimitUsageRequest{})
			return got.String(), err
		}
		return n.contrast(ctx, ask, strconv.Itoa(mark))
	},
	"/rowhouse.quota.v1.ReservationService/Reserve":          crossReserve,
	"/rowhouse.quota.v1.ReservationService/Commit":           crossCommit,
	"/rowhouse.quota.v1.ReservationService/Release":          crossRelease,
	"/rowhouse.quota.v1.ReservationService/ListQuotaUsage":   crossQuotaUsage,
	"/rowhouse.quota.v1.EntitlementService/ListEntitlements": crossEntitlements,
	"/" + meterService + "/RecordUsage":                      recordsApart,
	"/" + meterService + "/QueryUsage":                       toldApart(neighbours.used),
	"/" + meterService + "/ExportUsage":                      toldApart(neighbours.exported),
	"/rowhouse.tenancy.v1.ContextRenewalService/RefreshContext": func(ctx context.Context, t *testing.T, n neighbours) error {
		notes := notesv1.NewNotesServiceClient(n.h.as(t, "gateway", app))
		ofB, ofAs := n.h.steal(t, app+"."+n.b+".localhost"), n.h.steal(t, app+"."+n.a+".localhost")
		const uid, end = 13, 29 // where the payload has the tenant's uid
		var errs []error
		for _, service := range []string{"tenancy", "gateway"} {
			fresh, err := n.h.refresh(t, app, service, ofB)
			if err != nil {
				return err
			}
			list, err := notes.ListNotes(presenting(ctx, fresh), &notesv1.ListNotesRequest{PageSize: 1000})
			errs = append(errs, crossed(err, strings.Contains(list.String(), ofA)))
			for _, token := range []string{fresh, ofB} {
				_, err := n.h.refresh(t, app, service, token[:uid]+ofAs[uid:end]+token[end:])
				if got := verdict(err); got != "Unauthenticated CONTEXT_INVALID" {
					errs = append(errs, fmt.Errorf("%w: with A's uid in B's context, %s says %s", errCrossed, service, got))
				}
			}
		}
		return errors.Join(errs...)
	},
	mintContext: func(ctx context.Context, t *testing.T, n neighbours) error {
		notes, contexts := notesv1.NewNotesServiceClient(n.h.as(t, "gateway", app)), tenancyv1.NewContextServiceClient(n.h.as(t, app, "tenancy"))
		ofB, ofAs := n.h.steal(t, app+"."+n.b+".localhost"), n.h.steal(t, app+"."+n.a+".localhost")
		mint := func(token string) (string, error) {
			res, err := contexts.MintContext(ctx, &tenancyv1.MintContextRequest{TenantContext: []byte(token), JobKind: "import"})
			return string(res.GetTenantContext()), err
		}
		fresh, err := mint(ofB)
		if err != nil {
			return err
		}
		list, err := notes.ListNotes(presenting(ctx, fresh), &notesv1.ListNotesRequest{PageSize: 1000})
		errs := []error{crossed(err, strings.Contains(list.String(), ofA))}
		const uid, end = 13, 29 // where the payload has the tenant's uid
		for token, want := range map[string]string{
			ofB[:uid] + ofAs[uid:end] + ofB[end:]:     "Unauthenticated CONTEXT_INVALID",
			fresh[:uid] + ofAs[uid:end] + fresh[end:]: "Unauthenticated CONTEXT_INVALID",
			fresh: "PermissionDenied PRESENTER_REFUSED", // a job asks for no jobs
		} {
			if _, err := mint(token); verdict(err) != want {
				errs = append(errs, fmt.Errorf("%w: %s, want %s", errCrossed, verdict(err), want))
			}
		}
		return errors.Join(errs...)
	},
}

const mintContext = "/rowhouse.tenancy.v1.ContextService/MintContext"

const readSecret = "/rowhouse.config.v1.SettingsService/ReadSecret"

// keep gives a tenant a secret that the app reads at "/key" of its own namespace.
func (n neighbours) keep(ctx context.Context, t *testing.T, tenant, value string) error {
	admin := n.h.operator(t, "config")
	// `rowhouse dev` makes the app's namespace, before this or after it.
	namespaces := configv1.NewNamespaceServiceClient(admin)
	namespace := &configv1.Namespace{Name: "namespaces/" + app, Schema: `{"properties":{"key":{"type":"string","x-secret":true}}}`}
	_, err := namespaces.CreateNamespace(ctx, &configv1.CreateNamespaceRequest{NamespaceId: app, Namespace: namespace})
	if verdict(err) == "AlreadyExists RESOURCE_EXISTS" {
		_, err = namespaces.UpdateNamespace(ctx, &configv1.UpdateNamespaceRequest{Namespace: namespace})
	}
	if err != nil {
		return err
	}
	document := "tenants/" + tenant + "/config/" + app
	put, err := configv1.NewSecretServiceClient(admin).PutSecret(ctx, &configv1.PutSecretRequest{Name: document + "/secrets/mine", Value: []byte(value)})
	if err != nil {
		return err
	}
	_, err = configv1.NewDocumentServiceClient(admin).UpdateDocument(ctx, &configv1.UpdateDocumentRequest{
		Document: &configv1.Document{
			Name: document, Content: fmt.Sprintf(`{"key":{"$secret":"mine","version":%d}}`, put.GetSecret().GetVersions()[0].GetVersion()),
		}, AllowMissing: true,
	})
	return err
}

func crossed(err error, yes bool) error {
	if err == nil && yes {
		return errCrossed
	}
	return err
}

// absent wants the answer that a note that never was would get.
func absent(err error) error {
	switch got := verdict(err); got {
	case "NotFound RESOURCE_NOT_FOUND":
		return nil
	case "OK":
		return errCrossed
	default:
		return fmt.Errorf("%s, want NotFound: %w", got, err)
	}
}

// unharmed wants A's note as it was.
func (n neighbours) unharmed(ctx context.Context) error {
	got, err := n.asA.GetNote(ctx, &notesv1.GetNoteRequest{Name: n.name})
	if err != nil || got.GetNote().GetTitle() != ofA {
		return fmt.Errorf("%w: A's note is now %v, %w", errCrossed, got, err)
	}
	return nil
}

// contrast wants A to see the mark and B not to.
func (n neighbours) contrast(ctx context.Context, ask func(host string) (string, error), mark string) error {
	host := func(id string) string { return app + "." + id + ".localhost" }
	if err := poll(ctx, settle, func() error { // services follow tenancy: a moment
		got, err := ask(host(n.a))
		if err == nil && !strings.Contains(got, mark) {
			err = fmt.Errorf("A does not see its own: %s", got)
		}
		return err
	}); err != nil {
		return err
	}
	got, err := ask(host(n.b))
	return crossed(err, strings.Contains(got, mark))
}

// ours are all services of the repository's protos.
func ours() (all []protoreflect.ServiceDescriptor) {
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		if name := string(file.Package()); strings.HasPrefix(name, "rowhouse.") || strings.HasPrefix(name, "notes.") {
			for i := range file.Services().Len() {
				all = append(all, file.Services().Get(i))
			}
		}
		return true
	})
	return all
}

// Every RPC declares its rule, and every one that acts for a tenant has a case above.
func TestEveryDataRPCHasACrossTenantCase(t *testing.T) {
	t.Parallel()
	services, methods := ours(), 0
	unused := maps.Clone(crossings)
	for _, service := range services {
		if err := rule.CheckService(service); err != nil {
			t.Error(err)
		}
		for i := range service.Methods().Len() {
			m := service.Methods().Get(i)
			methods++
			full := fmt.Sprintf("/%s/%s", service.FullName(), m.Name())
			takesContext := m.Input().Fields().ByName("tenant_context") != nil
			if rule.RuleOf(m).GetPlane() != apiv1.Plane_PLANE_DATA && !takesContext {
				continue
			}
			if crossings[full] == nil {
				t.Errorf("%s has no cross-tenant case in crossings", full)
			}
			delete(unused, full)
			if name := string(service.FullName()); !takesContext && targets[name] == nil {
				t.Errorf("%s has no target for the generated attacks", name)
			}
		}
	}
	if len(unused) > 0 {
		t.Errorf("cases for RPCs that are not: %v", slices.Collect(maps.Keys(unused)))
	}
	if len(services) < 17 || methods < 60 {
		t.Errorf("only %d services with %d methods were found", len(services), methods)
	}
}

// meet makes the two tenants of a case.
func meet(t *testing.T, h *house, model tenancyv1.IsolationModel, a, b string) neighbours {
	t.Helper()
	hostA, hostB := h.tenantIn(t, a, model), h.tenantIn(t, b, model)
	return neighbours{
		h: h, a: a, b: b, name: h.write(t, hostA, ofA),
		asA: notesv1.NewNotesServiceClient(h.front(t, hostA, false)), asB: notesv1.NewNotesServiceClient(h.front(t, hostB, false)),
	}
}

// No RPC leads from one tenant to another's. Those of the app are tried wherever its tenants live.
func TestNoRPCCrossesTenants(t *testing.T) {
	t.Parallel()
	h := hijacked(t)
	for i, full := range slices.Sorted(maps.Keys(crossings)) {
		t.Run(full, func(t *testing.T) {
			t.Parallel()
			try := func(t *testing.T, model tenancyv1.IsolationModel, name string) {
				n := meet(t, h, model, fmt.Sprintf("cross-a-%d-%s", i, name), fmt.Sprintf("cross-b-%d-%s", i, name))
				if err := crossings[full](t.Context(), t, n); err != nil {
					t.Error(err)
				}
			}
			if strings.HasPrefix(full, "/notes.") {
				eachModel(t, try)
			} else {
				try(t, inShared, "shared")
			}
		})
	}
}

// leaks give tenant B what is written at the layer of another tenant: what B would see if the look-up of
// config or quota did not ask whose layer it is.
var leaks = map[string]struct{ database, table, also string }{
	"/rowhouse.quota.v1.ReservationService/Reserve":          {"rowhouse_quota", "quota.quota", "NEW.uid := gen_random_uuid();"},
	"/rowhouse.quota.v1.ReservationService/Commit":           {"rowhouse_quota", "quota.reservation", ""},
	"/rowhouse.quota.v1.ReservationService/Release":          {"rowhouse_quota", "quota.reservation", ""},
	"/rowhouse.quota.v1.ReservationService/ListQuotaUsage":   {"rowhouse_quota", "quota.quota", "NEW.uid := gen_random_uuid();"},
	"/rowhouse.quota.v1.EntitlementService/ListEntitlements": {"rowhouse_quota", "quota.entitlement", "NEW.uid := gen_random_uuid();"},
	"/rowhouse.config.v1.SettingsService/GetSettings":        {"rowhouse_config", "settings.document", ""},
	"/rowhouse.config.v1.SettingsService/UpdateSettings":     {"rowhouse_config", "settings.document", ""},
	"/rowhouse.quota.v1.UsageService/ListLimitUsage":         {"rowhouse_quota", "meter.rate_limit", "NEW.uid := gen_random_uuid();"},
	"/" + meterService + "/RecordUsage":                      {"rowhouse_quota", "usage.rollup", leakUsage},
	"/" + meterService + "/QueryUsage":                       {"rowhouse_quota", "usage.rollup", leakUsage},
	"/" + meterService + "/ExportUsage":                      {"rowhouse_quota", "usage.rollup", leakUsage},
}

// leak has the service behind an RPC answer B from A's layer.
func (n neighbours) leak(t *testing.T, full string) {
	t.Helper()
	at := leaks[full]
	b, err := tenancyv1.NewTenantServiceClient(n.h.operator(t, "tenancy")).GetTenant(t.Context(), &tenancyv1.GetTenantRequest{Name: "tenants/" + n.b})
	if err != nil {
		t.Fatal(err)
	}
	body := `IF NEW.layer = 'tenant' AND NEW.layer_id <> '%[1]s' THEN
				NEW.layer_id := '%[1]s'; %[3]s
				INSERT INTO %[2]s SELECT NEW.*;
			END IF;`
	switch at.table {
	case "quota.reservation":
		body = copiedReservation
	case "usage.rollup":
		body = at.also
	}
	sql := fmt.Sprintf(`CREATE OR REPLACE FUNCTION public.leak_%[4]s() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
			`+body+`
			RETURN NULL;
		END $$;
		CREATE OR REPLACE TRIGGER leak AFTER INSERT ON %[2]s FOR EACH ROW EXECUTE FUNCTION public.leak_%[4]s()`,
		b.GetTenant().GetUid(), at.table, at.also, strings.ReplaceAll(at.table, ".", "_"))
	if _, err := n.h.superuser(t, at.database).Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

// Each case finds that nothing keeps tenants apart any more: of the app's a table that lost its row security, of config's
// and quota's an answer from another tenant's layer. The renewal of contexts, and the making of those for jobs, have no look-up
// that could lose its filter; their cases change the bytes that are signed. Nor is a secret to be had by one: what is sealed for A opens for nobody else, which
// services/config TestNoTenantReadsAnothersSecret shows.
func TestCasesFindAMissingFilter(t *testing.T) {
	t.Parallel()
	h := start(t, plan{bin: hostile})
	admin := h.superuser(t, app)
	for _, table := range []string{"note", "job", "import_part"} {
		if _, err := admin.Exec(t.Context(), "ALTER TABLE app."+table+" DISABLE ROW LEVEL SECURITY"); err != nil {
			t.Fatal(err)
		}
	}
	const signed = "/rowhouse.tenancy.v1.ContextRenewalService/RefreshContext"
	for i, full := range slices.Sorted(maps.Keys(crossings)) {
		if full == signed || full == mintContext || full == readSecret {
			continue
		}
		n := meet(t, h, inShared, fmt.Sprintf("bare-a-%d", i), fmt.Sprintf("bare-b-%d", i))
		if !strings.HasPrefix(full, "/notes.") {
			n.leak(t, full)
		}
		if err := crossings[full](t.Context(), t, n); !errors.Is(err, errCrossed) {
			t.Errorf("%s does not find that the filter is gone: %v", full, err)
		}
		if leaks[full].table != "" && leaks[full].table != "quota.reservation" { // whose methods the generated attacks skip
			n := meet(t, h, inShared, fmt.Sprintf("found-a-%d", i), fmt.Sprintf("found-b-%d", i))
			n.leak(t, full)
			found(t, strings.Split(full, "/")[1], n)
		}
	}
}
