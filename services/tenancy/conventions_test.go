package tenancy_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/rule"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
)

// bad is one call that must be refused.
type bad struct {
	what   string
	call   func(context.Context) error
	code   codes.Code
	reason string
}

// call adapts a method of a client.
func call[Q, S any](method func(context.Context, Q, ...grpc.CallOption) (S, error), req Q) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := method(ctx, req)
		return err
	}
}

func TestBadInput(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.furnish()
	r.tenant(a, "acme")
	r.tenant(a, "globex")
	long := strings.Repeat("x", 300)
	app := "apps/" + r.app
	_, err := a.CreateDomain(t.Context(), &tenancyv1.CreateDomainRequest{Parent: "tenants/acme", DomainId: "acme.localhost", Domain: &tenancyv1.Domain{App: app}})
	r.must(err)
	const arg, missing, pre = codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition
	abuse := tenancyv1.SuspensionCause_SUSPENSION_CAUSE_ABUSE
	acme := "tenants/acme"
	domain := acme + "/domains/acme.localhost"
	operation := "operations/01890a5d-ac96-774b-bcce-b302099a8057"
	claim := func(parent, host, app string) func(context.Context) error {
		return call(a.CreateDomain, &tenancyv1.CreateDomainRequest{Parent: parent, DomainId: host, Domain: &tenancyv1.Domain{App: app}})
	}
	register := func(parent string, pairs ...string) func(context.Context) error {
		req := &tenancyv1.RegisterMigrationsRequest{Parent: parent}
		for i := 0; i < len(pairs); i += 2 {
			req.Migrations = append(req.Migrations, &tenancyv1.MigrationSource{MigrationId: pairs[i], Statements: pairs[i+1]})
		}
		return call(a.RegisterMigrations, req)
	}
	r.must(register(app, "0005_a", "SELECT 1")(t.Context()))
	for _, b := range []bad{
		{"get unknown", call(a.GetTenant, &tenancyv1.GetTenantRequest{Name: "tenants/none"}), missing, "RESOURCE_NOT_FOUND"},
		{"get bad id", call(a.GetTenant, &tenancyv1.GetTenantRequest{Name: "tenants/Acme"}), arg, "INVALID_FIELD"},
		{"get slash", call(a.GetTenant, &tenancyv1.GetTenantRequest{Name: "tenants/acme/x"}), arg, "INVALID_FIELD"},
		{"lookup nothing", call(a.LookupTenant, &tenancyv1.LookupTenantRequest{Key: "name:acme"}), arg, "INVALID_FIELD"},
		{"list bad filter", call(a.ListTenants, &tenancyv1.ListTenantsRequest{Filter: "name = 'x'"}), arg, "FILTER_INVALID"},
		{"list injected filter", call(a.ListTenants, &tenancyv1.ListTenantsRequest{Filter: `plan = "plans/free" OR 1=1`}), arg, "FILTER_INVALID"},
		{"list doubled term", call(a.ListTenants, &tenancyv1.ListTenantsRequest{Filter: `state = ACTIVE AND state = DELETED`}), arg, "FILTER_INVALID"},
		{"list bad order", call(a.ListTenants, &tenancyv1.ListTenantsRequest{OrderBy: "uid"}), arg, "INVALID_FIELD"},
		{"list negative page", call(a.ListTenants, &tenancyv1.ListTenantsRequest{PageSize: -1}), arg, "INVALID_FIELD"},
		{"list forged token", call(a.ListTenants, &tenancyv1.ListTenantsRequest{PageToken: "AAAA"}), arg, "PAGE_TOKEN_INVALID"},
		{"create reserved", call(a.CreateTenant, &tenancyv1.CreateTenantRequest{TenantId: "www"}), arg, "TENANT_ID_RESERVED"},
		{"create bad id", call(a.CreateTenant, &tenancyv1.CreateTenantRequest{TenantId: "a--b"}), arg, "INVALID_FIELD"},
		{"create short id", call(a.CreateTenant, &tenancyv1.CreateTenantRequest{TenantId: "ab"}), arg, "INVALID_FIELD"},
		{"create taken", call(a.CreateTenant, &tenancyv1.CreateTenantRequest{TenantId: "acme"}), codes.AlreadyExists, "TENANT_ID_TAKEN"},
		{"create long name", call(a.CreateTenant, &tenancyv1.CreateTenantRequest{TenantId: "abc", Tenant: &tenancyv1.Tenant{DisplayName: long}}), arg, "INVALID_FIELD"},
		{"create bad request id", call(a.CreateTenant, &tenancyv1.CreateTenantRequest{TenantId: "abc", RequestId: "x"}), arg, "INVALID_FIELD"},
		{"create unknown plan", call(a.CreateTenant, &tenancyv1.CreateTenantRequest{TenantId: "abc", Tenant: &tenancyv1.Tenant{Plan: "plans/none"}}), missing, "RESOURCE_NOT_FOUND"},
		{"create unknown cell", call(a.CreateTenant, &tenancyv1.CreateTenantRequest{TenantId: "abc", Tenant: &tenancyv1.Tenant{Placement: &tenancyv1.TenantPlacement{Cell: "cells/none"}}}), missing, "RESOURCE_NOT_FOUND"},
		{"create unallowed model", call(a.CreateTenant, &tenancyv1.CreateTenantRequest{TenantId: "abc", Tenant: &tenancyv1.Tenant{Placement: &tenancyv1.TenantPlacement{Model: tenancyv1.IsolationModel_ISOLATION_MODEL_SCHEMA}}}), pre, "MODEL_NOT_ALLOWED"},
		{"create too large", call(a.CreateTenant, &tenancyv1.CreateTenantRequest{TenantId: "abc", Tenant: &tenancyv1.Tenant{DisplayName: strings.Repeat("x", 1<<20)}}), arg, "TOO_LARGE"},
		{"update unknown", call(a.UpdateTenant, &tenancyv1.UpdateTenantRequest{Tenant: &tenancyv1.Tenant{Name: "tenants/none", DisplayName: "x"}}), missing, "RESOURCE_NOT_FOUND"},
		{"update nameless", call(a.UpdateTenant, &tenancyv1.UpdateTenantRequest{Tenant: &tenancyv1.Tenant{DisplayName: "x"}}), arg, "INVALID_FIELD"},
		{"update nothing", call(a.UpdateTenant, &tenancyv1.UpdateTenantRequest{}), arg, "INVALID_FIELD"},
		{"create below nobody", call(a.CreateTenant, &tenancyv1.CreateTenantRequest{TenantId: "abc", Tenant: &tenancyv1.Tenant{Parent: "tenants/none"}}), missing, "RESOURCE_NOT_FOUND"},
		{"create below a bad name", call(a.CreateTenant, &tenancyv1.CreateTenantRequest{TenantId: "abc", Tenant: &tenancyv1.Tenant{Parent: "acme"}}), arg, "INVALID_FIELD"},
		{"create below itself", call(a.CreateTenant, &tenancyv1.CreateTenantRequest{TenantId: "abc", Tenant: &tenancyv1.Tenant{Parent: "tenants/abc"}}), missing, "RESOURCE_NOT_FOUND"},
		{"update to its own parent", call(a.UpdateTenant, &tenancyv1.UpdateTenantRequest{Tenant: &tenancyv1.Tenant{Name: acme, Parent: acme}}), pre, "PARENT_INVALID"},
		{"list children of a bad name", call(a.ListTenants, &tenancyv1.ListTenantsRequest{Filter: "parent = acme"}), arg, "FILTER_INVALID"},
		{"suspend unknown", call(a.SuspendTenant, &tenancyv1.SuspendTenantRequest{Name: "tenants/none", Cause: abuse, Reason: why}), missing, "RESOURCE_NOT_FOUND"},
		{"suspend causeless", call(a.SuspendTenant, &tenancyv1.SuspendTenantRequest{Name: acme, Reason: why}), arg, "INVALID_FIELD"},
		{"suspend unknown cause", call(a.SuspendTenant, &tenancyv1.SuspendTenantRequest{Name: acme, Cause: 77, Reason: why}), arg, "INVALID_FIELD"},
		{"suspend without reason", call(a.SuspendTenant, &tenancyv1.SuspendTenantRequest{Name: acme, Cause: abuse}), arg, "REASON_REQUIRED"},
		{"suspend stale", call(a.SuspendTenant, &tenancyv1.SuspendTenantRequest{Name: acme, Cause: abuse, Reason: why, Etag: `"x"`}), codes.Aborted, "ETAG_MISMATCH"},
		{"resume active", call(a.ResumeTenant, &tenancyv1.ResumeTenantRequest{Name: acme, Cause: abuse}), pre, "WRONG_STATE"},
		{"delete unknown", call(a.DeleteTenant, &tenancyv1.DeleteTenantRequest{Name: "tenants/none", Reason: why}), missing, "RESOURCE_NOT_FOUND"},
		{"delete stale", call(a.DeleteTenant, &tenancyv1.DeleteTenantRequest{Name: acme, Reason: why, Etag: `"x"`}), codes.Aborted, "ETAG_MISMATCH"},
		{"suspend with a short reason", call(a.SuspendTenant, &tenancyv1.SuspendTenantRequest{Name: acme, Cause: abuse, Reason: "too short"}), arg, "INVALID_FIELD"},
		{"delete with a short reason", call(a.DeleteTenant, &tenancyv1.DeleteTenantRequest{Name: acme, Reason: "too short"}), arg, "INVALID_FIELD"},
		{"delete with a blank reason", call(a.DeleteTenant, &tenancyv1.DeleteTenantRequest{Name: acme, Reason: "            "}), arg, "REASON_REQUIRED"},
		{"revoke with a short reason", call(a.RevokeContextKey, &tenancyv1.RevokeContextKeyRequest{Name: "contextKeys/0011223344556677", Reason: "too short"}), arg, "INVALID_FIELD"},
		{"delete without reason", call(a.DeleteTenant, &tenancyv1.DeleteTenantRequest{Name: acme}), arg, "REASON_REQUIRED"},
		{"undelete live", call(a.UndeleteTenant, &tenancyv1.UndeleteTenantRequest{Name: acme}), codes.AlreadyExists, "NOT_DELETED"},

		{"get no plan", call(a.GetPlan, &tenancyv1.GetPlanRequest{Name: "plans/none"}), missing, "RESOURCE_NOT_FOUND"},
		{"get bad plan", call(a.GetPlan, &tenancyv1.GetPlanRequest{Name: "free"}), arg, "INVALID_FIELD"},
		{"list plans", call(a.ListPlans, &tenancyv1.ListPlansRequest{PageToken: "AAAA"}), arg, "PAGE_TOKEN_INVALID"},
		{"create plan twice", call(a.CreatePlan, &tenancyv1.CreatePlanRequest{PlanId: "free"}), codes.AlreadyExists, "RESOURCE_EXISTS"},
		{"create long plan", call(a.CreatePlan, &tenancyv1.CreatePlanRequest{PlanId: strings.Repeat("a", 21)}), arg, "INVALID_FIELD"},
		{"create odd plan", call(a.CreatePlan, &tenancyv1.CreatePlanRequest{PlanId: "odd", Plan: &tenancyv1.Plan{StatementTimeout: durationpb.New(time.Hour)}}), arg, "INVALID_FIELD"},
		{"create torn plan", call(a.CreatePlan, &tenancyv1.CreatePlanRequest{PlanId: "odd", Plan: &tenancyv1.Plan{DefaultModel: tenancyv1.IsolationModel_ISOLATION_MODEL_SCHEMA}}), arg, "INVALID_FIELD"},
		{"update no plan", call(a.UpdatePlan, &tenancyv1.UpdatePlanRequest{Plan: &tenancyv1.Plan{Name: "plans/none", DisplayName: "x"}}), missing, "RESOURCE_NOT_FOUND"},
		{"update stale plan", call(a.UpdatePlan, &tenancyv1.UpdatePlanRequest{Plan: &tenancyv1.Plan{Name: "plans/free", DisplayName: "x", Etag: `"x"`}}), codes.Aborted, "ETAG_MISMATCH"},
		{"update bad mask", call(a.UpdatePlan, &tenancyv1.UpdatePlanRequest{Plan: &tenancyv1.Plan{Name: "plans/free"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"x"}}}), arg, "FIELD_MASK_INVALID"},
		{"delete no plan", call(a.DeletePlan, &tenancyv1.DeletePlanRequest{Name: "plans/none"}), missing, "RESOURCE_NOT_FOUND"},
		{"delete stale plan", call(a.DeletePlan, &tenancyv1.DeletePlanRequest{Name: "plans/business", Etag: `"x"`}), codes.Aborted, "ETAG_MISMATCH"},

		{"get no cell", call(a.GetCell, &tenancyv1.GetCellRequest{Name: "cells/none"}), missing, "RESOURCE_NOT_FOUND"},
		{"list cells", call(a.ListCells, &tenancyv1.ListCellsRequest{PageToken: "AAAA"}), arg, "PAGE_TOKEN_INVALID"},
		{"create cell twice", call(a.CreateCell, &tenancyv1.CreateCellRequest{CellId: "cell-1", Cell: &tenancyv1.Cell{Region: "x", CredentialsRef: "secret://file/x"}}), codes.AlreadyExists, "RESOURCE_EXISTS"},
		{"create cell nowhere", call(a.CreateCell, &tenancyv1.CreateCellRequest{CellId: "cell-2", Cell: &tenancyv1.Cell{CredentialsRef: "secret://file/x"}}), arg, "INVALID_FIELD"},
		{"create cell with a DSN", call(a.CreateCell, &tenancyv1.CreateCellRequest{CellId: "cell-2", Cell: &tenancyv1.Cell{Region: "x", CredentialsRef: "postgres://u:p@h"}}), arg, "INVALID_FIELD"},
		{"create cell outside", call(a.CreateCell, &tenancyv1.CreateCellRequest{CellId: "cell-2", Cell: &tenancyv1.Cell{Region: "x", CredentialsRef: "secret://file/../../etc/passwd"}}), arg, "INVALID_FIELD"},
		{"move a cell", call(a.UpdateCell, &tenancyv1.UpdateCellRequest{Cell: &tenancyv1.Cell{Name: "cells/cell-1", Region: "mars"}}), arg, "IMMUTABLE_FIELD"},
		{"update no cell", call(a.UpdateCell, &tenancyv1.UpdateCellRequest{Cell: &tenancyv1.Cell{Name: "cells/none", Capacity: 5}}), missing, "RESOURCE_NOT_FOUND"},
		{"update stale cell", call(a.UpdateCell, &tenancyv1.UpdateCellRequest{Cell: &tenancyv1.Cell{Name: "cells/cell-1", Capacity: 5, Etag: `"x"`}}), codes.Aborted, "ETAG_MISMATCH"},

		{"get no app", call(a.GetApp, &tenancyv1.GetAppRequest{Name: "apps/none"}), missing, "RESOURCE_NOT_FOUND"},
		{"list apps", call(a.ListApps, &tenancyv1.ListAppsRequest{PageToken: "AAAA"}), arg, "PAGE_TOKEN_INVALID"},
		{"create app twice", call(a.CreateApp, &tenancyv1.CreateAppRequest{AppId: r.app}), codes.AlreadyExists, "RESOURCE_EXISTS"},
		{"create app in no cell", call(a.CreateApp, &tenancyv1.CreateAppRequest{AppId: "odd", App: &tenancyv1.App{Upstreams: []*tenancyv1.AppUpstream{{Cell: "cells/none", GrpcAddress: "h:1", SpiffeId: r.own.String()}}}}), missing, "RESOURCE_NOT_FOUND"},
		{"create app of nobody", call(a.CreateApp, &tenancyv1.CreateAppRequest{AppId: "odd", App: &tenancyv1.App{Upstreams: []*tenancyv1.AppUpstream{{Cell: "cells/cell-1", GrpcAddress: "h:1", SpiffeId: "spiffe://x/y"}}}}), arg, "INVALID_FIELD"},
		{"create app at no port", call(a.CreateApp, &tenancyv1.CreateAppRequest{AppId: "odd", App: &tenancyv1.App{Upstreams: []*tenancyv1.AppUpstream{{Cell: "cells/cell-1", GrpcAddress: "h", SpiffeId: r.own.String()}}}}), arg, "INVALID_FIELD"},
		{"create app on a bad host", call(a.CreateApp, &tenancyv1.CreateAppRequest{AppId: "odd", App: &tenancyv1.App{SharedHosts: []string{"a_b.com"}}}), arg, "INVALID_FIELD"},
		{"create app on a shared host", call(a.CreateApp, &tenancyv1.CreateAppRequest{AppId: "odd", App: &tenancyv1.App{SharedHosts: []string{"rowhouse.localhost"}}}), codes.AlreadyExists, "RESOURCE_EXISTS"},
		{"create app on a tenant's host", call(a.CreateApp, &tenancyv1.CreateAppRequest{AppId: "odd", App: &tenancyv1.App{SharedHosts: []string{"ACME.localhost"}}}), codes.AlreadyExists, "DOMAIN_TAKEN"},
		{"update no app", call(a.UpdateApp, &tenancyv1.UpdateAppRequest{App: &tenancyv1.App{Name: "apps/none", DisplayName: "x"}}), missing, "RESOURCE_NOT_FOUND"},
		{"update stale app", call(a.UpdateApp, &tenancyv1.UpdateAppRequest{App: &tenancyv1.App{Name: app, DisplayName: "x", Etag: `"x"`}}), codes.Aborted, "ETAG_MISMATCH"},
		{"delete used app", call(a.DeleteApp, &tenancyv1.DeleteAppRequest{Name: app}), pre, "APP_IN_USE"},
		{"delete no app", call(a.DeleteApp, &tenancyv1.DeleteAppRequest{Name: "apps/none"}), missing, "RESOURCE_NOT_FOUND"},

		{"get no migration", call(a.GetMigration, &tenancyv1.GetMigrationRequest{Name: app + "/migrations/0009_none"}), missing, "RESOURCE_NOT_FOUND"},
		{"get a bad migration", call(a.GetMigration, &tenancyv1.GetMigrationRequest{Name: app + "/migrations/notes"}), arg, "INVALID_FIELD"},
		{"list migrations of no app", call(a.ListMigrations, &tenancyv1.ListMigrationsRequest{Parent: "apps/none"}), missing, "RESOURCE_NOT_FOUND"},
		{"list migrations of all", call(a.ListMigrations, &tenancyv1.ListMigrationsRequest{Parent: "apps/-"}), arg, "INVALID_FIELD"},
		{"register for no app", register("apps/none", "0001_x", "SELECT 1"), missing, "RESOURCE_NOT_FOUND"},
		{"register nothing", register(app), arg, "INVALID_FIELD"},
		{"register a bad name", register(app, "one", "SELECT 1"), arg, "INVALID_FIELD"},
		{"register no statement", register(app, "0001_x", ""), arg, "INVALID_FIELD"},
		{"register out of order", register(app, "0007_x", "SELECT 1", "0006_x", "SELECT 1"), arg, "INVALID_FIELD"},
		{"register twice", register(app, "0006_x", "SELECT 1", "0006_x", "SELECT 1"), arg, "INVALID_FIELD"},
		{"register another text", register(app, "0005_a", "SELECT 2"), pre, "CHECKSUM_DRIFT"},
		{"register a NUL byte", register(app, "0006_x", "SELECT '\x00'"), arg, "INVALID_FIELD"},
		{"withdraw none", call(a.DeleteMigration, &tenancyv1.DeleteMigrationRequest{Name: app + "/migrations/0009_none"}), missing, "RESOURCE_NOT_FOUND"},
		{"withdraw of no app", call(a.DeleteMigration, &tenancyv1.DeleteMigrationRequest{Name: "apps/none/migrations/0005_a"}), missing, "RESOURCE_NOT_FOUND"},
		{"withdraw a bad name", call(a.DeleteMigration, &tenancyv1.DeleteMigrationRequest{Name: app + "/migrations/-"}), arg, "INVALID_FIELD"},
		{"withdraw a stale one", call(a.DeleteMigration, &tenancyv1.DeleteMigrationRequest{Name: app + "/migrations/0005_a", Etag: `"x"`}), codes.Aborted, "ETAG_MISMATCH"},
		{"register before", register(app, "0004_a", "SELECT 1", "0005_a", "SELECT 1"), pre, "MIGRATION_OUT_OF_ORDER"},

		{"get no domain", call(a.GetDomain, &tenancyv1.GetDomainRequest{Name: acme + "/domains/x.com"}), missing, "RESOURCE_NOT_FOUND"},
		{"get another's domain", call(a.GetDomain, &tenancyv1.GetDomainRequest{Name: "tenants/globex/domains/acme.localhost"}), missing, "RESOURCE_NOT_FOUND"},
		{"list domains of nobody", call(a.ListDomains, &tenancyv1.ListDomainsRequest{Parent: "tenants/none"}), missing, "RESOURCE_NOT_FOUND"},
		{"claim for nobody", claim("tenants/none", "x.com", app), missing, "RESOURCE_NOT_FOUND"},
		{"claim for all", claim("tenants/-", "x.com", app), arg, "INVALID_FIELD"},
		{"claim without app", claim(acme, "x.com", ""), arg, "INVALID_FIELD"},
		{"claim for no app", claim(acme, "x.com", "apps/none"), missing, "RESOURCE_NOT_FOUND"},
		{"claim an address", claim(acme, "127.0.0.1", app), arg, "DOMAIN_INVALID"},
		{"claim a suffix", claim(acme, "co.uk", app), arg, "DOMAIN_INVALID"},
		{"claim a zone", claim(acme, "localhost", app), arg, "DOMAIN_INVALID"},
		{"claim a bad name", claim(acme, "a_b.com", app), arg, "DOMAIN_INVALID"},
		{"claim a shared host", claim(acme, "rowhouse.localhost", app), arg, "DOMAIN_INVALID"},
		{"claim twice", claim(acme, "ACME.localhost.", app), codes.AlreadyExists, "RESOURCE_EXISTS"},
		{"claim another's", claim("tenants/globex", "acme.localhost", app), codes.AlreadyExists, "DOMAIN_TAKEN"},
		{"update no domain", call(a.UpdateDomain, &tenancyv1.UpdateDomainRequest{Domain: &tenancyv1.Domain{Name: acme + "/domains/x.com", App: app}}), missing, "RESOURCE_NOT_FOUND"},
		{"update stale domain", call(a.UpdateDomain, &tenancyv1.UpdateDomainRequest{Domain: &tenancyv1.Domain{Name: domain, App: app, Etag: `"x"`}}), codes.Aborted, "ETAG_MISMATCH"},
		{"update domain to no app", call(a.UpdateDomain, &tenancyv1.UpdateDomainRequest{Domain: &tenancyv1.Domain{Name: domain, App: "apps/none"}}), missing, "RESOURCE_NOT_FOUND"},
		{"verify active domain", call(a.VerifyDomain, &tenancyv1.VerifyDomainRequest{Name: domain, Reason: why}), pre, "WRONG_STATE"},
		{"verify with a short reason", call(a.VerifyDomain, &tenancyv1.VerifyDomainRequest{Name: domain, Reason: "too short"}), arg, "INVALID_FIELD"},
		{"verify without reason", call(a.VerifyDomain, &tenancyv1.VerifyDomainRequest{Name: domain}), arg, "REASON_REQUIRED"},
		{"delete another's domain", call(a.DeleteDomain, &tenancyv1.DeleteDomainRequest{Name: "tenants/globex/domains/acme.localhost"}), missing, "RESOURCE_NOT_FOUND"},
		{"delete stale domain", call(a.DeleteDomain, &tenancyv1.DeleteDomainRequest{Name: domain, Etag: `"x"`}), codes.Aborted, "ETAG_MISMATCH"},

		{"placement of nobody", call(a.GetPlacement, &tenancyv1.GetPlacementRequest{Name: "tenants/none/placement"}), missing, "RESOURCE_NOT_FOUND"},
		{"revoke no key", call(a.RevokeContextKey, &tenancyv1.RevokeContextKeyRequest{Name: "contextKeys/0123456789abcdef", Reason: why}), missing, "RESOURCE_NOT_FOUND"},
		{"revoke a bad key", call(a.RevokeContextKey, &tenancyv1.RevokeContextKeyRequest{Name: "contextKeys/0123", Reason: why}), arg, "INVALID_FIELD"},
		{"no operation", call(a.GetOperation, &longrunningpb.GetOperationRequest{Name: operation}), missing, "RESOURCE_NOT_FOUND"},
		{"odd operation", call(a.GetOperation, &longrunningpb.GetOperationRequest{Name: "operations/../tenants"}), missing, "RESOURCE_NOT_FOUND"},
		{"wait for none", call(a.WaitOperation, &longrunningpb.WaitOperationRequest{Name: operation}), missing, "RESOURCE_NOT_FOUND"},
		{"cancel none", call(a.CancelOperation, &longrunningpb.CancelOperationRequest{Name: operation}), missing, "RESOURCE_NOT_FOUND"},
		{"delete none", call(a.DeleteOperation, &longrunningpb.DeleteOperationRequest{Name: operation}), missing, "RESOURCE_NOT_FOUND"},
		{"list odd operations", call(a.ListOperations, &longrunningpb.ListOperationsRequest{Filter: "x = y"}), arg, "FILTER_INVALID"},
	} {
		refused(t, b.what, b.call(t.Context()), b.code, b.reason)
	}
}

// changes are one valid request per change RPC, in an order in which each may be made, and none of them twice.
func changes(r *rig) []proto.Message {
	app := "apps/" + r.app
	abuse := tenancyv1.SuspensionCause_SUSPENSION_CAUSE_ABUSE
	return []proto.Message{
		&tenancyv1.CreatePlanRequest{PlanId: "gold"},
		&tenancyv1.UpdatePlanRequest{Plan: &tenancyv1.Plan{Name: "plans/gold", DisplayName: "Gold"}},
		&tenancyv1.CreateCellRequest{CellId: "cell-2", Cell: &tenancyv1.Cell{Region: "x", CredentialsRef: "secret://file/cell-1.dsn", State: tenancyv1.CellState_CELL_STATE_CLOSED}},
		&tenancyv1.UpdateCellRequest{Cell: &tenancyv1.Cell{Name: "cells/cell-2", Capacity: 7}},
		&tenancyv1.CreateAppRequest{AppId: "other"},
		&tenancyv1.UpdateAppRequest{App: &tenancyv1.App{Name: "apps/other", DisplayName: "Other"}},
		&tenancyv1.UpdateJobPolicyRequest{JobPolicy: &tenancyv1.JobPolicy{Name: "apps/other/jobPolicies/import"}, AllowMissing: true},
		&tenancyv1.DeleteJobPolicyRequest{Name: "apps/other/jobPolicies/import"},
		&tenancyv1.RegisterMigrationsRequest{Parent: app, Migrations: []*tenancyv1.MigrationSource{{MigrationId: "0001_notes", Statements: noteTable}}},
		&tenancyv1.DeleteMigrationRequest{Name: app + "/migrations/0001_notes"},
		&tenancyv1.CreateTenantRequest{TenantId: "acme"},
		&tenancyv1.UpdateTenantRequest{Tenant: &tenancyv1.Tenant{Name: "tenants/acme", DisplayName: "Acme"}},
		&tenancyv1.CreateDomainRequest{Parent: "tenants/acme", DomainId: "notes.acme.com", Domain: &tenancyv1.Domain{App: app}},
		&tenancyv1.VerifyDomainRequest{Name: "tenants/acme/domains/notes.acme.com", Reason: why},
		&tenancyv1.UpdateDomainRequest{Domain: &tenancyv1.Domain{Name: "tenants/acme/domains/notes.acme.com", App: "apps/other"}},
		&tenancyv1.DeleteDomainRequest{Name: "tenants/acme/domains/notes.acme.com"},
		&tenancyv1.SuspendTenantRequest{Name: "tenants/acme", Cause: abuse, Reason: why},
		&tenancyv1.ResumeTenantRequest{Name: "tenants/acme", Cause: abuse},
		&tenancyv1.DeleteTenantRequest{Name: "tenants/acme", Reason: why},
		&tenancyv1.UndeleteTenantRequest{Name: "tenants/acme"},
		&tenancyv1.DeleteAppRequest{Name: "apps/other"},
		&tenancyv1.DeletePlanRequest{Name: "plans/gold"},
	}
}

// methodOf finds the RPC that takes a request, which is of one RPC alone.
func methodOf(t testing.TB, req proto.Message) protoreflect.MethodDescriptor {
	t.Helper()
	for md := range methods() {
		if md.Input().FullName() == req.ProtoReflect().Descriptor().FullName() {
			return md
		}
	}
	t.Fatalf("no RPC takes %T", req)
	return nil
}

// methods enumerates the RPCs of rowhouse.tenancy.v1.
func methods() func(yield func(protoreflect.MethodDescriptor) bool) {
	return func(yield func(protoreflect.MethodDescriptor) bool) {
		protoregistry.GlobalFiles.RangeFilesByPackage("rowhouse.tenancy.v1", func(fd protoreflect.FileDescriptor) bool {
			for i := range fd.Services().Len() {
				ms := fd.Services().Get(i).Methods()
				for j := range ms.Len() {
					if !yield(ms.Get(j)) {
						return false
					}
				}
			}
			return true
		})
	}
}

func pathOf(md protoreflect.MethodDescriptor) string {
	return fmt.Sprintf("/%s/%s", md.Parent().FullName(), md.Name())
}

// invoke calls the RPC of a request with fields set by name.
func invoke(t testing.TB, conn *grpc.ClientConn, req proto.Message, set map[string]any) (proto.Message, error) {
	t.Helper()
	md := methodOf(t, req)
	m := proto.Clone(req)
	for name, value := range set {
		fd := m.ProtoReflect().Descriptor().Fields().ByName(protoreflect.Name(name))
		if fd == nil {
			t.Fatalf("%s has no field %s", md.Input().Name(), name)
		}
		m.ProtoReflect().Set(fd, protoreflect.ValueOf(value))
	}
	resp := newMessage(t, md.Output())
	return resp, conn.Invoke(t.Context(), pathOf(md), m, resp)
}

func newMessage(t testing.TB, d protoreflect.MessageDescriptor) proto.Message {
	t.Helper()
	mt, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	must(t, err)
	return mt.New().Interface()
}

// TestEveryChangeKeepsTheConventions makes each change four times: with unknown fields, to validate only, for real, and
// again with its request_id.
func TestEveryChangeKeepsTheConventions(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.furnish()
	conn := r.as("owner")
	covered := map[string]bool{}
	for _, req := range changes(r) {
		md := methodOf(t, req)
		covered[string(md.Name())] = true
		odd := proto.Clone(req)
		odd.ProtoReflect().SetUnknown([]byte{0x98, 0x3f, 0x01}) // field 1011
		_, err := invoke(t, conn, odd, nil)
		refused(t, string(md.Name())+" with an unknown field", err, codes.InvalidArgument, "UNKNOWN_FIELD")

		r.settle(a)
		before := r.dump()
		_, err = invoke(t, conn, req, map[string]any{"validate_only": true})
		if err != nil {
			t.Errorf("%s validates: %v", md.Name(), err)
		}
		if changed := r.since(before); changed != "" {
			t.Errorf("%s with validate_only had an effect:\n%s", md.Name(), changed)
		}
		id := newID()
		first, err := invoke(t, conn, req, map[string]any{"request_id": id})
		if err != nil {
			t.Fatalf("%s: %v", md.Name(), err)
		}
		r.settle(a)
		before = r.dump()
		again, err := invoke(t, conn, req, map[string]any{"request_id": id})
		if err != nil || !proto.Equal(first, again) {
			t.Errorf("%s again: %v\n%v, want\n%v", md.Name(), err, again, first)
		}
		if changed := r.since(before); changed != "" {
			t.Errorf("%s again had an effect:\n%s", md.Name(), changed)
		}
		_, err = invoke(t, conn, another(t, req), map[string]any{"request_id": id})
		refused(t, string(md.Name())+" with a used id", err, codes.InvalidArgument, "REQUEST_ID_REUSED")
	}
	for md := range methods() {
		id := md.Input().Fields().ByName("request_id")
		if id != nil && !covered[string(md.Name())] && md.Name() != "RevokeContextKey" {
			t.Errorf("%s is not covered", md.Name())
		}
	}
}

// another returns the request with another target.
func another(t testing.TB, req proto.Message) proto.Message {
	t.Helper()
	m := proto.Clone(req)
	r := rule.RuleOf(methodOf(t, req))
	message := m.ProtoReflect()
	path := strings.Split(r.GetTarget(), ".")
	for _, name := range path[:len(path)-1] {
		message = message.Mutable(message.Descriptor().Fields().ByName(protoreflect.Name(name))).Message()
	}
	fd := message.Descriptor().Fields().ByName(protoreflect.Name(path[len(path)-1]))
	message.Set(fd, protoreflect.ValueOfString(message.Get(fd).String()+"x"))
	return m
}

// settle waits until no operation runs and nothing is owed.
func (r *rig) settle(a api) {
	r.tb.Helper()
	eventually(r.tb, "all operations have ended, and every cell has its keys", func() bool {
		var open int
		r.must(r.super.QueryRow(r.tb.Context(), `SELECT (SELECT count(*) FROM kernel.operations WHERE end_time IS NULL)
			+ (SELECT count(*) FROM registry.placement_app WHERE owed)
			+ (SELECT count(*) FROM registry.tenant WHERE publish_owed)
			+ (SELECT count(*) FROM registry.cell c WHERE
				NOT EXISTS (SELECT FROM registry.seal_key k WHERE k.cell = c.id AND k.use_time IS NOT NULL)
				OR NOT c.id = ANY (SELECT unnest(k.cells) FROM registry.context_key k WHERE k.key_id =
					(SELECT s.key_id FROM registry.signing_key s ORDER BY s.number DESC LIMIT 1)))`).Scan(&open))
		return open == 0
	})
}

// dump is all that the service's database holds, a line for each row, but for the audit chains and what is written by
// the clock.
func (r *rig) dump() []string {
	r.tb.Helper()
	ctx := r.tb.Context()
	rows, err := r.super.Query(ctx, `SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
		WHERE schemaname IN ('registry', 'kernel') AND tablename NOT IN ('consumer', 'page_key') ORDER BY 1`)
	r.must(err)
	tables, err := pgx.CollectRows(rows, pgx.RowTo[string])
	r.must(err)
	var all []string
	for _, table := range tables {
		rows, err := r.super.Query(ctx, `SELECT $1 || ' ' || x::text FROM `+table+` x ORDER BY 1`, table)
		r.must(err)
		content, err := pgx.CollectRows(rows, pgx.RowTo[string])
		r.must(err)
		all = append(all, content...)
	}
	return all
}

// since says which rows are not as they were in a dump.
func (r *rig) since(before []string) string {
	r.tb.Helper()
	var changed []string
	after := r.dump()
	for _, row := range before {
		if !slices.Contains(after, row) {
			changed = append(changed, "- "+row)
		}
	}
	for _, row := range after {
		if !slices.Contains(before, row) {
			changed = append(changed, "+ "+row)
		}
	}
	return strings.Join(changed, "\n")
}

func TestPagesAndFilters(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	want := []string{}
	for i := range 7 {
		plan, label := "plans/free", "a"
		if i%2 == 1 {
			plan, label = "plans/business", "b"
		}
		id := fmt.Sprintf("tenant-%d", i)
		_, err := a.CreateTenant(ctx, &tenancyv1.CreateTenantRequest{TenantId: id, Tenant: &tenancyv1.Tenant{Plan: plan, Labels: map[string]string{"tier": label}}})
		r.must(err)
		want = append(want, "tenants/"+id)
	}
	list := func(req *tenancyv1.ListTenantsRequest) (names []string) {
		t.Helper()
		for {
			resp, err := a.ListTenants(ctx, req)
			r.must(err)
			for _, m := range resp.GetTenants() {
				names = append(names, m.GetName())
			}
			if req.PageToken = resp.GetNextPageToken(); req.GetPageToken() == "" {
				return names
			}
		}
	}
	odd := []string{want[1], want[3], want[5]}
	reverse := []string{want[6], want[5], want[4], want[3], want[2], want[1], want[0]}
	for what, c := range map[string]struct {
		req  *tenancyv1.ListTenantsRequest
		want []string
	}{
		"all":             {&tenancyv1.ListTenantsRequest{}, want},
		"pages":           {&tenancyv1.ListTenantsRequest{PageSize: 2}, want},
		"pages backwards": {&tenancyv1.ListTenantsRequest{PageSize: 3, OrderBy: "name desc"}, reverse},
		"by time":         {&tenancyv1.ListTenantsRequest{PageSize: 2, OrderBy: "create_time"}, want},
		"by time back":    {&tenancyv1.ListTenantsRequest{PageSize: 2, OrderBy: "create_time desc"}, reverse},
		"plan":            {&tenancyv1.ListTenantsRequest{PageSize: 1, Filter: `plan = "plans/business"`}, odd},
		"label":           {&tenancyv1.ListTenantsRequest{Filter: `labels.tier = b AND state = ACTIVE`}, odd},
		"none":            {&tenancyv1.ListTenantsRequest{Filter: `labels.tier = c`}, nil},
		"state":           {&tenancyv1.ListTenantsRequest{Filter: `state = SUSPENDED`}, nil},
	} {
		if got := list(c.req); strings.Join(got, " ") != strings.Join(c.want, " ") {
			t.Errorf("%s: %v, want %v", what, got, c.want)
		}
	}
	resp, err := a.ListTenants(ctx, &tenancyv1.ListTenantsRequest{PageSize: 2})
	r.must(err)
	_, err = a.ListTenants(ctx, &tenancyv1.ListTenantsRequest{PageSize: 2, Filter: "state = ACTIVE", PageToken: resp.GetNextPageToken()})
	refused(t, "a token of another filter", err, codes.InvalidArgument, "PAGE_TOKEN_INVALID")
	_, err = a.DeleteTenant(ctx, &tenancyv1.DeleteTenantRequest{Name: want[0], Reason: why})
	r.must(err)
	if got := list(&tenancyv1.ListTenantsRequest{}); len(got) != 6 {
		t.Errorf("with one deleted: %v", got)
	}
	if got := list(&tenancyv1.ListTenantsRequest{ShowDeleted: true, PageSize: 4}); len(got) != 7 {
		t.Errorf("with show_deleted: %v", got)
	}
}

// TestEveryCallLeavesAnEvent makes one call of each kind and counts the events of all chains.
func TestEveryCallLeavesAnEvent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.furnish(), t.Context()
	viewer := apiOf(r.as("viewer"))
	acme := r.tenant(a, "acme")
	var on []string // the resources of the last event that was counted
	count := func(chain, method string, outcome auditv1.Outcome) (n int) {
		t.Helper()
		rows, err := r.super.Query(ctx, `SELECT event FROM audit.event WHERE chain = $1 ORDER BY seq`, chain)
		r.must(err)
		for rows.Next() {
			var b []byte
			r.must(rows.Scan(&b))
			e := new(auditv1.Event)
			r.must(proto.Unmarshal(b, e))
			if strings.HasSuffix(e.GetMethod(), "/"+method) && e.GetOutcome() == outcome {
				n++
				on = e.GetResources()
				for i, name := range on {
					if strings.HasPrefix(name, "operations/") {
						on[i] = "operations/-"
					}
				}
			}
		}
		r.must(rows.Err())
		return n
	}
	ok, denied, failed := auditv1.Outcome_OUTCOME_OK, auditv1.Outcome_OUTCOME_DENIED, auditv1.Outcome_OUTCOME_FAILED
	uid := acme.GetUid()
	for _, c := range []struct {
		what, chain, method string
		outcome             auditv1.Outcome
		on                  string
		call                func(context.Context) error
	}{
		{"a read", uid, "GetTenant", ok, "tenants/acme", call(a.GetTenant, &tenancyv1.GetTenantRequest{Name: "tenants/acme"})},
		{"a read of nothing", "platform", "GetTenant", failed, "tenants/none", call(a.GetTenant, &tenancyv1.GetTenantRequest{Name: "tenants/none"})},
		{"a look-up", uid, "LookupTenant", ok, "tenants/acme", call(a.LookupTenant, &tenancyv1.LookupTenantRequest{Key: "uid:" + uid})},
		{"a list", "platform", "ListTenants", ok, "tenants/acme", call(a.ListTenants, &tenancyv1.ListTenantsRequest{})},
		{"a change", uid, "UpdateTenant", ok, "tenants/acme", call(a.UpdateTenant, &tenancyv1.UpdateTenantRequest{Tenant: &tenancyv1.Tenant{Name: "tenants/acme", DisplayName: "A"}})},
		{"a validation", uid, "SuspendTenant", ok, "tenants/acme", call(a.SuspendTenant, &tenancyv1.SuspendTenantRequest{Name: "tenants/acme", Cause: 1, Reason: why, ValidateOnly: true})},
		{"a denied change", "platform", "SuspendTenant", denied, "tenants/acme", call(viewer.SuspendTenant, &tenancyv1.SuspendTenantRequest{Name: "tenants/acme", Cause: 1, Reason: why})},
		{"a denied read", "platform", "ListContextKeys", denied, "", call(viewer.ListContextKeys, &tenancyv1.ListContextKeysRequest{})},
		{"a refused change", uid, "ResumeTenant", failed, "tenants/acme", call(a.ResumeTenant, &tenancyv1.ResumeTenantRequest{Name: "tenants/acme", Cause: 1})},
		{"a list of operations", "platform", "ListOperations", ok, "operations/-", call(a.ListOperations, &longrunningpb.ListOperationsRequest{})},
		{"a read of the chain", "platform", "ListEvents", ok, "chains/platform", call(a.ListEvents, &auditv1.ListEventsRequest{Parent: "chains/platform"})},
	} {
		before := count(c.chain, c.method, c.outcome)
		_ = c.call(ctx)
		if n := count(c.chain, c.method, c.outcome) - before; n != 1 {
			t.Errorf("%s left %d events in its chain", c.what, n)
		} else if got := strings.Join(on, ","); got != c.on {
			t.Errorf("%s is on %q, want %q", c.what, got, c.on)
		}
	}
	for _, chain := range []string{"platform", uid} {
		verdict, err := a.VerifyChain(ctx, &auditv1.VerifyChainRequest{Name: "chains/" + chain})
		if err != nil || !verdict.GetSound() || verdict.GetEvents() == 0 {
			t.Errorf("chain %s: %v, %v", chain, verdict, err)
		}
	}
}

// TestEveryMethodHasItsPermission compares who may call what with the golden table, by calling.
func TestEveryMethodHasItsPermission(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.furnish()
	roles := []string{"viewer", "support", "operator", "placer", "security", "auditor", "owner"}
	conns := map[string]*grpc.ClientConn{"": r.as("")}
	for _, role := range roles {
		conns[role] = r.as(role)
	}
	for md := range methods() {
		want := golden()[string(md.Name())]
		if rule.RuleOf(md).GetPlane() == apiv1.Plane_PLANE_PEER {
			want = "" // no operator may
		} else if want == "" {
			t.Errorf("%s is not in the golden table", md.Name())
		}
		if md.IsStreamingServer() {
			continue // opened by the tests of feeds
		}
		req := sample(t, md)
		err := conns[""].Invoke(t.Context(), pathOf(md), req, newMessage(t, md.Output()))
		refused(t, string(md.Name())+" by nobody", err, codes.Unauthenticated, "CREDENTIAL_MISSING")
		for _, role := range roles {
			err := conns[role].Invoke(t.Context(), pathOf(md), req, newMessage(t, md.Output()))
			if strings.Contains(" "+want+" ", " "+role+" ") {
				if code := codeOf(err); code == codes.PermissionDenied || code == codes.Unauthenticated {
					t.Errorf("%s by %s: %v", md.Name(), role, err)
				}
				continue
			}
			if code := codeOf(err); code != codes.PermissionDenied && code != codes.Unauthenticated {
				t.Errorf("%s by %s: %v, want a denial", md.Name(), role, err)
			}
		}
	}
}

// golden says which operators may call what.
func golden() map[string]string {
	const read = "viewer support operator placer security owner"
	const run, place = "operator owner", "placer owner"
	return map[string]string{
		"GetTenant": read + " auditor", "LookupTenant": read + " auditor", "ListTenants": read, "GetPlan": read, "ListPlans": read, "GetApp": read,
		"ListApps": read, "GetCell": read, "ListCells": read, "GetDomain": read, "ListDomains": read, "GetPlacement": read,
		"ListConsumers": read, "CreateTenant": run, "UpdateTenant": run, "DeleteTenant": run, "UndeleteTenant": run,
		"SuspendTenant": "operator security owner", "ResumeTenant": "operator security owner",
		"CreateDomain": run, "UpdateDomain": run, "DeleteDomain": run, "VerifyDomain": run,
		"GetMigration": read, "ListMigrations": read, "RegisterMigrations": place, "DeleteMigration": place,
		"CreateApp": place, "UpdateApp": place, "DeleteApp": place, "CreateCell": place, "UpdateCell": place,
		"CreatePlan": "owner", "UpdatePlan": "owner", "DeletePlan": "owner",
		"GetJobPolicy": read, "ListJobPolicies": read, "UpdateJobPolicy": "security owner", "DeleteJobPolicy": "security owner",
		"ListContextKeys": "security owner", "RevokeContextKey": "security owner",
	}
}

// TestDeniedLooksLikeMissing holds that a caller without permission learns nothing from the answer.
func TestDeniedLooksLikeMissing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.furnish()
	r.tenant(a, "acme")
	auditor := apiOf(r.as("auditor"))
	answer := func(name string) string {
		_, err := auditor.GetPlacement(t.Context(), &tenancyv1.GetPlacementRequest{Name: name + "/placement"})
		return fmt.Sprint(err)
	}
	if there, not := answer("tenants/acme"), answer("tenants/none"); there != not {
		t.Errorf("a tenant that is there: %s\none that is not: %s", there, not)
	}
}

// sample is a request that keeps the rules of its fields. It is of something that does not exist.
func sample(t testing.TB, md protoreflect.MethodDescriptor) proto.Message {
	t.Helper()
	m := newMessage(t, md.Input())
	values := map[protoreflect.Name]string{
		"name": "", "parent": "", "tenant_id": "w", "plan_id": "", "app_id": "", "cell_id": "", "domain_id": "x.com",
		"key": "uid:x", "reason": why, "feed": "routes", "replica": "r",
	}
	names := map[string]string{
		"Tenant": "tenants/none", "Plan": "plans/none", "App": "apps/none", "Cell": "cells/none",
		"Migration": "apps/none/migrations/0001_x", "Domain": "tenants/none/domains/x.com", "Placement": "tenants/none/placement", "ContextKey": "contextKeys/0123456789abcdef",
		"JobPolicy": "apps/none/jobPolicies/import",
	}
	for i := range md.Input().Fields().Len() {
		fd := md.Input().Fields().Get(i)
		if value, ok := values[fd.Name()]; ok && value != "" {
			m.ProtoReflect().Set(fd, protoreflect.ValueOfString(value))
		}
		for noun, name := range names {
			if fd.Name() == "name" && strings.HasSuffix(string(md.Name()), noun) {
				m.ProtoReflect().Set(fd, protoreflect.ValueOfString(name))
			}
			if fd.Message() != nil && string(fd.Message().Name()) == noun && strings.HasPrefix(string(md.Name()), "Update") {
				inner := m.ProtoReflect().Mutable(fd).Message()
				inner.Set(inner.Descriptor().Fields().ByName("name"), protoreflect.ValueOfString(name))
			}
		}
		if fd.Name() == "cause" {
			m.ProtoReflect().Set(fd, protoreflect.ValueOfEnum(1))
		}
		if fd.Name() == "parent" && strings.HasSuffix(string(md.Name()), "Domain") || md.Name() == "ListDomains" && fd.Name() == "parent" {
			m.ProtoReflect().Set(fd, protoreflect.ValueOfString("tenants/none"))
		}
		if fd.Name() == "parent" && (strings.HasSuffix(string(md.Name()), "Migrations") || md.Name() == "ListJobPolicies") {
			m.ProtoReflect().Set(fd, protoreflect.ValueOfString("apps/none"))
		}
		if fd.Name() == "migrations" {
			source := &tenancyv1.MigrationSource{MigrationId: "0001_x", Statements: "SELECT 1"}
			m.ProtoReflect().Mutable(fd).List().Append(protoreflect.ValueOfMessage(source.ProtoReflect()))
		}
		if strings.HasSuffix(string(fd.Name()), "_id") && fd.Name() != "request_id" && fd.Name() != "domain_id" {
			m.ProtoReflect().Set(fd, protoreflect.ValueOfString("matrix"))
		}
		if fd.Kind() == protoreflect.BytesKind {
			m.ProtoReflect().Set(fd, protoreflect.ValueOfBytes(make([]byte, map[protoreflect.Name]int{"public_key": 32, "proof": 64, "tenant_context": 100}[fd.Name()])))
		}
		if fd.Name() == "validate_only" {
			m.ProtoReflect().Set(fd, protoreflect.ValueOfBool(true))
		}
	}
	return m
}
