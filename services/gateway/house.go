package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/go-jose/go-jose/v4"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/grpc"

	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	gatewayv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/gateway/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/audit/auditrpc"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/internal/renew"
	"github.com/rowhouse-platform/rowhouse/internal/serve"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
	"github.com/rowhouse-platform/rowhouse/sdk/limits"
	"github.com/rowhouse-platform/rowhouse/sdk/shares"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/trust"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/brands"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/front"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/mint"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/routes"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/rpc"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/token"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/upstream"
)

// scope names the gateway's spans and metrics.
const scope = "github.com/rowhouse-platform/rowhouse/services/gateway"

// house is a gateway while it is built and while it runs.
type house struct {
	c         Config
	random    io.Reader
	options   serve.Options
	listening func(http, https string)

	p       *serve.Process
	self    identity.ID
	routes  *routes.Client
	trusted *trust.Client
	trust   *tenant.Trust
	limits  *feed.Feed
	looks   *looks
	shares  *shares.Meter
	flags   *flagDoor
	minter  *mint.Minter
	keeper  *mint.Keeper
	pool    *upstream.Pool
	service serve.Service
}

// build makes all parts; serve.Run closes what was opened also when it fails.
func (h *house) build(ctx context.Context, p *serve.Process) (*serve.Service, error) {
	h.p = p
	h.service.Ready = h.ready
	for _, part := range []func(context.Context) error{
		h.identify, h.followTenancy, h.followQuota, h.followConfig, h.followClientKeys, h.keepKeys, h.openDoors, h.openAPI,
	} {
		if err := part(ctx); err != nil {
			return &h.service, err
		}
	}
	return &h.service, nil
}

func (h *house) close(fn func()) { h.service.Close = append(h.service.Close, fn) }

func (h *house) background(fn func(context.Context) error) {
	h.service.Background = append(h.service.Background, fn)
}

// identify learns who this gateway is.
func (h *house) identify(context.Context) error {
	h.self = h.p.Identity.ID()
	const private = 0o700
	if err := os.MkdirAll(string(h.c.State), private); err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	return nil
}

// followTenancy opens the feeds of routes and of trust.
func (h *house) followTenancy(ctx context.Context) error {
	conn, err := h.dial(ctx, h.c.Tenancy)
	if err != nil {
		return err
	}
	keys, err := h.c.Tenancy.feedKeys()
	if err != nil {
		return err
	}
	roots, err := keyfile.Public(string(h.c.TrustRoots))
	if err != nil {
		return fmt.Errorf("trust roots: %w", err)
	}
	h.minter, h.trust = mint.New(h.p.Clock, h.random), tenant.NewTrust(h.p.Clock)
	kek, err := keyfile.Secret(string(h.c.KEK))
	if err != nil {
		return fmt.Errorf("key-encryption key: %w", err)
	}
	h.keeper, err = mint.NewKeeper(mint.KeeperConfig{
		Minter: h.minter, Certifier: certifier{tenancyv1.NewContextServiceClient(conn)}, Roots: roots, SPIFFEID: h.self.String(),
		Path: h.c.in("context.key"), KEK: kek, Clock: h.p.Clock, Random: h.random, Log: h.p.Log, Settled: h.settled,
	})
	if err != nil {
		return err
	}
	// Requests are served on while the process drains, so its feeds are not to end before: Close ends them.
	ctx = context.WithoutCancel(ctx)
	h.trusted, err = trust.Open(ctx, trust.Config{
		Tenancy: conn, Trust: h.trust, Roots: roots, FeedKeys: keys, Replica: h.c.Replica, Dir: h.c.in("trust"), Clock: h.p.Clock, Log: h.p.Log,
	})
	if err != nil {
		return err
	}
	h.close(h.trusted.Close)
	h.routes, err = routes.Open(ctx, routes.Config{
		Tenancy: conn, FeedKeys: keys, Replica: h.c.Replica, Dir: h.c.in("routes"), Clock: h.p.Clock, Log: h.p.Log, SealKey: h.keeper.Want,
	})
	if err != nil {
		return err
	}
	h.close(h.routes.Close)
	return nil
}

const (
	// settleTime is what apps' feeds may need for what ours has already.
	settleTime = 2 * time.Second
	// settleMost is how long a key may take to come back by our own feed.
	settleMost  = time.Minute
	settleCheck = 20 * time.Millisecond
	// revokedCheck is how often a gateway looks whether its own key is still accepted.
	revokedCheck = time.Second
)

// settled waits until our own trust knows a new signing key and, where an older key
// can be used meanwhile, apps have had the time to hear of it too.
func (h *house) settled(ctx context.Context, id tenant.KeyID) error {
	ctx, cancel := context.WithTimeout(ctx, settleMost)
	defer cancel()
	tick := time.NewTicker(settleCheck)
	defer tick.Stop()
	for !h.trust.Certifies(id) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for the feed to bring the signing key: %w", ctx.Err())
		}
	}
	if h.certified() != nil {
		return nil
	}
	select {
	case <-time.After(settleTime):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// followQuota opens the feed of limits.
func (h *house) followQuota(ctx context.Context) error {
	conn, err := h.dial(ctx, h.c.Quota)
	if err != nil {
		return err
	}
	keys, err := h.c.Quota.feedKeys()
	if err != nil {
		return err
	}
	store := new(limits.Store)
	h.limits, err = limits.Follow(context.WithoutCancel(ctx), limits.FollowConfig{
		Quota: conn, FeedKeys: keys, Replica: h.c.Replica, Store: store, Dir: h.c.in("limits"), Clock: h.p.Clock, Log: h.p.Log,
	})
	if err != nil {
		return err
	}
	h.close(h.limits.Close)
	h.looks = &looks{}
	h.shares = shares.New()
	h.background(func(ctx context.Context) error {
		return h.shares.Report(ctx, shares.Config{Quota: conn, Replica: h.c.Replica, Log: h.p.Log})
	})
	quota := limits.Remote(conn, h.c.Replica)
	h.looks.limiter = limits.New(limits.Config{Granter: quota, Slots: quota, Policies: store, Clock: h.p.Clock, Log: h.p.Log})
	h.background(h.looks.limiter.Run)
	return nil
}

// keepKeys renews the signing key beside serving, and replaces one that was revoked.
func (h *house) keepKeys(context.Context) error {
	h.background(h.keeper.Run)
	h.background(func(ctx context.Context) error {
		tick := time.NewTicker(revokedCheck)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil
			}
			if h.minter.Keys() != nil && h.certified() != nil {
				h.keeper.Replace()
			}
		}
	})
	return nil
}

// certified says why what the gateway signs is not accepted.
func (h *house) certified() error {
	keys := h.minter.Keys()
	switch {
	case keys == nil:
		return fault.New(fault.Unavailable, fault.ReasonStarting, "no certified signing key yet")
	case !h.trust.Certifies(keys.Signer.KeyID()):
		return fault.New(fault.Unavailable, fault.ReasonStarting, "the signing key was revoked; another one is being made")
	default:
		return nil
	}
}

// openDoors opens the front door.
func (h *house) openDoors(ctx context.Context) error {
	tokens, err := h.tokens()
	if err != nil {
		return err
	}
	verifier, err := tenant.NewVerifier(tenant.VerifierConfig{
		Trust: h.trust, Audience: tenant.AudienceGateway, MayPresent: h.mayPresent,
	})
	if err != nil {
		return fmt.Errorf("verifier: %w", err)
	}
	h.service.Verifier = verifier
	h.pool = upstream.NewPool(h.p.Identity)
	h.close(h.pool.Close)
	handler, err := front.New(front.Config{
		Ready: h.able, Table: h.routes.Table, Silence: h.trust.Silence, Tokens: tokens, Minter: h.minter, Verifier: verifier, Self: h.self,
		Services: tenant.AudienceConfig | tenant.AudienceQuota | tenant.AudienceGateway | tenant.AudienceTenancy,
		Changed:  h.trust.Watch, Standing: h.standing,
		Limits: h.looks.limiter, Upstream: h.pool, Selector: h.c.SelectorHeader, Brand: h.looks.brand, Own: h.looks.serve,
		Preview: front.Preview{Cookie: brands.Cookie, Private: brands.Private},
		Flags:   h.flags, Observe: h.looks.observe, Share: h.c.Share.queue(), Used: h.used,
		Tracer: h.p.Telemetry.TracerProvider().Tracer(scope), Log: h.p.Log,
		Meter: h.p.Telemetry.MeterProvider().Meter(scope),
	})
	if err != nil {
		return err
	}
	if err := h.observe(); err != nil {
		return err
	}
	doors, err := openDoors(ctx, h.c, handler, h.p.Log)
	if err != nil {
		return err
	}
	h.close(func() { _ = doors.closeListeners() }) // closed already unless the start failed
	doors.server.RegisterOnShutdown(h.flags.end)
	h.background(doors.serve)
	if h.listening != nil {
		h.listening(doors.addresses())
	}
	return nil
}

// used counts what a request took, for the report on noisy neighbours.
func (h *house) used(tc tenant.Context, u front.Usage) {
	took := []shares.Took{
		{Resource: shares.Requests, Amount: 1}, {Resource: shares.InFlight, Amount: u.InFlight.Microseconds()},
		{Resource: shares.Bytes, Amount: u.In + u.Out}, {Resource: shares.Delay, Amount: u.Delayed.Microseconds()},
	}
	if u.Refused {
		took = append(took, shares.Took{Resource: shares.Refusals, Amount: 1})
	}
	h.shares.Add(tc, took...)
}

// observe lets metrics say how old what the gateway knows is.
func (h *house) observe() error {
	meter := h.p.Telemetry.MeterProvider().Meter(scope)
	silence, err := meter.Float64ObservableGauge("rowhouse.control_plane.silence", metric.WithUnit("s"),
		metric.WithDescription("How long tenancy's feed has been silent."))
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	revision, err := meter.Int64ObservableGauge("rowhouse.routes.revision", metric.WithDescription("Revision of the routing table in force."))
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	left, err := meter.Float64ObservableGauge("rowhouse.signing_key.left", metric.WithUnit("s"),
		metric.WithDescription("How long the certificate of the key that signs contexts is still good."))
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	_, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveFloat64(silence, h.trust.Silence().Seconds())
		o.ObserveInt64(revision, h.routes.Table().Revision())
		if keys := h.minter.Keys(); keys != nil {
			o.ObserveFloat64(left, keys.Certificate.NotAfter.Sub(h.p.Clock()).Seconds())
		}
		return nil
	}, silence, revision, left)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}

// standing says why a tenant is not served any more.
func (h *house) standing(uid tenant.UID) error {
	switch t, ok := h.trust.Tenant(uid); {
	case !ok || t.State == tenant.StateDeleted:
		return fault.New(fault.PermissionDenied, fault.ReasonTenantDeleted, "this account was closed")
	case t.State == tenant.StateSuspended:
		return fault.New(fault.PermissionDenied, fault.ReasonTenantSuspended, "this account is suspended")
	default:
		return nil
	}
}

// mayPresent says from whom this process takes contexts: from itself, which reads back
// what it has minted, and from workloads with the right, as gateways have. An app has
// its contexts renewed by being in their audience; see rpc.Renewals.
func (h *house) mayPresent(id identity.ID) bool {
	return id == h.self || h.p.Callers.MayPresent(id)
}

// tokens makes the verifier of users' tokens.
func (h *house) tokens() (*token.Verifier, error) {
	var issuers []token.Issuer
	for _, i := range h.c.Issuers {
		b, err := i.JWKS.Read()
		if err != nil {
			return nil, fmt.Errorf("users: issuer %q: %w", i.Issuer, err)
		}
		var keys jose.JSONWebKeySet
		if err := json.Unmarshal(b, &keys); err != nil {
			return nil, fmt.Errorf("users: issuer %q: not a JSON Web Key Set: %w", i.Issuer, err)
		}
		issuers = append(issuers, token.Issuer{
			Issuer: i.Issuer, Audiences: i.Audiences, Algorithms: i.Algorithms, TenantClaim: i.TenantClaim, Tenants: i.Tenants, Keys: keys,
		})
	}
	return token.New(issuers, h.p.Clock)
}

// openAPI registers the gateway's own gRPC services. Its database is opened, not
// waited for: without it only the audited calls fail. One that answers must have all
// migrations.
func (h *house) openAPI(ctx context.Context) error {
	db, err := pg.Open(ctx, pg.Config{DSNFile: string(h.c.Database), Name: "gateway", TracerProvider: h.p.Telemetry.TracerProvider()})
	if err != nil {
		return fmt.Errorf("database: %w", err)
	}
	h.close(db.Close)
	// Whatever else keeps us from the database must not keep traffic from flowing.
	if err := pg.VerifyReachable(ctx, db, pg.Database{Name: Database, Migrations: Migrations()}); errors.Is(err, pg.ErrBehind) {
		return fmt.Errorf("database: %w", err)
	}
	kernel := change.New(change.Config{Pool: db, Service: "gateway", Meters: h.p.Telemetry.MeterProvider(), Clock: h.p.Clock, Log: h.p.Log})
	h.background(kernel.Run)
	h.service.Denied = kernel.Denied
	edgeService := &rpc.Edge{Kernel: kernel, Table: h.routes.Table, Source: h.source}
	renewals, err := renew.New(renew.Config{
		House: rpc.Renewals{Table: h.routes.Table, Signing: h.minter.Renewal, MayPresent: h.mayPresent}, Trust: h.trust, Clock: h.p.Clock,
	})
	if err != nil {
		return err
	}
	h.service.Register = func(s *grpc.Server) {
		gatewayv1.RegisterEdgeServiceServer(s, edgeService)
		tenancyv1.RegisterContextRenewalServiceServer(s, renewals)
		auditv1.RegisterAuditServiceServer(s, auditrpc.New(kernel, db))
	}
	return nil
}

// source tells where the routing table came from.
func (h *house) source() string {
	if h.routes.Status().Source == feed.SourceDisk {
		return "disk"
	}
	return "live"
}

// ready says what is still missing to be sent traffic.
func (h *house) ready() error {
	if err := h.able(); err != nil {
		return err
	}
	return loaded("settings", h.looks.feed.Ready())
}

// able says what is still missing to serve at all: without looks pages are plain.
func (h *house) able() error {
	err := errors.Join(
		loaded("routes", h.routes.Ready()), loaded("trust", h.trusted.Ready()), loaded("limits", h.limits.Ready()),
	)
	if err == nil {
		err = h.certified()
	}
	return err
}

func loaded(what string, ready <-chan struct{}) error {
	select {
	case <-ready:
		return nil
	default:
		return fault.New(fault.Unavailable, fault.ReasonStarting, "no %s yet, from disk or from the control plane", what)
	}
}

func (h *house) dial(ctx context.Context, peer Peer) (*grpc.ClientConn, error) {
	conn, err := h.p.Dial(peer.Address, peer.Identity)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", peer.Identity, err)
	}
	h.close(func() {
		if err := conn.Close(); err != nil {
			h.p.Log.DebugContext(ctx, "close", "error", err)
		}
	})
	return conn, nil
}

// certifier is tenancy's ContextService without call options.
type certifier struct {
	service tenancyv1.ContextServiceClient
}

// CertifyKey certifies a key.
func (c certifier) CertifyKey(ctx context.Context, in *tenancyv1.CertifyKeyRequest) (*tenancyv1.CertifyKeyResponse, error) {
	return c.service.CertifyKey(ctx, in)
}
