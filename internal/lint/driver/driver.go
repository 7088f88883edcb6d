// Package driver runs all rules that need no database over packages and SQL files in one
// process. Start at [Run].
package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/tools/go/analysis/checker"
	"golang.org/x/tools/go/packages"

	"github.com/rowhouse-platform/rowhouse/internal/lint"
	"github.com/rowhouse-platform/rowhouse/internal/lint/gorule"
	"github.com/rowhouse-platform/rowhouse/internal/lint/schema"
	"github.com/rowhouse-platform/rowhouse/internal/lint/sqlrule"
	"github.com/rowhouse-platform/rowhouse/internal/lint/sqltext"
)

// Options say what to look at.
type Options struct {
	// Dir is the folder from which patterns and files are meant; empty is the working folder.
	Dir string
	// Patterns are packages as for go build.
	Patterns []string
	// SQL are more folders with *.sql files, beside the migrations of the packages.
	SQL []string
	// Config is a configuration file instead of the module's rowlint.yaml.
	Config string
	// BuildFlags are passed to go list, such as -tags=….
	BuildFlags []string
}

// Statement is a registered statement of a package.
type Statement struct {
	// SQL is its text and Name its variable.
	SQL, Name string
	// File and Line are where it is written.
	File string
	Line int
	// Migrations are the folders that describe its tables.
	Migrations []string
}

// Result is what a run found.
type Result struct {
	// Findings are in the order of their places, files named from Options.Dir.
	Findings []lint.Finding
	// Statements are those of package level that plan lint can plan, in the same order.
	Statements []Statement
	// Packages counts what was looked at.
	Packages int
}

// Run looks at packages and SQL files. An error says that it could not; findings are none.
func Run(ctx context.Context, o Options) (Result, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return Result{}, fmt.Errorf("working folder: %w", err)
	}
	house := &lint.House{}
	if o.Config != "" {
		house.Config = from(dir, o.Config)
	}
	r := &run{house: house, dir: dir, folders: map[string]lint.Place{}}
	if len(o.Patterns) > 0 {
		if err := r.goCode(ctx, o); err != nil {
			return Result{}, err
		}
	}
	for _, folder := range o.SQL {
		folder = from(dir, folder)
		if len(lint.SQLFiles(folder)) == 0 {
			return Result{}, fmt.Errorf("%s holds no *.sql file", folder)
		}
		r.folders[folder] = lint.Place{Migrations: []string{folder}}
	}
	if err := r.sqlFiles(); err != nil {
		return Result{}, err
	}
	r.result.Findings = lint.Sort(r.result.Findings)
	return r.result, nil
}

// from names a file from a folder.
func from(dir, file string) string {
	if filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(dir, file)
}

type run struct {
	house   *lint.House
	dir     string
	folders map[string]lint.Place // of *.sql files
	result  Result
}

// relative names a file from the folder of the run, where that is shorter.
func (r *run) relative(file string) string {
	if rel, err := filepath.Rel(r.dir, file); err == nil && len(rel) < len(file) {
		return filepath.ToSlash(rel)
	}
	return file
}

func (r *run) add(findings ...lint.Finding) {
	for _, f := range findings {
		f.File = r.relative(f.File)
		r.result.Findings = append(r.result.Findings, f)
	}
}

// goCode loads the packages and runs the analyzers. Dependencies are read as export data.
func (r *run) goCode(ctx context.Context, o Options) error {
	// The parser's first call takes a second, as long as go list does.
	var start sync.WaitGroup
	start.Go(func() { _, _ = sqltext.Parse("SELECT 1") })
	defer start.Wait()
	loaded, err := packages.Load(&packages.Config{
		Context: ctx, Dir: o.Dir, BuildFlags: o.BuildFlags,
		Mode: packages.LoadSyntax | packages.NeedModule,
	}, o.Patterns...)
	if err != nil {
		return fmt.Errorf("load packages: %w", err)
	}
	if len(loaded) == 0 {
		return fmt.Errorf("no package matches %q", o.Patterns)
	}
	var errs []error
	for _, p := range loaded {
		for _, e := range p.Errors {
			errs = append(errs, e)
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("load packages: %w", errors.Join(errs...))
	}
	if err := r.migrations(loaded); err != nil { // tells also of a broken configuration
		return err
	}
	graph, err := checker.Analyze(gorule.Analyzers(r.house), loaded, nil)
	if err != nil {
		return fmt.Errorf("analyze: %w", err)
	}
	r.result.Packages = len(loaded)
	for _, action := range graph.Roots {
		if action.Err != nil {
			return fmt.Errorf("%s: %w", action, action.Err)
		}
		switch result := action.Result.(type) {
		case []lint.Finding:
			r.add(result...)
		case *gorule.SQL:
			r.add(result.Findings...)
			if err := r.registered(action.Package, result.Statements); err != nil {
				return err
			}
		}
	}
	return nil
}

// registered keeps the statements that plan lint plans.
func (r *run) registered(p *packages.Package, statements []gorule.Statement) error {
	for _, s := range statements {
		if !s.Registered {
			continue
		}
		at := p.Fset.Position(s.Pos)
		place, err := r.house.Place(filepath.Dir(at.Filename))
		if err != nil {
			return err
		}
		if place.Kind == lint.ControlPlane {
			continue // it has no tenants' tables that migrations would describe
		}
		r.result.Statements = append(r.result.Statements, Statement{
			SQL: s.SQL, Name: s.Name, File: r.relative(at.Filename), Line: at.Line, Migrations: place.Migrations,
		})
	}
	return nil
}

// migrations notes the folders of SQL files that belong to the packages.
func (r *run) migrations(loaded []*packages.Package) error {
	for _, p := range loaded {
		if len(p.GoFiles) == 0 {
			continue
		}
		place, err := r.house.Place(filepath.Dir(p.GoFiles[0]))
		if err != nil {
			return err
		}
		for _, folder := range place.Migrations {
			r.folders[folder] = place
		}
	}
	return nil
}

// sqlFiles checks the files of all folders that were noted.
func (r *run) sqlFiles() error {
	for folder, place := range r.folders {
		if len(lint.SQLFiles(folder)) == 0 {
			return fmt.Errorf("%s holds no *.sql file", folder)
		}
		tables, err := r.house.Schema(place)
		if err != nil {
			return err
		}
		for _, file := range lint.SQLFiles(folder) {
			findings, err := sqlFile(file, tables)
			if err != nil {
				return err
			}
			r.add(findings...)
		}
	}
	return nil
}

func sqlFile(file string, tables *schema.Schema) ([]lint.Finding, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read SQL: %w", err)
	}
	text := string(b)
	var out []lint.Finding
	for _, f := range sqlrule.Check(text, sqlrule.Migration, tables) {
		out = append(out, f.In(file, text))
	}
	return slices.Clip(out), nil
}
