package worker

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
)

const (
	// installsPerCell bounds the databases of a cell that are given a key at a time.
	installsPerCell = 4
	// installRound is how long a round of a cell begins installations; the next one goes on.
	installRound = 15 * time.Second
)

// database is one that has keys of its own.
type database struct {
	app    string
	tenant tenant.UID // zero for the one that the app's tenants share
}

func databaseOf(i store.Install) database { return database{i.App, i.Tenant} }

// setbacks are the databases of a cell that could not be given a key. They are asked last, and less and less often. Each
// process has its own; a new one asks all.
type setbacks map[database]setback

type setback struct {
	attempt int
	next    time.Time
}

// InstallApp gives the databases that one app's tenants share the keys that they lack, all at once. Failures are logged: the
// loops go on with them, and have gateways use new keys.
func (w *Worker) InstallApp(ctx context.Context, app string) {
	missing, err := store.InstallsOf(ctx, w.cfg.Pool, app, tenant.UID{}, w.cfg.Clock())
	w.logged(ctx, err)
	var all sync.WaitGroup
	for _, i := range missing {
		all.Go(func() { w.tried(ctx, i, w.install(ctx, i)) })
	}
	all.Wait()
}

// startInstalls gives databases the keys that they lack, each cell for itself.
func (w *Worker) startInstalls(ctx context.Context) error {
	cells, err := store.AllCells(ctx, w.cfg.Pool)
	if err != nil {
		return err
	}
	full := w.installs.full()
	for _, c := range cells {
		id := strings.TrimPrefix(c.GetName(), "cells/")
		if !slices.Contains(full, id) {
			w.installs.start(id, func() { w.logged(ctx, w.installCell(ctx, id)) }, w.keyDue.ring)
		}
	}
	return nil
}

// installCell gives a cell's databases the keys that they lack, a few at a time. Those that failed before come last and when
// they are due, and a round ends in time to look for what is new.
func (w *Worker) installCell(ctx context.Context, cell string) error {
	missing, err := store.Installs(ctx, w.cfg.Pool, cell, w.cfg.Clock())
	if err != nil {
		return err
	}
	known := w.setbacksIn(cell, missing)
	attempts := func(i store.Install) int { return known[databaseOf(i)].attempt }
	slices.SortStableFunc(missing, func(a, b store.Install) int { return attempts(a) - attempts(b) })
	round := time.Now()
	var side errgroup.Group
	side.SetLimit(installsPerCell)
	for _, i := range missing {
		if time.Since(round) > installRound || ctx.Err() != nil {
			break
		}
		side.Go(func() error {
			if w.due(cell, databaseOf(i)) {
				err := w.install(ctx, i)
				w.tried(ctx, i, err)
				w.note(cell, databaseOf(i), err)
			}
			return nil
		})
	}
	return side.Wait() // nil
}

// setbacksIn returns what is known of databases that lack keys, and forgets the others.
func (w *Worker) setbacksIn(cell string, missing []store.Install) setbacks {
	w.mu.Lock()
	defer w.mu.Unlock()
	known := setbacks{}
	for _, i := range missing {
		if s, ok := w.setbacks[cell][databaseOf(i)]; ok {
			known[databaseOf(i)] = s
		}
	}
	w.setbacks[cell] = known
	return known
}

// due says whether a database is to be asked now.
func (w *Worker) due(cell string, d database) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.setbacks[cell][d].next.After(w.cfg.Clock())
}

// note remembers how a try went.
func (w *Worker) note(cell string, d database, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		delete(w.setbacks[cell], d)
		return
	}
	attempt := w.setbacks[cell][d].attempt
	w.setbacks[cell][d] = setback{attempt + 1, w.cfg.Clock().Add(backOff(attempt))}
}

// install gives one database one key.
func (w *Worker) install(ctx context.Context, i store.Install) error {
	key, err := OpenSealKey(w.cfg, i.Key)
	if err == nil {
		err = w.cfg.Cells.Install(ctx, i, key)
	}
	if err == nil {
		err = store.Installed(ctx, w.cfg.Pool, i)
	}
	return err
}

// tried is for an installation that is tried again by itself.
func (w *Worker) tried(ctx context.Context, i store.Install, err error) {
	if err == nil {
		return
	}
	owner := "all"
	if !i.Tenant.IsZero() {
		owner = i.Tenant.String()
	}
	w.cfg.Log.WarnContext(ctx, "worker: a seal key is not installed", "app", i.App, "cell", i.Key.Cell, "tenant", owner, "error", err)
}
