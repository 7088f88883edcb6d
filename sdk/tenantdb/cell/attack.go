package cell

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// attack tries, as the role that the app logs in as and in a savepoint that is rolled back,
// what the rung must refuse, and that an honest seal still enters.
func attack(ctx context.Context, t pgx.Tx, app string, rung Rung) (err error) {
	if err := checkConfined(ctx, t, app); err != nil {
		return err
	}
	if _, err := t.Exec(ctx, "SAVEPOINT attack"); err != nil {
		return fmt.Errorf("savepoint: %w", err)
	}
	defer func() {
		if _, end := t.Exec(ctx, "ROLLBACK TO SAVEPOINT attack; RELEASE SAVEPOINT attack"); err == nil && end != nil {
			err = fmt.Errorf("roll the trial back: %w", end)
		}
	}()
	seal, err := trialSeal(ctx, t)
	if err != nil {
		return err
	}
	for _, trial := range trials(rung) {
		err := attempt(ctx, t, app, trial.sql)
		if err == nil {
			return fmt.Errorf("the app may run %q", trial.sql)
		}
		if state := sqlState(err); !strings.Contains(trial.states, state) || state == "" {
			return fmt.Errorf("%q failed otherwise than it should: %w", trial.sql, err)
		}
	}
	if err := becomeApp(ctx, t, app); err != nil {
		return err
	}
	forged := seal
	forged[20] ^= 1
	if err := attemptSeal(ctx, t, forged); sqlState(err) != "RH003" {
		return fmt.Errorf("a forged seal was not refused: %w", err)
	}
	var uid [16]byte
	if _, err := t.Exec(ctx, "SELECT rowhouse.enter($1)", seal[:]); err != nil {
		return fmt.Errorf("an honest seal is refused: %w", err)
	}
	if err := t.QueryRow(ctx, "SELECT rowhouse.tenant_id()").Scan(&uid); err != nil || uid != trialTenant {
		return fmt.Errorf("an honest seal entered tenant %x: %w", uid, err)
	}
	return nil
}

type trial struct{ sql, states string }

func trials(rung Rung) []trial {
	common := []trial{
		{"SELECT rowhouse.tenant_id()", "42501"},
		{"SELECT ipad FROM rowhouse.mac_key", "42501"},
		{"SELECT state FROM rowhouse.placement", "42501"},
	}
	if rung != L2b {
		return common
	}
	return append(common,
		trial{"SET backtrace_functions = '0'", "42501"},
		trial{"SET LOCAL backtrace_functions = '0'", "42501"},
		trial{"SELECT set_config('backtrace_functions', '0', true)", "42501"},
		trial{"DO 'BEGIN END'", "42501"},
		trial{"CREATE TEMP TABLE t ()", "42501"},
	)
}

// attempt runs sql as the app in a savepoint of its own.
func attempt(ctx context.Context, t pgx.Tx, app, sql string) error {
	return nested(ctx, t, func(t pgx.Tx) error {
		if err := becomeApp(ctx, t, app); err != nil {
			return err
		}
		_, err := t.Exec(ctx, sql)
		return err
	})
}

// becomeApp takes the login role: it has the rights of rowhouse_app and what was granted
// to it alone.
func becomeApp(ctx context.Context, t pgx.Tx, app string) error {
	if _, err := t.Exec(ctx, "SET LOCAL ROLE "+quote(AppRole(app))); err != nil {
		return fmt.Errorf("become the app: %w", err)
	}
	return nil
}

func attemptSeal(ctx context.Context, t pgx.Tx, seal tenant.Seal) error {
	return nested(ctx, t, func(t pgx.Tx) error {
		_, err := t.Exec(ctx, "SELECT rowhouse.enter($1)", seal[:])
		return err
	})
}

func nested(ctx context.Context, t pgx.Tx, fn func(pgx.Tx) error) error {
	inner, err := t.Begin(ctx)
	if err != nil {
		return fmt.Errorf("savepoint: %w", err)
	}
	failed := fn(inner)
	if err := inner.Rollback(ctx); err != nil {
		return fmt.Errorf("roll back to the savepoint: %w", err)
	}
	return failed
}

// trialTenant is nobody: version 0 is no UUIDv7.
var trialTenant = tenant.UID{15: 1} //nolint:gochecknoglobals // a constant

// trialSeal installs a random key under a free key id and a placement, and seals for it.
func trialSeal(ctx context.Context, t pgx.Tx) (tenant.Seal, error) {
	var key tenant.SealKey
	if _, err := rand.Read(key[:]); err != nil {
		return tenant.Seal{}, fmt.Errorf("trial key: %w", err)
	}
	ipad, opad := pads(key)
	if _, err := t.Exec(ctx, "SET LOCAL ROLE rowhouse_sec"); err != nil {
		return tenant.Seal{}, fmt.Errorf("become rowhouse_sec: %w", err)
	}
	var kid uint8
	var now time.Time
	err := t.QueryRow(ctx, `
WITH p AS (INSERT INTO rowhouse.placement (tenant_id, state, generation) VALUES ($1, 'active', 1))
INSERT INTO rowhouse.mac_key (kid, cell, ipad, opad, not_after)
SELECT min(n), 1, $2, $3, clock_timestamp() + interval '1 hour' FROM generate_series(0, 255) n
WHERE n NOT IN (SELECT kid FROM rowhouse.mac_key)
RETURNING kid, clock_timestamp()`, [16]byte(trialTenant), ipad, opad).Scan(&kid, &now)
	if err != nil {
		return tenant.Seal{}, fmt.Errorf("trial key: SQLSTATE %s", sqlState(err))
	}
	if _, err := t.Exec(ctx, "RESET ROLE"); err != nil {
		return tenant.Seal{}, fmt.Errorf("reset role: %w", err)
	}
	claims := tenant.Claims{TenantUID: trialTenant, CellNumber: 1, PlacementGeneration: 1, ExpireTime: now.Add(30 * time.Second)}
	claims = claims.WithSeal(&key, kid)
	return sealOf(claims), nil
}

func sealOf(claims tenant.Claims) (seal tenant.Seal) {
	body := claims.SealBody()
	copy(seal[:], body[:])
	copy(seal[len(body):], claims.DBSeal[1:])
	return seal
}
