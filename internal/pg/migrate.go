package pg

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// migrationLock is the key of the advisory lock that makes migrations take turns: "rowhouse" in ASCII.
const migrationLock int64 = 0x726f77686f757365

const createHistory = `
create table if not exists public.rowhouse_migration (
    name text primary key,
    sha256 bytea not null,
    applied_at timestamptz not null default now()
)`

// ErrBehind is what [Verify] returns for a database that lacks migrations.
var ErrBehind = errors.New("the database lacks migrations")

// migration is one file.
type migration struct {
	name   string
	sql    string
	sum    []byte
	folder int // which of Database.Migrations it came from
}

// Migrate applies the migrations that the connection's database lacks, each in a transaction of its own, as Owner. The
// connection belongs to Migrator or to a superuser. Only one Migrate works at a time; the others wait. It fails, and
// changes nothing, when an applied file has changed or a new file sorts before an applied one of its folder.
func Migrate(ctx context.Context, conn *pgx.Conn, db Database) error {
	files, err := load(db.Migrations)
	if err != nil {
		return err
	}
	return withLock(ctx, conn, func() (err error) {
		if _, err := conn.Exec(ctx, "set role "+quote(db.Owner())); err != nil {
			return fmt.Errorf("become %s: %w", db.Owner(), err)
		}
		defer func() {
			ctx, cancel := cleanup(ctx)
			defer cancel()
			_, resetErr := conn.Exec(ctx, "reset role")
			err = errors.Join(err, resetErr)
		}()
		return migrate(ctx, conn, db, files)
	})
}

// Verify says whether the database has all migrations of db: nil, an error that wraps [ErrBehind] and names the first
// missing one, or one about a file that differs. The database may have more. Service may ask.
func Verify(ctx context.Context, q Querier, db Database) error {
	files, err := load(db.Migrations)
	if err != nil {
		return err
	}
	applied, err := history(ctx, q)
	if err != nil {
		if Code(err) == "42P01" || Code(err) == "42501" {
			return fmt.Errorf("%w: none was ever applied", ErrBehind)
		}
		return Fault(err)
	}
	missing, err := compare(files, applied)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: %s is missing", ErrBehind, missing[0].name)
	}
	return nil
}

// VerifyReachable is [Verify] for a service that starts while its database is away: that alone is no error. It waits no
// longer than a connection may take.
func VerifyReachable(ctx context.Context, q Querier, db Database) error {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	err := Verify(ctx, q, db)
	if fault.KindOf(err) == fault.Unavailable || ctx.Err() != nil {
		return nil
	}
	return err
}

// Querier is a pool, a connection or a transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func migrate(ctx context.Context, conn *pgx.Conn, db Database, files []migration) error {
	grant := "grant select on public.rowhouse_migration to " + quote(db.Service())
	for _, statement := range []string{createHistory, grant} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("prepare the history of migrations: %w", err)
		}
	}
	applied, err := history(ctx, conn)
	if err != nil {
		return fmt.Errorf("read the history of migrations: %w", err)
	}
	missing, err := compare(files, applied)
	if err != nil {
		return err
	}
	for _, m := range missing {
		if err := apply(ctx, conn, db, m); err != nil {
			return fmt.Errorf("migration %s: %w", m.name, err)
		}
	}
	return nil
}

func apply(ctx context.Context, conn *pgx.Conn, db Database, m migration) error {
	sql, err := fill(m.sql, db)
	if err != nil {
		return err
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, sql)
	if err == nil {
		const record = "insert into public.rowhouse_migration (name, sha256) values ($1, $2)"
		_, err = tx.Exec(ctx, record, m.name, m.sum)
	}
	if err != nil {
		ctx, cancel := cleanup(ctx)
		defer cancel()
		return errors.Join(err, tx.Rollback(ctx))
	}
	return tx.Commit(ctx)
}

// fill writes the names of database and roles into a file.
func fill(sql string, db Database) (string, error) {
	names := map[string]string{
		"{{owner}}": db.Owner(), "{{migrate}}": db.Migrator(), "{{service}}": db.Service(), "{{database}}": db.Name,
	}
	var unknown error
	filled := regexp.MustCompile(`\{\{[a-z_]+\}\}`).ReplaceAllStringFunc(sql, func(word string) string {
		name, ok := names[word]
		if !ok {
			unknown = fmt.Errorf("%s stands for nothing", word)
			return word
		}
		return quote(name)
	})
	return filled, unknown
}

// load merges the folders.
func load(folders []fs.FS) ([]migration, error) {
	var files []migration
	for i, folder := range folders {
		names, err := fs.Glob(folder, "*.sql")
		if err != nil {
			return nil, fmt.Errorf("list migrations: %w", err)
		}
		if len(names) == 0 {
			return nil, fmt.Errorf("folder %d of the migrations holds no *.sql file", i)
		}
		for _, name := range names {
			b, err := fs.ReadFile(folder, name)
			if err != nil {
				return nil, fmt.Errorf("read migration %s: %w", name, err)
			}
			sum := sha256.Sum256(b)
			files = append(files, migration{name: path.Base(name), sql: string(b), sum: sum[:], folder: i})
		}
	}
	slices.SortFunc(files, func(a, b migration) int { return strings.Compare(a.name, b.name) })
	for i := 1; i < len(files); i++ {
		if files[i].name == files[i-1].name {
			return nil, fmt.Errorf("two migrations are named %s", files[i].name)
		}
	}
	return files, nil
}

func history(ctx context.Context, q Querier) (map[string][]byte, error) {
	rows, err := q.Query(ctx, "select name, sha256 from public.rowhouse_migration")
	if err != nil {
		return nil, err
	}
	applied := map[string][]byte{}
	var name string
	var sum []byte
	_, err = pgx.ForEachRow(rows, []any{&name, &sum}, func() error {
		applied[name] = bytes.Clone(sum)
		return nil
	})
	return applied, err
}

// compare returns the files that are not applied. What is applied and not in files is a newer binary's.
func compare(files []migration, applied map[string][]byte) ([]migration, error) {
	var missing []migration
	gap := map[int]string{}
	for _, m := range files {
		sum, done := applied[m.name]
		switch {
		case !done:
			missing = append(missing, m)
			gap[m.folder] = m.name
		case !bytes.Equal(sum, m.sum):
			return nil, fmt.Errorf("migration %s was changed after it was applied (applied as sha256 %s, now %s)",
				m.name, hex.EncodeToString(sum), hex.EncodeToString(m.sum))
		case gap[m.folder] != "":
			return nil, fmt.Errorf("migration %s comes before %s, which is applied: migrations only go forward",
				gap[m.folder], m.name)
		}
	}
	return missing, nil
}

// withLock holds the migration lock of the connection's database while fn runs.
func withLock(ctx context.Context, conn *pgx.Conn, fn func() error) error {
	if _, err := conn.Exec(ctx, "select pg_advisory_lock($1)", migrationLock); err != nil {
		return fmt.Errorf("wait for the migration lock: %w", err)
	}
	err := fn()
	ctx, cancel := cleanup(ctx)
	defer cancel()
	_, unlockErr := conn.Exec(ctx, "select pg_advisory_unlock($1)", migrationLock)
	return errors.Join(err, unlockErr)
}

// Digest tells two states of a Database apart: it depends on the name and on every migration.
func (d Database) Digest() (string, error) {
	files, err := load(d.Migrations)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	_, _ = fmt.Fprintln(h, d.Name) // a hash never fails
	for _, m := range files {
		_, _ = fmt.Fprintf(h, "%s %x\n", m.name, m.sum)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
