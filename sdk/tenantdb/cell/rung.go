package cell

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// carriers are the two settings that can hold the tenant of a transaction: how enter reads
// its carrier, which is empty when nothing was entered, and how it fills it.
//
// On L2a anybody may set the carrier for the whole session, where it would be in the way of all
// later transactions: behind a pooler, of other tenants. So the time at which the transaction
// began stands behind the seal, and with another time nothing was entered. Not as text, which
// settings of the session change. And in place of the seal's tag stands one over the seal and that
// time, k being the seal's key: who has a seal cannot carry it without entering.
func (r Rung) carriers() []string {
	if r == L2b {
		return []string{
			"{{carrier}}", "current_setting('backtrace_functions')",
			"{{carry}}", "set_config('backtrace_functions', encode(substr(seal, 17, 16), 'hex'), true)",
		}
	}
	return []string{
		"{{carrier}}", "(CASE WHEN right(current_setting('rowhouse.seal', true), 16) = " +
			"encode(timestamptz_send(transaction_timestamp()), 'hex') THEN current_setting('rowhouse.seal', true) ELSE '' END)",
		"{{carry}}", "set_config('rowhouse.seal', encode(substr(seal, 1, 36) || substr(sha256(k.opad || sha256(k.ipad || " +
			"substr(seal, 1, 36) || timestamptz_send(transaction_timestamp()))), 1, 16) || timestamptz_send(transaction_timestamp()), 'hex'), true)",
	}
}

// scripts make the functions of a rung. That of tenant_id names functions of enter.sql and
// the reverse; plpgsql binds late, so the order is free.
func (r Rung) scripts() []string {
	first := "rung_l2a.sql"
	if r == L2b {
		first = "rung_l2b.sql"
	}
	return []string{first, "enter.sql", "secure.sql", "replica.sql"}
}

// ReachableRung returns the rung that [Init] tries when none is asked for, and why: the
// highest that the login can set up, or the one on which the database stands if that is higher.
func ReachableRung(ctx context.Context, conn Conn) (rung Rung, why string, err error) {
	err = tx(ctx, conn, func(t pgx.Tx) error {
		super, err := isSuperuser(ctx, t)
		if err != nil {
			return err
		}
		var high bool // by its function: who may not read the record may see that
		err = t.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname = 'rowhouse' AND p.proname = 'tenant_id' AND NOT p.prosecdef)`).Scan(&high)
		switch {
		case err != nil:
			return fmt.Errorf("look for an earlier rung: %w", err)
		case super:
			rung, why = L2b, "the login is a superuser"
		case high:
			rung, why = L2b, "the database stands on it"
		default:
			rung, why = L2a, "the login is no superuser"
		}
		return nil
	})
	if err != nil {
		return "", "", fmt.Errorf("reachable rung: %w", err)
	}
	return rung, why, nil
}

// climb installs the functions of a rung and tries them.
func climb(ctx context.Context, t pgx.Tx, config *Config, super bool) error {
	had, err := standing(ctx, t, config.App)
	if err != nil {
		return err
	}
	rung := config.Rung
	if rung == "" {
		if rung = L2a; super || had == L2b {
			rung = L2b
		}
	}
	if had == L2b && rung != L2b {
		return fmt.Errorf("%w: the database stands on %s, %s was asked for", ErrRung, had, rung)
	}
	if err := install(ctx, t, config, rung); err != nil {
		return err
	}
	if err := attack(ctx, t, config.App, rung); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrRung, rung, err)
	}
	_, err = t.Exec(ctx, `SET LOCAL ROLE rowhouse_sec; INSERT INTO rowhouse.installed (rung, app) VALUES ('`+string(rung)+`', '`+
		config.App+`') ON CONFLICT (one) DO UPDATE SET rung = excluded.rung; RESET ROLE`, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return fmt.Errorf("store the rung: %w", err)
	}
	return nil
}

// standing returns the rung that was installed before, "" when none was.
func standing(ctx context.Context, t pgx.Tx, app string) (Rung, error) {
	var rung Rung
	var owner string
	if _, err := t.Exec(ctx, "SET LOCAL ROLE rowhouse_sec"); err != nil {
		return "", fmt.Errorf("become rowhouse_sec: %w", err)
	}
	err := t.QueryRow(ctx, "SELECT rung, app FROM rowhouse.installed").Scan(&rung, &owner)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("look for an earlier rung: %w", err)
	}
	if _, err := t.Exec(ctx, "RESET ROLE"); err != nil {
		return "", fmt.Errorf("reset role: %w", err)
	}
	if owner != "" && owner != app {
		return "", fmt.Errorf("the database belongs to app %q, not to %q", owner, app)
	}
	return rung, nil
}

func install(ctx context.Context, t pgx.Tx, config *Config, rung Rung) error {
	if _, err := t.Exec(ctx, "SET LOCAL ROLE rowhouse_sec"); err != nil {
		return fmt.Errorf("become rowhouse_sec: %w", err)
	}
	for _, name := range rung.scripts() {
		if err := run(ctx, t, name, append(rung.carriers(), config.roles()...)...); err != nil {
			return err
		}
	}
	if _, err := t.Exec(ctx, "RESET ROLE"); err != nil {
		return fmt.Errorf("reset role: %w", err)
	}
	return nil
}
