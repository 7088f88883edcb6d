package cli

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/rowhouse-platform/rowhouse/examples/notes"
	notesv1 "github.com/rowhouse-platform/rowhouse/gen/notes/v1"
	"github.com/rowhouse-platform/rowhouse/internal/prove"
	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/catalog"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
)

// subject is what `rowhouse prove` looks at.
type subject struct {
	app *app

	dsnFiles                    []string
	attack                      bool
	source, lintConfig, rowlint string
	packages                    []string
	audit                       catalog.Config

	logins  []*pgx.ConnConfig // of dsnFiles, or of the environment
	lint    prove.Source
	secrets prove.Secrets

	started sync.Once // guards arena, server and failed
	arena   prove.Server
	server  *pgserver.Server
	failed  error

	sampled sync.Once // guards samples and blind
	samples []*prove.Database
	blind   error
}

func (s *subject) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringArrayVar(&s.dsnFiles, "dsn-file", nil, "a file with a database's connection string; may be repeated; env "+envDSN+" holds one")
	f.BoolVar(&s.attack, "attack", false, "attack databases made for it on the server of the first --dsn-file")
	f.StringVar(&s.source, "source", "", "the folder of go.mod whose Go code and migrations are linted")
	f.StringArrayVar(&s.packages, "packages", nil, "packages of the source, as for go build; may be repeated (default ./...)")
	f.StringVar(&s.lintConfig, "rowlint-config", "", "rowlint's configuration (default: rowlint.yaml of the source)")
	f.StringVar(&s.rowlint, "rowlint", "", "rowlint's file (default: beside rowhouse, else on PATH)")
	f.StringSliceVar(&s.audit.Accept, "accept", nil, "rules of the catalog audit whose findings are risks that somebody took, such as R40")
	f.StringArrayVar(&s.audit.Definers, "definer", nil,
		"a function with its owner's rights that the app may call, as schema.name(types); may be repeated")
}

// open reads what the flags name; it connects to nothing.
func (s *subject) open(c *cobra.Command) error {
	names := s.dsnFiles
	if len(names) == 0 && strings.TrimSpace(s.app.getenv(envDSN)) != "" {
		names = []string{""}
	}
	for _, name := range names {
		config, err := s.app.login(name, "rowhouse prove")
		if err != nil {
			return usageError(err)
		}
		s.logins = append(s.logins, config)
		s.secrets.Add(config.Password, config.ConnString())
	}
	switch {
	case s.attack && len(s.logins) == 0:
		return usagef("--attack is for the server of a --dsn-file; without one prove attacks its own")
	case s.source == "" && (s.lintConfig != "" || len(s.packages) > 0 || c.Flags().Changed("rowlint")):
		return usagef("--packages, --rowlint-config and --rowlint are about a --source")
	}
	for _, rule := range s.audit.Accept {
		if _, known := catalog.RuleOf(rule); !known {
			return usagef("there is no rule %q; docs/catalog-audit.md lists them", rule)
		}
	}
	return s.locate()
}

// command is a command line that looks at the same again, as a shell takes it.
func (s *subject) command(args ...string) string {
	words := prove.Quote(append([]string{"rowhouse", "prove"}, args...)...)
	if len(s.logins) > 0 && len(s.dsnFiles) == 0 {
		return envDSN + `="${` + envDSN + `:?}" ` + words // without it prove would look at a server of its own
	}
	return words
}

// locate says what the linters read: the source is there before a minute's work, and its files
// do not depend on where rowlint runs, which is in the source.
func (s *subject) locate() (err error) {
	if s.source == "" {
		return nil
	}
	if info, err := os.Stat(s.source); err != nil {
		return usagef("--source: %w", err)
	} else if !info.IsDir() {
		return usagef("--source: %s is no folder", s.source)
	}
	if _, err := os.Stat(filepath.Join(s.source, "go.mod")); err != nil {
		return usagef("--source names the folder of go.mod: %w", err)
	}
	s.lint = prove.Source{Dir: s.source, Packages: s.packages, Rowlint: prove.FindRowlint(), Repeat: func(section string) string {
		return s.command(append([]string{"--only", section}, s.sourceFlags()...)...)
	}}
	for _, file := range []struct {
		flag, named string
		to          *string
	}{{"--rowlint", s.rowlint, &s.lint.Rowlint}, {"--rowlint-config", s.lintConfig, &s.lint.Config}} {
		if file.named == "" {
			continue
		}
		if info, err := os.Stat(file.named); err != nil {
			return usagef("%s: %w", file.flag, err)
		} else if !info.Mode().IsRegular() {
			return usagef("%s: %s is no file", file.flag, file.named)
		}
		if *file.to, err = filepath.Abs(file.named); err != nil {
			return fmt.Errorf("find rowlint's files: %w", err)
		}
	}
	return nil
}

// String says what is looked at, for the head of the report.
func (s *subject) String() string {
	var parts []string
	if len(s.logins) == 0 {
		parts = append(parts, "this release of Rowhouse, with the example app's tables on a PostgreSQL of its own")
	}
	for i := range s.logins {
		parts = append(parts, "the database of "+s.name(i))
	}
	if s.attack {
		parts = append(parts, "databases made for attacks on the same server")
	}
	if s.source != "" {
		parts = append(parts, "the source in "+s.source)
	}
	return strings.Join(parts, "; ")
}

// name is how the report calls the database of a login.
func (s *subject) name(i int) string {
	if len(s.dsnFiles) == 0 {
		return envDSN
	}
	return s.dsnFiles[i]
}

// checks are the sections, in the order of the report.
func (s *subject) checks() []prove.Check {
	noSource := ""
	if s.source == "" {
		noSource = "no source was named; --source . lints that of this folder"
	}
	lints := prove.LintChecks(s.lint, noSource)
	noArena := ""
	if len(s.logins) > 0 && !s.attack {
		noArena = "a database is only read; --attack attacks others that it makes on the same server"
	}
	example := prove.App{
		Services: []string{notesv1.NotesService_ServiceDesc.ServiceName}, Migrations: notes.Migrations(),
		Register: func(server *grpc.Server, db *tenantdb.DB) {
			notes.Register(server, notes.New(db, func(context.Context) notes.Settings { return notes.Settings{} }))
		},
	}
	return slices.Concat(prove.DatabaseChecks(s.databases), lints, []prove.Check{
		prove.APICheck(s.servers, example, noArena), prove.CorpusCheck(s.servers, noArena), prove.PoolerCheck(s.servers, noArena),
	})
}

// databases are those to read: those that were named, else our own.
func (s *subject) databases(ctx context.Context) ([]*prove.Database, error) {
	if len(s.logins) == 0 {
		return s.ours(ctx)
	}
	var all []*prove.Database
	for i, login := range s.logins {
		all = append(all, &prove.Database{Name: s.name(i), Config: login, Audit: s.audit, Repeat: func(section string) string {
			args := []string{"--only", section}
			if len(s.dsnFiles) > 0 {
				args = append(args, "--dsn-file", s.dsnFiles[i])
			}
			return s.command(append(args, s.auditFlags()...)...)
		}})
	}
	return all, nil
}

// ours are databases on a server that prove started, with the example app's tables.
func (s *subject) ours(ctx context.Context) ([]*prove.Database, error) {
	s.sampled.Do(func() {
		var server prove.Server
		if server, s.blind = s.servers(ctx); s.blind == nil {
			s.samples, s.blind = server.SampleDatabases(ctx, notes.Migrations())
		}
		for _, d := range s.samples {
			d.Audit = s.audit
			d.Repeat = func(section string) string {
				return s.command(append([]string{"--only", section}, s.auditFlags()...)...)
			}
		}
	})
	return s.samples, s.blind
}

// servers returns the server on which attacks run: that of the first login, else our own,
// started when the first section asks.
func (s *subject) servers(ctx context.Context) (prove.Server, error) {
	s.started.Do(func() { s.arena, s.failed = s.start(ctx) })
	return s.arena, s.failed
}

// repeat is the command that attacks again.
func (s *subject) repeat(section string) string {
	args := []string{"--only", section}
	if len(s.dsnFiles) > 0 {
		args = append(args, "--dsn-file", s.dsnFiles[0])
	}
	if s.attack {
		args = append(args, "--attack")
	}
	return s.command(args...)
}

func (s *subject) start(ctx context.Context) (prove.Server, error) {
	both := []cell.Rung{cell.L2a, cell.L2b}
	if len(s.logins) == 0 {
		// As durable as one for tenants, so that nothing has to be excused in the report.
		durable := map[string]string{"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
		server, err := pgserver.Start(ctx, pgserver.Options{Settings: durable})
		if err != nil {
			return prove.Server{}, err
		}
		s.server = server
		return prove.Server{DSN: server.DSN(pgserver.Login{}), Rungs: both, Own: true, Repeat: s.repeat, Secrets: &s.secrets}, nil
	}
	login := s.logins[0]
	conn, err := pgx.ConnectConfig(ctx, login)
	if err != nil {
		return prove.Server{}, fmt.Errorf("connect: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var super, may bool
	err = conn.QueryRow(ctx, `SELECT rolsuper, rolcreatedb AND rolcreaterole
FROM pg_catalog.pg_roles WHERE rolname = current_user`).Scan(&super, &may)
	var random [4]byte
	_, _ = rand.Read(random[:]) // crypto/rand never fails
	server := prove.Server{
		DSN: login.ConnString(), Rungs: both, Suffix: "-x" + hex.EncodeToString(random[:]), Repeat: s.repeat, Secrets: &s.secrets,
	}
	switch {
	case err != nil:
		return server, fmt.Errorf("look at the login: %w", err)
	case !super && !may:
		return server, errors.New("--attack makes databases and roles: the login must be a superuser, or have CREATEDB and CREATEROLE")
	case !super:
		server.Rungs = both[:1]
	}
	return server, prove.Undisturbed(ctx, conn)
}

// close stops the server that prove started, and its databases with it.
func (s *subject) close(ctx context.Context) error {
	if s.server == nil {
		return nil
	}
	return s.server.Stop(ctx)
}

// arguments are the flags of the subject that were given.
func (s *subject) arguments() (args []string) {
	for _, name := range s.dsnFiles {
		args = append(args, "--dsn-file", name)
	}
	if s.attack {
		args = append(args, "--attack")
	}
	return append(append(args, s.sourceFlags()...), s.auditFlags()...)
}

func (s *subject) sourceFlags() (args []string) {
	for _, f := range []struct{ flag, value string }{{"--source", s.source}, {"--rowlint-config", s.lintConfig}, {"--rowlint", s.rowlint}} {
		if f.value != "" {
			args = append(args, f.flag, f.value)
		}
	}
	for _, p := range s.packages {
		args = append(args, "--packages", p)
	}
	return args
}

func (s *subject) auditFlags() (args []string) {
	if len(s.audit.Accept) > 0 {
		args = append(args, "--accept", strings.Join(s.audit.Accept, ","))
	}
	for _, d := range s.audit.Definers {
		args = append(args, "--definer", d)
	}
	return args
}
