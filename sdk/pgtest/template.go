package pgtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
)

// Template is the content that databases begin with.
type Template struct {
	// Name is a short word for people, of lower-case letters and "_".
	Name string
	// Hash tells two contents of one name apart; a change must change it. Without a
	// hash the content is taken to be this process's own.
	Hash string
	// Owner and App are login roles that are made when they are missing, neither
	// superuser nor with BYPASSRLS. The database belongs to Owner. Both may be empty:
	// then the superuser owns it, and the setup makes what roles it needs.
	Owner, App string
	// Setup fills a new database; dsn connects the superuser to it. It runs once per
	// server, one at a time among all processes, and must not expect that the
	// server's roles are new. Nil leaves the database empty.
	Setup func(ctx context.Context, dsn string) error
}

func (t Template) empty() bool { return t.Setup == nil && t.Owner == "" && t.App == "" }

// database returns the name of the template's database: all that decides on its
// content is in it.
func (t Template) database() string {
	hash := t.Hash
	if hash == "" {
		hash = fmt.Sprint("process ", os.Getpid())
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q %q", t.Name, hash, t.Owner, t.App))
	return "tmpl_" + legible(t.Name) + "_" + hex.EncodeToString(sum[:8])
}

// source returns the name of the database to copy.
func (c *cluster) source(ctx context.Context, tmpl Template) (string, error) {
	if tmpl.empty() {
		return "template0", nil
	}
	name := tmpl.database()
	made, _ := c.templates.LoadOrStore(name, sync.OnceValue(func() error {
		// All tests of the process get this result, so it must not depend on the
		// life of the one that came first.
		return c.ensureTemplate(context.WithoutCancel(ctx), name, tmpl)
	}))
	ensure, ok := made.(func() error)
	if !ok {
		return "", fmt.Errorf("%T among the templates", made)
	}
	return name, ensure()
}

// ensureTemplate makes the template if this server has none. All setups of a server
// run under one lock, because they meet at its roles. It is taken in the database
// postgres, for PostgreSQL keeps such locks apart by database.
func (c *cluster) ensureTemplate(ctx context.Context, name string, tmpl Template) error {
	conn, err := c.admin.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Release()
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1, 0)", templateLock); err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	defer func() { _, _ = conn.Exec(ctx, "SELECT pg_advisory_unlock($1, 0)", templateLock) }()
	var ready bool
	const done = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)"
	if err := conn.QueryRow(ctx, done, name).Scan(&ready); err != nil || ready {
		return err
	}
	return c.build(ctx, conn.Conn(), name, tmpl)
}

// build fills a database under another name and renames it when it is complete, so
// that a crash leaves no half-made template.
func (c *cluster) build(ctx context.Context, conn *pgx.Conn, name string, tmpl Template) error {
	owner := pgserver.Superuser
	for _, role := range []string{tmpl.Owner, tmpl.App} {
		if role == "" {
			continue
		}
		if err := EnsureRole(ctx, conn, Role{Name: role}); err != nil {
			return err
		}
	}
	if tmpl.Owner != "" {
		owner = tmpl.Owner
	}
	// The one lock makes the draft of one name ours alone: what is there is a dead
	// process's.
	draft := "draft_" + name
	err := execAll(ctx, conn,
		"DROP DATABASE IF EXISTS "+draft+" WITH (FORCE)",
		"CREATE DATABASE "+draft+" TEMPLATE template0 STRATEGY "+c.strategy+" OWNER "+pgx.Identifier{owner}.Sanitize())
	if err != nil {
		return err
	}
	if tmpl.Setup != nil {
		err = tmpl.Setup(ctx, dsnFor(c.dsn, c.superuser(), draft))
	}
	if err == nil {
		err = execAll(ctx, conn,
			"ALTER DATABASE "+draft+" WITH ALLOW_CONNECTIONS false",
			"ALTER DATABASE "+draft+" RENAME TO "+name)
	}
	if err != nil {
		return errors.Join(err, execAll(ctx, conn, "DROP DATABASE IF EXISTS "+draft+" WITH (FORCE)"))
	}
	return nil
}

func execAll(ctx context.Context, conn *pgx.Conn, statements ...string) error {
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

// copyDatabase makes a copy in which everything is as in the source. CREATE DATABASE
// copies what is in the database, but neither its owner, nor the rights on it, nor the
// settings that ALTER DATABASE and ALTER ROLE … IN DATABASE made.
func (c *cluster) copyDatabase(ctx context.Context, source, name string) error {
	create := "CREATE DATABASE " + name + " TEMPLATE " + source + " STRATEGY " + c.strategy
	if _, err := c.admin.Exec(ctx, create); err != nil {
		return fmt.Errorf("create the database: %w", err)
	}
	if source == "template0" {
		return nil
	}
	batch := &pgx.Batch{}
	batch.Queue(`UPDATE pg_database d SET datdba = s.datdba, datacl = s.datacl, datconnlimit = s.datconnlimit
		FROM pg_database s WHERE d.datname = $1 AND s.datname = $2`, name, source)
	batch.Queue(`INSERT INTO pg_db_role_setting (setdatabase, setrole, setconfig)
		SELECT d.oid, r.setrole, r.setconfig FROM pg_database d, pg_database s, pg_db_role_setting r
		WHERE d.datname = $1 AND s.datname = $2 AND r.setdatabase = s.oid`, name, source)
	if err := c.admin.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("copy the rights and settings of the template: %w", err)
	}
	return nil
}
