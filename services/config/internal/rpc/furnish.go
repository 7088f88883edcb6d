package rpc

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/flags"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
)

// Furnisher makes the namespaces that exist from the start, and brings their schemas to those of this release.
type Furnisher struct {
	config Config
	done   chan struct{}
}

// NewFurnisher returns a Furnisher, whose Run does the work.
func NewFurnisher(c Config) *Furnisher { return &Furnisher{c, make(chan struct{})} }

// Ready is closed once the namespaces exist.
func (f *Furnisher) Ready() <-chan struct{} { return f.done }

// Run makes what is missing or old, as soon as the database lets it, and returns when ctx ends. What owners changed and
// what a later release wrote it leaves as it is.
func (f *Furnisher) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		err := f.furnish(ctx)
		if err == nil {
			break
		}
		if ctx.Err() == nil {
			f.config.Log.WarnContext(ctx, "cannot make the built-in namespaces yet", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
	close(f.done)
	<-ctx.Done()
	return nil
}

// furniture is a namespace that exists from the start: its schema, and the number of that, which grows with each change
// of it. Replicas of two releases tell by it whose is the later one.
type furniture struct {
	schema  string
	version int32
}

// builtIn returns the namespaces that exist from the start.
func builtIn() map[string]furniture {
	return map[string]furniture{
		sdk.BrandNamespace: {sdk.BrandSchema(), 1}, sdk.FlagsNamespace: {flags.Schema(), 1},
		sdk.FlagKillsNamespace: {flags.KillSchema(), 1}, sdk.KillsNamespace: {sdk.KillSchema(), 1},
	}
}

// furnish makes the built-in namespaces.
func (f *Furnisher) furnish(ctx context.Context) error {
	all := builtIn()
	for _, id := range slices.Sorted(maps.Keys(all)) {
		if err := f.furnishOne(ctx, id, all[id]); err != nil {
			return fmt.Errorf("namespaces/%s: %w", id, err)
		}
	}
	return nil
}

// furnishOne makes a namespace, or brings it up to date: a look that finds nothing to do is nothing to audit.
func (f *Furnisher) furnishOne(ctx context.Context, id string, want furniture) error {
	schema, err := settings.Compile(id, want.schema)
	if err != nil {
		return err
	}
	want.schema = schema.Text
	n, err := store.ReadNamespace(ctx, f.config.Pool, id)
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return err
	}
	missing := err != nil
	if !missing {
		if due, err := f.due(ctx, f.config.Pool, n, want); err != nil || !due {
			return err
		}
	}
	ctx = change.NewJob(ctx, "config", "furnish")
	_, err = change.Do(ctx, f.config.Kernel, func(ctx context.Context, tx *change.Tx) (n *configv1.Namespace, err error) {
		if missing {
			n, err = f.config.create(ctx, tx, id, &configv1.Namespace{Schema: want.schema})
		} else {
			n, err = f.upgrade(ctx, tx, id, want)
		}
		if err != nil {
			return nil, err
		}
		return n, store.PutBuiltIn(ctx, tx, n.GetUid(), store.BuiltIn{Version: want.version, Schema: want.schema})
	})
	if fault.KindOf(err) == fault.AlreadyExists {
		return nil // another replica was first
	}
	return err
}

// due says whether a namespace has the schema of an earlier release, as that wrote it.
func (f *Furnisher) due(ctx context.Context, q store.Querier, n *configv1.Namespace, want furniture) (bool, error) {
	is, err := store.ReadBuiltIn(ctx, q, n.GetUid())
	if err != nil || is.Version >= want.version {
		return false, err
	}
	// Earlier releases noted nothing; what they made and nobody changed since is theirs.
	theirs := is.Schema == n.GetSchema() || is.Version == 0 && n.GetCreateTime().AsTime().Equal(n.GetUpdateTime().AsTime())
	if !theirs && n.GetSchema() != want.schema {
		f.config.Log.WarnContext(ctx, "a built-in namespace has a schema of its own, which stays as it is", "namespace", n.GetName())
		return false, nil
	}
	return true, nil
}

// upgrade writes the schema of this release. Documents that it refuses stay, and go on to hold: it is judged by nobody but
// who writes them next.
func (f *Furnisher) upgrade(ctx context.Context, tx *change.Tx, id string, want furniture) (*configv1.Namespace, error) {
	n, err := store.LockNamespace(ctx, tx, id)
	if err != nil {
		return nil, err
	}
	if due, err := f.due(ctx, tx, n, want); err != nil {
		return nil, err
	} else if !due {
		return nil, fault.New(fault.AlreadyExists, fault.ReasonResourceExists, "%s is up to date", n.GetName())
	}
	tx.Audit(n.GetName(), "schema")
	if n.GetSchema() == want.schema {
		return n, nil // and only its version was not noted
	}
	n.Schema, n.UpdateTime = want.schema, timestamppb.New(tx.Now())
	if err := number(ctx, tx, n); err != nil {
		return nil, err
	}
	if err := store.UpdateNamespace(ctx, tx, n); err != nil {
		return nil, err
	}
	f.config.Log.InfoContext(ctx, "upgraded the schema of a built-in namespace", "namespace", n.GetName(), "version", want.version)
	return n, publishNamespace(tx, id, n)
}
