package change

import (
	"context"
	"time"
)

const (
	// keepChanges is how far back a watcher may resume.
	keepChanges = time.Hour
	sweepEvery  = 10 * time.Minute
	reportEvery = time.Minute
	notifyLimit = time.Second
)

// Run wakes watch servers after commits, forgets what is past its time, and reports refused calls that left no event,
// until ctx ends. It is the one caller of
// NOTIFY, and never inside a transaction that writes: PostgreSQL serializes the commits of those.
func (k *Kernel) Run(ctx context.Context) error {
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	report := time.NewTicker(reportEvery)
	defer report.Stop()
	for {
		select {
		case <-ctx.Done():
			k.report(context.WithoutCancel(ctx))
			return nil
		case <-report.C:
			k.report(ctx)
		case <-k.wake:
			k.relay(ctx)
		case <-sweep.C:
			if err := k.Sweep(ctx); err != nil && ctx.Err() == nil {
				k.log.WarnContext(ctx, "cannot forget old changes and request ids", "error", err)
			}
		}
	}
}

// report is ReportSuppressed; what cannot be written now is part of the next report.
func (k *Kernel) report(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, refusalTimeout)
	defer cancel()
	if err := k.ReportSuppressed(ctx); err != nil {
		k.log.ErrorContext(ctx, "cannot report refused calls that left no event", "error", err)
	}
}

// relay tells all processes that something changed. A failure costs them at most the second until they poll.
func (k *Kernel) relay(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, notifyLimit)
	defer cancel()
	if _, err := k.pool.Exec(ctx, "NOTIFY "+Channel); err != nil {
		k.log.WarnContext(ctx, "cannot notify watch servers", "error", err)
	}
}

// Sweep forgets request ids after 24 hours and changes after one. Run calls it; tests may.
func (k *Kernel) Sweep(ctx context.Context) error {
	if _, err := k.pool.Exec(ctx, `SELECT kernel.trim_changes($1)`, keepChanges); err != nil {
		return err
	}
	_, err := k.pool.Exec(ctx, `DELETE FROM kernel.request_log WHERE create_time < now() - interval '24 hours'`)
	return err
}
