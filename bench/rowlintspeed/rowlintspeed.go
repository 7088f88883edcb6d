// Package rowlintspeed measures how long rowlint takes over packages that changed.
//
// The peer is go vet over the same packages. Both are given a module of small packages with
// handlers and statements, as product teams write them. Before each measurement every file
// gets another comment and the packages are built, as they are where tests run, too; parser,
// tables and rules are paid for in each run. go list compiles packages for rowlint that are
// not built, which go vet does not need: what that adds is told beside the result.
package rowlintspeed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/rowhouse-platform/rowhouse/bench/measure"
)

const (
	rounds     = 5
	packages   = 20
	statements = 5   // in each package
	goal       = 3.0 // times as long as go vet takes; the parser's start alone is a second
	module     = "github.com/rowhouse-platform/rowhouse"
)

// Benchmark returns the comparison.
func Benchmark() measure.Benchmark {
	return measure.Benchmark{
		Name:  "rowlint-speed",
		About: "ms of rowlint per changed package, all built, beside go vet on the same packages; the goal bounds the ratio",
		Run:   run,
	}
}

func run(ctx context.Context, env measure.Env) (measure.Result, error) {
	binary := filepath.Join(env.Scratch, "rowlint")
	if err := command(ctx, env.Root, "go", "build", "-buildvcs=false", "-o", binary, "./cmd/rowlint"); err != nil {
		return measure.Result{}, err
	}
	m := filepath.Join(env.Scratch, "module")
	if err := writeModule(env.Root, m); err != nil {
		return measure.Result{}, err
	}
	var ours, theirs, unbuilt []float64
	changes := 0
	timed := func(build bool, name string, args ...string) (float64, error) {
		changes++
		if err := change(m, changes); err != nil {
			return 0, err
		}
		if build {
			if err := command(ctx, m, "go", "build", "./..."); err != nil {
				return 0, err
			}
		}
		start := time.Now()
		err := command(ctx, m, name, args...)
		return float64(time.Since(start).Milliseconds()), err
	}
	for round := range env.RoundsOr(rounds) + 1 {
		lint, err := timed(true, binary, "./...")
		if err != nil {
			return measure.Result{}, err
		}
		vet, err := timed(true, "go", "vet", "./...")
		if err != nil {
			return measure.Result{}, err
		}
		cold, err := timed(false, binary, "./...")
		if err != nil {
			return measure.Result{}, err
		}
		if round > 0 { // the first one compiles what all import
			ours, theirs, unbuilt = append(ours, lint), append(theirs, vet), append(unbuilt, cold)
		}
	}
	value, peer := measure.Median(ours), measure.Median(theirs)
	ratio := measure.Median(measure.Ratios(ours, theirs))
	return measure.Result{
		Name: "rowlint-speed", Value: value / packages, Unit: "ms/package",
		Peer: "go-vet", Ratio: ratio, Goal: goal, OK: ratio <= goal,
		Beside: []string{
			fmt.Sprintf("rowlint: %.0f ms for %d packages with %d statements, %.0f statements/s; go vet: %.0f ms",
				value, packages, packages*statements, packages*statements/value*1000, peer),
			fmt.Sprintf("rowlint, packages not built: %.0f ms", measure.Median(unbuilt)),
		},
	}, nil
}

// command runs a program in a folder. Without C, as rowlint is shipped.
func command(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, out)
	}
	return nil
}

const migration = `CREATE TABLE app.note (
    tenant_id uuid NOT NULL DEFAULT rowhouse.tenant_id(), id uuid NOT NULL, title text NOT NULL, body text NOT NULL,
    create_time timestamptz NOT NULL, PRIMARY KEY (tenant_id, id)
);
CREATE INDEX note_by_time ON app.note (tenant_id, create_time DESC, id);
SELECT rowhouse.secure('app.note');
`

const source = `// Package p%[1]d is a part of an app.
package p%[1]d

import (
	"context"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
)

// Change %[2]d.
var (
	list   = tenantdb.Stmt("SELECT id, title, body FROM app.note ORDER BY create_time DESC, id LIMIT $1")
	get    = tenantdb.Stmt("SELECT title, body FROM app.note WHERE id = $1")
	create = tenantdb.Stmt("INSERT INTO app.note (id, title, body) VALUES ($1, $2, $3) ON CONFLICT (tenant_id, id) DO NOTHING")
	update = tenantdb.Stmt("UPDATE app.note SET title = $2 WHERE id = $1 AND EXISTS (SELECT FROM app.note n WHERE n.id = $3)")
	remove = tenantdb.Stmt("DELETE FROM app.note WHERE id = $1 RETURNING title")
)

// Rename is a handler's work.
func Rename(ctx context.Context, db *tenantdb.DB, id, title string) error {
	return db.Tx(ctx, func(tx *tenantdb.Tx) error {
		if err := tx.QueryRow(ctx, get, id).Scan(new(string), new(string)); err != nil {
			return err
		}
		for _, s := range []tenantdb.Statement{list, create, update, remove} {
			if _, err := tx.Exec(ctx, s, id, title); err != nil {
				return err
			}
		}
		return nil
	})
}
`

// writeModule makes a module that requires what ours does, and ours.
func writeModule(root, dir string) error {
	ours, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return err
	}
	sum, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		return err
	}
	text := strings.Replace(string(ours), "module "+module, "module example.com/app", 1) +
		"\nrequire " + module + " v0.0.0\nreplace " + module + " => " + root + "\n"
	return errors.Join(write(dir, "go.mod", text), write(dir, "go.sum", string(sum)), write(dir, "migrations/0001_note.sql", migration))
}

// change writes all packages anew.
func change(dir string, n int) error {
	for i := range packages {
		if err := write(dir, fmt.Sprintf("p%d/p.go", i), fmt.Sprintf(source, i, n)); err != nil {
			return err
		}
	}
	return nil
}

func write(dir, name, text string) error {
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(text), 0o644)
}
