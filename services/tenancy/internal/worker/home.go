package worker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
)

// workFor bounds one try at a home. Migrations of a large one take their time; each that ended is done.
const workFor = 30 * time.Minute

// startHomes makes, migrates and drops the homes that no operation waits for: those of a new app, after the registration
// of migrations, after a cancelled creation. A few of each cell are worked on at a time.
func (w *Worker) startHomes(ctx context.Context) error {
	for ctx.Err() == nil {
		h, ok, err := store.ClaimHome(ctx, w.cfg.Pool, lease, w.homes.full())
		if err != nil || !ok {
			return err
		}
		w.homes.start(h.Cell, func() { w.tendHome(ctx, h) }, w.homeDue.ring)
	}
	return nil
}

// tendHome does what a claimed home is owed, and writes down how it went.
func (w *Worker) tendHome(ctx context.Context, h store.Home) {
	defer w.debtDue.ring() // the home may be told its tenant's place now
	err := whileKept(ctx, func(ctx context.Context) error { return store.KeepHome(ctx, w.cfg.Pool, h, lease) },
		func(ctx context.Context) error {
			return atMost(ctx, workFor, func(ctx context.Context) error { return w.bring(ctx, h) })
		})
	if errors.Is(err, store.ErrGone) { // the drop need not wait for the lease
		err = store.HomeDone(ctx, w.cfg.Pool, h)
	}
	if err == nil || errors.Is(err, store.ErrFenced) {
		return
	}
	w.cfg.Log.WarnContext(ctx, "worker: a tenant's home will be tried again", "app", h.App, "cell", h.Cell, "tenant", h.UID.String(),
		"attempt", h.Attempt+1, "error", err)
	if err := w.failed(ctx, h, err); !errors.Is(err, store.ErrFenced) {
		w.logged(ctx, err)
	}
}

// failed records a failed try at a home, also one that ended because its time was over.
func (w *Worker) failed(ctx context.Context, h store.Home, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	status, err := proto.Marshal(told(cause))
	if err != nil {
		return err
	}
	return store.HomeFailed(ctx, w.cfg.Pool, h, status, backOff(h.Attempt))
}

// bring makes of a home what it is to be.
func (w *Worker) bring(ctx context.Context, h store.Home) error {
	if h.Gone {
		if err := w.cfg.Homes.Drop(ctx, h); err != nil {
			return unreachable(h, err)
		}
		return store.HomeDropped(ctx, w.cfg.Pool, h)
	}
	if !h.Ready {
		if err := w.makeHome(ctx, h); err != nil {
			return err
		}
	}
	if err := w.migrateHome(ctx, h); err != nil || h.Model != tenant.ModelDatabase {
		return err
	}
	return w.giveHomeKeys(ctx, h)
}

// makeHome makes a home, empty.
func (w *Worker) makeHome(ctx context.Context, h store.Home) error {
	err := w.cfg.Homes.Make(ctx, h, func(ctx context.Context) error { return store.HomeWanted(ctx, w.cfg.Pool, h) })
	if err != nil {
		return unreachable(h, err)
	}
	return nil
}

// migrateHome runs what the app has registered and did not run there yet. Then the home is ready: keys that are made from
// now on wait for it, too. One that has keys of its own is done when it has them.
func (w *Worker) migrateHome(ctx context.Context, h store.Home) error {
	migrations, err := store.BeginMigrations(ctx, w.cfg.Pool, h)
	if err != nil {
		return err
	}
	err = w.cfg.Homes.Migrate(ctx, h, migrations)
	if errors.Is(err, ErrNoHome) && !h.Ready { // its app came to the cell after the homes were made
		if err = w.makeHome(ctx, h); err == nil {
			err = w.cfg.Homes.Migrate(ctx, h, migrations)
		}
	}
	if err != nil {
		return unreachable(h, errors.Join(err, w.notRun(ctx, h, migrations, err)))
	}
	if len(migrations) > 0 {
		h.Version = migrations[len(migrations)-1].Version
	}
	if h.Version == "" { // asked last: an app without a database there needs none
		return fault.New(fault.FailedPrecondition, registry.ReasonMigrationsMissing,
			"apps/%s has registered no migrations; this goes on once it has", h.App).
			WithDomain(registry.Domain).WithMetadata("app", "apps/"+h.App)
	}
	if err := store.HomeMigrated(ctx, w.cfg.Pool, h); err != nil || h.Model == tenant.ModelDatabase {
		return err
	}
	return store.HomeDone(ctx, w.cfg.Pool, h)
}

// notRun records how far a home came when it is certain which migration did not run there. After any other error one that
// was begun may have run.
func (w *Worker) notRun(ctx context.Context, h store.Home, begun []registry.Migration, cause error) error {
	failed, ok := fault.As(cause)
	switch {
	case ok && failed.Reason == registry.ReasonMigrationFailed:
		return store.MigrationFailed(ctx, w.cfg.Pool, h, failed.Metadata["migration"])
	case (errors.Is(cause, ErrNoDatabase) || errors.Is(cause, ErrNoHome)) && len(begun) > 0:
		return store.MigrationFailed(ctx, w.cfg.Pool, h, begun[0].Version)
	}
	return nil
}

// giveHomeKeys gives a tenant's own database the keys that it lacks, and with them all that it was owed.
func (w *Worker) giveHomeKeys(ctx context.Context, h store.Home) error {
	missing, err := store.InstallsOf(ctx, w.cfg.Pool, h.App, h.UID, w.cfg.Clock())
	if err != nil {
		return err
	}
	for _, i := range missing {
		if err := w.install(ctx, i); err != nil {
			return unreachable(h, err)
		}
	}
	return store.HomeDone(ctx, w.cfg.Pool, h)
}

// unreachable is what may be told of an error of a cell.
func unreachable(h store.Home, err error) error {
	if _, ok := fault.As(err); ok || errors.Is(err, ErrNoDatabase) || errors.Is(err, store.ErrFenced) {
		return err
	}
	if h.Ready && errors.Is(err, ErrNoHome) {
		return vanished(h.App, h.Cell, err)
	}
	return fault.New(fault.Unavailable, registry.ReasonCellUnreachable, "the home in apps/%s in cells/%s cannot be made ready", h.App, h.Cell).
		WithDomain(registry.Domain).WithCause(err)
}

// vanished is what is told of a home that was ready and is not there: only a person can bring it back.
func vanished(app, cell string, err error) error {
	return fault.New(fault.Unavailable, registry.ReasonCellUnreachable,
		"the tenant's own schema or database in apps/%s in cells/%s does not exist any more; restore it", app, cell).
		WithDomain(registry.Domain).WithCause(err)
}

// homeFor bounds what a step of a creation does at one home.
const homeFor = 2 * time.Minute

// longStep is step for what may outlast the lease: the hold is renewed, a cancellation ends it, and what was reached is stored
// before the next step. Error: errCancelled.
func (h *holder) longStep(ctx context.Context, name string, do func(context.Context) error) error {
	s := h.stepNamed(name)
	if s == nil || s.GetState() == apiv1.OperationPhase_OPERATION_PHASE_SUCCEEDED { // of another model, or done
		return nil
	}
	if s.StartTime == nil {
		s.StartTime = timestamppb.New(h.w.cfg.Clock())
	}
	s.Attempt++
	s.State = apiv1.OperationPhase_OPERATION_PHASE_RUNNING
	if err := whileKept(ctx, h.keep, do); err != nil {
		s.Error = told(err)
		return err
	}
	s.State, s.EndTime, s.Error = apiv1.OperationPhase_OPERATION_PHASE_SUCCEEDED, timestamppb.New(h.w.cfg.Clock()), nil
	h.o.Attempt, h.o.Meta.LastError = 0, nil
	h.o.Meta.ProgressPercent += int32(100 / len(h.o.Meta.GetSteps())) //nolint:gosec // at most 100
	return h.keep(ctx)
}

// keep stores progress, renews the hold and looks whether the operation was cancelled meanwhile. Errors: store.ErrFenced,
// errCancelled.
func (h *holder) keep(ctx context.Context) error {
	cancelled, err := store.KeepOperation(ctx, h.w.cfg.Pool, h.o, lease)
	if err == nil && cancelled {
		err = errCancelled
	}
	return err
}

// makeHomes makes the tenant's homes, empty.
func (h *holder) makeHomes(ctx context.Context) error { return h.eachHome(ctx, h.w.makeHome) }

// migrateHomes brings the tenant's homes to the versions that their apps have registered.
func (h *holder) migrateHomes(ctx context.Context) error { return h.eachHome(ctx, h.w.migrateHome) }

// giveKeys gives the tenant's databases all keys that gateways may seal with.
func (h *holder) giveKeys(ctx context.Context) error { return h.eachHome(ctx, h.w.giveHomeKeys) }

// eachHome does something to all homes of the operation's tenant that are owed something. An app that has no database in the
// cell holds nobody up: its home is made when there is one.
func (h *holder) eachHome(ctx context.Context, do func(context.Context, store.Home) error) error {
	homes, err := store.TakeHomes(ctx, h.w.cfg.Pool, h.o, h.uid)
	if err != nil {
		return err
	}
	var failed error
	for _, home := range homes {
		err := atMost(ctx, homeFor, func(ctx context.Context) error { return do(ctx, home) })
		switch {
		case err == nil:
		case ctx.Err() != nil || errors.Is(err, store.ErrFenced):
			return err
		case errors.Is(err, ErrNoDatabase):
			h.w.cfg.Log.WarnContext(ctx, "worker: an app has no database in the tenant's cell yet", "app", home.App, "cell", home.Cell)
		default:
			failed = errors.Join(failed, fmt.Errorf("home in app %s: %w", home.App, err), h.w.failed(ctx, home, err))
		}
	}
	return failed
}
