package notes

import (
	"cmp"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/rowhouse-platform/rowhouse/sdk/flags"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/jobs"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/shares"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanthttp"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantotel"
	"github.com/rowhouse-platform/rowhouse/sdk/trust"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	name        = "notes"
	headTimeout = 10 * time.Second
	idleTimeout = time.Minute
	drainTime   = 10 * time.Second
	importShare = 0.25 // of a worker's time: the rest is for requests
)

// Migrations returns the app's migrations.
func Migrations() fs.FS {
	sub, err := fs.Sub(migrations, "migrations")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return sub
}

// Migrate brings the app's database up to date. dsnFile holds the connection string of the
// role that may, rowhouse_migrator_notes.
func Migrate(ctx context.Context, dsnFile string) error {
	dsn, err := secret(dsnFile)
	if err != nil {
		return err
	}
	//rowlint:ignore G1 the migrator works on tables, in no tenant, and may not read their rows
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return fmt.Errorf("connect as the migrator: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return cell.Migrate(ctx, conn, Migrations())
}

// MigrateJobs brings the database of the queue of jobs up to date. dsnFile holds the connection string of its owner.
func MigrateJobs(ctx context.Context, dsnFile string) error {
	dsn, err := secret(dsnFile)
	if err != nil {
		return err
	}
	return jobs.Migrate(ctx, dsn)
}

// app is the running app.
type app struct {
	c         Config
	clock     func() time.Time
	telemetry *tenantotel.Telemetry
	source    *identity.Source
	verifier  *tenant.Verifier
	trusted   *trust.Client
	known     *tenant.Trust
	refresher *trust.Refresher
	db        *tenantdb.DB
	look      func(ctx context.Context) Look
	settings  func(ctx context.Context) Settings
	observe   grpc.UnaryServerInterceptor
	shares    *shares.Meter
	tenancy   grpc.ClientConnInterface
	queue     *jobs.Queue // nil without imports
	closers   []func()
}

// Run serves until ctx ends, then drains. It returns nil after an orderly end.
func Run(ctx context.Context, c Config) (err error) {
	a := &app{c: c, clock: tenant.NewClock()}
	a.telemetry, err = tenantotel.Setup(ctx, tenantotel.Config{Service: name, Endpoint: strings.TrimPrefix(c.OTLP, "http://")})
	if err != nil {
		return fmt.Errorf("telemetry: %w", err)
	}
	defer func() { err = errors.Join(err, a.close(context.WithoutCancel(ctx))) }()
	for _, part := range []func(context.Context) error{a.identify, a.follow, a.report, a.open, a.configure, a.enlist} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return a.serve(ctx)
}

func (a *app) close(ctx context.Context) error {
	for _, done := range slices.Backward(a.closers) {
		done()
	}
	return a.telemetry.Shutdown(ctx)
}

// identify reads the process's certificate.
func (a *app) identify(context.Context) (err error) {
	a.source, err = identity.Files(a.c.Identity.Cert, a.c.Identity.Key, a.c.Identity.Roots, identity.Options{})
	return err
}

// follow opens tenancy's feed: which tenants there are and whose contexts to trust.
func (a *app) follow(ctx context.Context) error {
	conn, err := a.dial(a.c.Tenancy)
	if err != nil {
		return err
	}
	roots, err := keyfile.Public(a.c.TrustRoots)
	if err != nil {
		return err
	}
	keys, err := keyfile.Public(a.c.Tenancy.FeedKeys)
	if err != nil {
		return err
	}
	renewal := make([]grpc.ClientConnInterface, 0, len(a.c.Renewal)+1)
	for _, p := range a.c.Renewal {
		gateway, err := a.dial(p)
		if err != nil {
			return err
		}
		renewal = append(renewal, gateway)
	}
	a.tenancy, a.refresher = conn, trust.NewRefresher(append(renewal, conn)...)
	a.known = tenant.NewTrust(a.clock)
	a.trusted, err = trust.Open(ctx, trust.Config{
		Tenancy: conn, Trust: a.known, Roots: roots, FeedKeys: keys, Replica: a.c.Replica, Dir: a.c.State,
		Clock: a.clock, Log: a.telemetry.Logger(),
	})
	if err != nil {
		return fmt.Errorf("follow tenancy: %w", err)
	}
	a.closers = append(a.closers, a.trusted.Close)
	a.verifier, err = tenant.NewVerifier(tenant.VerifierConfig{
		Trust: a.known, Audience: tenant.AudienceApp(a.c.AudienceBit), Cells: []string{a.c.Cell}, MayPresent: tenant.Presenters(a.c.Gateways...),
	})
	return err
}

// dial opens a connection to one of Rowhouse's services, with this app's identity and
// the tenant of the call that is being served.
func (a *app) dial(p Peer) (*grpc.ClientConn, error) {
	options := append(a.telemetry.ClientOptions(tenantgrpc.ClientConfig{}),
		grpc.WithTransportCredentials(credentials.NewTLS(a.source.ClientTLS(p.Identity))))
	conn, err := grpc.NewClient(p.Address, options...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", p.Identity, err)
	}
	a.closers = append(a.closers, func() { _ = conn.Close() })
	return conn, nil
}

// report tells quota what tenants take of the database, for its report on noisy neighbours.
func (a *app) report(ctx context.Context) error {
	a.shares = shares.New()
	if a.c.Quota.Address == "" {
		return nil
	}
	conn, err := a.dial(a.c.Quota)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var reporting sync.WaitGroup
	reporting.Go(func() {
		_ = a.shares.Report(ctx, shares.Config{Quota: conn, Replica: a.c.Replica, Log: a.telemetry.Logger()}) // both are there
	})
	a.closers = append(a.closers, func() { cancel(); reporting.Wait() })
	return nil
}

// open opens the database handle.
func (a *app) open(ctx context.Context) error {
	dsn, err := secret(a.c.Database)
	if err != nil {
		return err
	}
	a.db, err = tenantdb.Open(ctx, tenantdb.Config{
		App: name, Cells: map[string]tenantdb.Cell{a.c.Cell: {DSN: dsn}}, Clock: a.clock,
		Tracer: otelpgx.NewTracer(otelpgx.WithTracerProvider(a.telemetry.TracerProvider())), Used: a.shares.Database,
	})
	if err == nil {
		a.closers = append(a.closers, a.db.Close)
	}
	return err
}

// enlist opens the queue of jobs, where there is one.
func (a *app) enlist(ctx context.Context) error {
	if a.c.Jobs == nil {
		return nil
	}
	dsn, err := secret(a.c.Jobs.Database)
	if err != nil {
		return err
	}
	minted, err := tenant.NewVerifier(tenant.VerifierConfig{ // of what tenancy answers, and of no call
		Trust: a.known, Audience: tenant.AudienceApp(a.c.AudienceBit), Cells: []string{a.c.Cell},
		MayPresent: tenant.Presenters(a.c.Tenancy.Identity),
	})
	if err != nil {
		return err
	}
	a.queue, err = jobs.Open(ctx, jobs.Config{
		DB: a.db, DSN: dsn, Kinds: []jobs.Kind{ImportJob()}, Weight: WeightOf,
		Classes: map[string]jobs.Class{importClass: {Workers: a.c.Jobs.Workers, Share: cmp.Or(a.c.Jobs.Share, importShare)}},
		Minter:  jobs.Tenancy(a.tenancy, minted, a.c.Tenancy.Identity), Log: a.telemetry.Logger(),
	})
	if err == nil {
		a.closers = append(a.closers, a.queue.Close)
	}
	return err
}

// serve opens the three ports and serves until ctx ends.
func (a *app) serve(ctx context.Context) error {
	notes := New(a.db, a.settings)
	config := tenantgrpc.ServerConfig{
		Verifier: a.verifier, Refresher: a.refresher, Clock: a.clock, Log: a.telemetry.Logger(),
	}
	api := grpc.NewServer(append(a.telemetry.ServerOptions(config), grpc.Creds(credentials.NewTLS(a.source.ServerTLS())),
		grpc.ChainUnaryInterceptor(a.observe))...)
	Register(api, notes)
	var options []Option
	if a.queue != nil {
		imports := NewImports(a.db, a.queue)
		RegisterImports(api, imports)
		options = append(options, WithImports(imports))
	}
	if err := tenantgrpc.Check(api, config); err != nil {
		return err
	}
	safe := a.telemetry.Handler(tenanthttp.Config{Verifier: a.verifier, Refresher: a.refresher, Clock: a.clock}, "/notes",
		Handler(notes, a.look, options...))
	web := &http.Server{
		Handler: safe, ReadHeaderTimeout: headTimeout, IdleTimeout: idleTimeout,
		TLSConfig: a.source.ServerTLS(identity.WithHTTP1()),
	}
	ops := &http.Server{Handler: a.probes(), ReadHeaderTimeout: headTimeout}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return listen(ctx, a.c.GRPC, api.Serve) })
	g.Go(func() error {
		return listen(ctx, a.c.HTTP, func(l net.Listener) error { return web.ServeTLS(l, "", "") })
	})
	g.Go(func() error { return listen(ctx, a.c.Ops, ops.Serve) })
	if a.queue != nil {
		g.Go(func() error { return a.queue.Run(ctx) })
	}
	g.Go(func() error {
		<-ctx.Done()
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
		defer cancel()
		stop := time.AfterFunc(drainTime, api.Stop)
		defer stop.Stop()
		err := web.Shutdown(drain)
		api.GracefulStop()
		return errors.Join(err, ops.Shutdown(drain))
	})
	err := g.Wait()
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

func listen(ctx context.Context, address string, serve func(net.Listener) error) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	err = serve(l)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// probes answers the plain port.
func (a *app) probes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		select {
		case <-a.trusted.Ready():
		default:
			http.Error(w, "the tenants are not loaded yet", http.StatusServiceUnavailable)
		}
	})
	mux.Handle("GET /metrics", a.telemetry.Metrics())
	return mux
}

// configure follows config's feed, which tells how tenants look and what is set for them.
func (a *app) configure(ctx context.Context) error {
	conn, err := a.dial(a.c.Config)
	if err != nil {
		return err
	}
	keys, err := keyfile.Public(a.c.Config.FeedKeys)
	if err != nil {
		return err
	}
	store := &settings.Store{Trust: a.known, Log: a.telemetry.Logger()}
	follower, err := settings.Follow(ctx, settings.FollowConfig{
		Config: conn, FeedKeys: keys, Replica: a.c.Replica, Store: store, Dir: a.c.State, Clock: a.clock, Log: a.telemetry.Logger(),
		Metrics: a.telemetry.MeterProvider(),
	})
	if err != nil {
		return err
	}
	a.closers = append(a.closers, follower.Close)
	a.observe = store.UnaryObserver() // so that rollouts of settings halt when tenants fare worse with them
	features, err := flags.New(flags.Config{Store: store, Clock: a.clock, Metrics: a.telemetry.MeterProvider()})
	if err != nil {
		return err
	}
	a.settings = func(ctx context.Context) Settings {
		s, err := settings.For[Settings](ctx, store, name)
		if err != nil {
			return Settings{} // the defaults are better than no answer
		}
		return s
	}
	a.look = func(ctx context.Context) Look {
		b, err := settings.BrandFor(ctx, store)
		if err != nil {
			b = settings.Brand{} // a page without a brand is better than none
		}
		look := lookOf(b)
		look.Name, look.Count = cmp.Or(b.Name, "Notes"), features.Bool(ctx, "note-count", false)
		return look
	}
	return nil
}
