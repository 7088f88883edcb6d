// Package rpc serves rowhouse.tenancy.v1 and google.longrunning.
//
// A handler does one unit of work of internal/change: it locks what it acts on, compares etags, asks the registry what
// may happen, stores that and publishes it. Who may call was settled before, by the rule interceptor.
package rpc

import (
	"context"
	"fmt"
	"strings"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/hook"
	"github.com/rowhouse-platform/rowhouse/internal/renew"
	"github.com/rowhouse-platform/rowhouse/internal/rule"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/worker"
)

// Feeds serves the feeds; *feedserver.Server does.
type Feeds interface {
	// Ready is closed once the feeds are loaded.
	Ready() <-chan struct{}
	Watch(ctx context.Context, feed, token string, send func(*apiv1.FeedFrame) error) error
}

// Trials try migrations; *cells.Databases does.
type Trials interface {
	// Try runs an app's migrations in an empty schema in the cell with these credentials, and undoes them. Errors:
	// MIGRATION_FAILED; MIGRATIONS_UNTRIED when that took too long; one that wraps worker.ErrNoDatabase when the app has no database there.
	Try(ctx context.Context, credentialsRef, app string, migrations []registry.Migration) error
}

// Config is what the handlers need.
type Config struct {
	// Kernel does the units of work, Pool what belongs to none.
	Kernel *change.Kernel
	Pool   *pgxpool.Pool
	// Worker goes on with operations; Work is its configuration, which holds the keys and the clock.
	Worker *worker.Worker
	Work   worker.Config
	// Feeds serves the feeds.
	Feeds Feeds
	// Trials try migrations before they are registered.
	Trials Trials
	// Trust is what tenancy itself knows from its feed "tenants".
	Trust *tenant.Trust
	// Zones are the platform's own.
	Zones registry.Zones
	// Minters says what the keys of a workload may sign.
	Minters Minters
	// Hooks are asked before steps; nil when there are none.
	Hooks *hook.Asker
	// MayPresent reports whether a workload may present contexts that others minted.
	MayPresent Presenters
}

// Handlers serve all of tenancy's own services.
type Handlers struct {
	cfg      Config
	renewals *renew.Server
}

// New returns the handlers.
func New(cfg Config) (*Handlers, error) {
	renewals, err := renew.New(renew.Config{House: renewals{cfg}, Trust: cfg.Trust, Clock: cfg.Work.Clock})
	if err != nil {
		return nil, err
	}
	return &Handlers{cfg, renewals}, nil
}

// Register registers all services.
func (h *Handlers) Register(server grpc.ServiceRegistrar) {
	tenancyv1.RegisterTenantServiceServer(server, &tenants{Config: h.cfg})
	tenancyv1.RegisterPlanServiceServer(server, &plans{Config: h.cfg})
	tenancyv1.RegisterAppServiceServer(server, &apps{Config: h.cfg})
	tenancyv1.RegisterMigrationServiceServer(server, &migrations{Config: h.cfg})
	tenancyv1.RegisterCellServiceServer(server, &cells{Config: h.cfg})
	tenancyv1.RegisterDomainServiceServer(server, &domains{Config: h.cfg})
	tenancyv1.RegisterPlacementServiceServer(server, &placements{Config: h.cfg})
	tenancyv1.RegisterRoutingServiceServer(server, &routing{Config: h.cfg})
	tenancyv1.RegisterContextServiceServer(server, &contexts{Config: h.cfg})
	tenancyv1.RegisterJobPolicyServiceServer(server, &jobPolicies{Config: h.cfg})
	tenancyv1.RegisterContextRenewalServiceServer(server, h.renewals)
	longrunningpb.RegisterOperationsServer(server, &operations{Config: h.cfg})
}

// Table holds the rules of the services whose protos are not ours. All operations work on tenants, so one permission
// per verb is that of their target.
func Table() rule.Table {
	find := func(_ context.Context, verb, _ string) (string, error) { return "tenancy.operations." + verb, nil }
	return rule.Operations(find, "tenancy.operations.get", "tenancy.operations.list", "tenancy.operations.cancel",
		"tenancy.operations.delete")
}

// newUID makes a UUIDv7.
func (c Config) newUID() (tenant.UID, error) {
	uid, err := tenant.NewUID(c.Work.Clock(), c.Work.Random)
	if err != nil {
		return tenant.UID{}, fmt.Errorf("make a uid: %w", err)
	}
	return uid, nil
}

// idOf returns the id in a name of the form "plans/free". The rules beside the field have checked the form.
func idOf(name string) string { return name[strings.IndexByte(name, '/')+1:] }

// badField refuses a request for one field.
func badField(field, description string) error {
	return fault.New(fault.InvalidArgument, fault.ReasonInvalidField, "%s %s", field, description).
		WithField(fault.FieldViolation{Field: field, Description: description})
}

// callOf returns the call that ctx serves.
func callOf(ctx context.Context) (rule.Call, error) {
	call, ok := rule.CallFrom(ctx)
	if !ok {
		return rule.Call{}, fault.New(fault.Internal, "INTERNAL", "the handler has no call")
	}
	return call, nil
}
