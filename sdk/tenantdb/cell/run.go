package cell

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Migrations are the app's code, and a session lets what runs in it get back to its login: by
// RESET, but also later, by a cursor that is fetched, a trigger that waits for the commit, a
// prepared statement that has the name of one of ours. So the login itself must be able to do no
// more than the app's migrator. The migrator's own login is used as it is. For any other one a
// role is made that lives as long as the run.
const (
	roleRun = "rowhouse_run"
	// runLogin is how long the role may log in after it was made.
	runLogin = time.Minute
	// runSweep is how long after that it is dropped when whoever made it crashed.
	runSweep = 24 * time.Hour
	// runEnd bounds the end of a run that was given up.
	runEnd = 10 * time.Second
)

// hasDependents is dependent_objects_still_exist.
const hasDependents = "2BP01"

// asMigrator calls fn with a connection that can do what the app's migrator can, and nothing
// else. When it returns nothing of the session runs any more, whatever the files did to go on.
func (to target) asMigrator(ctx context.Context, conn Conn, fn func(Conn) error) (err error) {
	migrator := roleMigrator + strings.TrimPrefix(to.owner, roleOwner)
	var role string // none for the migrator itself
	var config *pgx.ConnConfig
	var left []string
	err = tx(ctx, conn, func(t pgx.Tx) (err error) {
		var login string
		if err := t.QueryRow(ctx, "SELECT session_user::text").Scan(&login); err != nil {
			return fmt.Errorf("ask for the login: %w", err)
		}
		if login == migrator {
			return nil
		}
		left, err = names(ctx, t, "SELECT rolname::text FROM pg_catalog.pg_roles WHERE rolname ~ $1 AND rolvaliduntil < $2",
			"^"+roleRun+"_[0-9a-f]{32}$", time.Now().Add(-runSweep))
		if err != nil {
			return err
		}
		config = t.Conn().Config()
		role, config.Password, err = to.makeRun(ctx, t, migrator)
		return err
	})
	if err != nil {
		return fmt.Errorf("make a login for the run: %w", err)
	}
	if role == "" {
		return fn(conn)
	}
	for _, old := range left {
		_ = endRun(ctx, conn, old, 0) // one that has something in another database is dropped from there
	}
	var pid uint32
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), runEnd)
		defer cancel()
		err = errors.Join(err, endRun(ctx, conn, role, pid))
	}()
	config.User = role
	config.RuntimeParams["role"] = migrator // what RESET ROLE returns to
	// No names: the files could give them to statements of their own.
	config.DefaultQueryExecMode = pgx.QueryExecModeDescribeExec
	config.StatementCacheCapacity, config.DescriptionCacheCapacity = 0, 0
	run, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("log in for the run: %w", err)
	}
	defer func() {
		if run.IsClosed() { // in the middle of something that may not want to end
			pid = run.PgConn().PID()
			return
		}
		_ = run.Close(context.WithoutCancel(ctx)) // all that matters is committed
	}()
	return fn(run)
}

// makeRun makes a role that is a member of the migrator, with a password for one login soon.
func (to target) makeRun(ctx context.Context, t pgx.Tx, migrator string) (role, password string, err error) {
	role, password = roleRun+"_"+randomHex(), randomHex()
	verifier, err := scramVerifier(password)
	if err != nil {
		return "", "", err
	}
	sql := fmt.Sprintf("CREATE ROLE %s LOGIN INHERIT CONNECTION LIMIT 1 VALID UNTIL %s PASSWORD '%s' IN ROLE %s",
		role, literal(time.Now().Add(runLogin).Format(time.RFC3339)), verifier, quote(migrator))
	if !to.super {
		sql += " ROLE CURRENT_USER" // who is no superuser ends and drops what it is a member of
	}
	if _, err := t.Exec(ctx, sql); err != nil {
		return "", "", fmt.Errorf("create role: %w", err)
	}
	return role, password, nil
}

// endRun drops the role of a run, and before that ends its session if pid is not 0. A
// statement can refuse to be cancelled, but not to be terminated.
func endRun(ctx context.Context, conn Conn, role string, pid uint32) error {
	if pid != 0 {
		err := tx(ctx, conn, func(t pgx.Tx) error {
			_, err := t.Exec(ctx, `SELECT pg_catalog.pg_terminate_backend(a.pid, $3) FROM pg_catalog.pg_stat_activity a
WHERE a.pid = $1::int AND a.usename = $2`, pid, role, (runEnd / 2).Milliseconds()) // the number may be another's by now
			return err
		})
		if err != nil {
			return fmt.Errorf("end the session of %s: %w", role, err)
		}
	}
	drop := func(sql string) error {
		return tx(ctx, conn, func(t pgx.Tx) error { return script(ctx, t, "drop the login of the run", sql) })
	}
	err := drop("DROP ROLE " + role)
	if sqlState(err) == hasDependents {
		err = drop("DROP OWNED BY " + role + "; DROP ROLE " + role)
	}
	return err
}

// randomHex returns 128 random bits.
func randomHex() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
