package worker

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/store"
)

const (
	// lease is how long an operation or a home is held by a worker that says nothing.
	lease = 30 * time.Second
	// renewEvery is how often one that works says that it does, and looks whether it is to go on.
	renewEvery = 2 * time.Second
	// renewFor bounds one renewal.
	renewFor = 5 * time.Second
	// stopIn is what is left of a lease when work ends that could not renew it.
	stopIn = 5 * time.Second
)

var (
	// errLost ends work whose hold could not be renewed: another worker may go on with it.
	errLost = errors.New("the lease could not be renewed")
	// errCancelled ends a step of an operation that is to be undone.
	errCancelled = fault.New(fault.Aborted, fault.ReasonCancelled, "the creation was cancelled")
)

// whileKept runs do while keep renews the hold, first before do begins. do ends when keep says ErrFenced or errCancelled, or
// when the lease comes to its end: until then a renewal that fails, or is not answered, is tried again.
func whileKept(ctx context.Context, keep, do func(context.Context) error) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	last := time.AfterFunc(lease-stopIn, func() { end(errLost) })
	defer last.Stop()
	renew := func() error {
		sent := time.Now() // the database counts from then or later
		err := atMost(ctx, renewFor, keep)
		if err == nil {
			last.Reset(lease - stopIn - time.Since(sent))
		}
		return err
	}
	if err := renew(); err != nil {
		return err
	}
	var renewal sync.WaitGroup
	renewal.Go(func() {
		tick := time.NewTicker(renewEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err := renew(); errors.Is(err, store.ErrFenced) || errors.Is(err, errCancelled) {
				end(err)
				return
			}
		}
	})
	err := do(ctx)
	if err != nil && ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), err)
	}
	end(nil)
	renewal.Wait()
	return err
}

// atMost runs do with a limit of its own.
func atMost(ctx context.Context, limit time.Duration, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return do(ctx)
}
