package pg_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/internal/pg"
)

// silent is a server that begins a transaction and then answers nothing.
type silent struct{ pgx.Tx }

func (s silent) BeginTx(context.Context, pgx.TxOptions) (pgx.Tx, error) { return s, nil }

func (silent) Rollback(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestSilentServerDoesNotHoldARollback(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		failure, begun := errors.New("no"), time.Now()
		err := pg.Tx(ctx, silent{}, pg.TxOptions{}, func(context.Context, pgx.Tx) error {
			cancel()
			return failure
		})
		if took := time.Since(begun); !errors.Is(err, failure) || took != time.Second {
			t.Errorf("%v after %s", err, took)
		}
	})
}
