// Package routes fills the gateway's routing table from tenancy's feed "routes".
//
// Open loads the last good state from disk, so that a gateway serves with the
// control plane gone, and follows the feed until [Client.Close]. An entry that does
// not make sense is quarantined by itself: its key keeps its last good value.
package routes

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/authority"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/edge"
)

// FeedName is the name of the feed.
const FeedName = "routes"

// reportEvery is how often the applied revision is told without a change.
const reportEvery = time.Second

// Config makes a [Client]. Tenancy, FeedKeys and Replica are required.
type Config struct {
	// Tenancy is a connection to the tenancy service.
	Tenancy grpc.ClientConnInterface
	// FeedKeys sign the feed's bookmarks.
	FeedKeys []ed25519.PublicKey
	// Replica names this process.
	Replica string
	// Dir keeps the last good state; empty keeps none.
	Dir   string
	Clock func() time.Time
	Log   *slog.Logger
	// SealKey is told which key each cell seals with now. Optional.
	SealKey func(cell string, kid uint8)
}

// Client follows the feed. Its methods are safe for concurrent use.
type Client struct {
	cfg     Config
	service tenancyv1.RoutingServiceClient
	table   atomic.Pointer[edge.Table]
	feed    *feed.Feed
	applied chan struct{}
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

// Open loads what the disk has and begins to follow the feed. It fails only when
// cfg cannot work; a control plane that is away is waited for.
func Open(ctx context.Context, cfg Config) (*Client, error) {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	c := &Client{cfg: cfg, service: tenancyv1.NewRoutingServiceClient(cfg.Tenancy), applied: make(chan struct{}, 1)}
	c.table.Store(edge.NewTable())
	ctx, c.cancel = context.WithCancel(ctx)
	var err error
	c.feed, err = feed.Start(ctx, feed.Config{
		Name: FeedName, Open: c.open, Check: check, Apply: c.apply,
		Keys: cfg.FeedKeys, Dir: cfg.Dir, Clock: cfg.Clock, Log: cfg.Log,
	})
	if err != nil {
		c.cancel()
		return nil, fmt.Errorf("follow the routes: %w", err)
	}
	c.done.Go(func() { c.report(ctx) })
	return c, nil
}

// Table returns the table in force. A request takes it once and keeps it.
func (c *Client) Table() *edge.Table { return c.table.Load() }

// Ready is closed once there is a table, from disk or from tenancy.
func (c *Client) Ready() <-chan struct{} { return c.feed.Ready() }

// Status returns where the feed stands.
func (c *Client) Status() feed.Status { return c.feed.Status() }

// Close ends the stream and waits for it; the table stays as it is.
func (c *Client) Close() {
	c.cancel()
	c.feed.Close()
	c.done.Wait()
}

func (c *Client) open(ctx context.Context, token string) (feed.Stream, error) {
	stream, err := c.service.WatchRoutes(ctx, &tenancyv1.WatchRoutesRequest{ResumeToken: []byte(token), Replica: c.cfg.Replica})
	if err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	return feed.Recv(func() (*apiv1.FeedFrame, error) {
		res, err := stream.Recv()
		return res.GetFrame(), err
	}), nil
}

// apply takes a revision in; a snapshot fills a new table and swaps it in whole.
func (c *Client) apply(change feed.Change) error {
	table := c.table.Load()
	if change.Reset {
		table = edge.NewTable()
	}
	for _, e := range change.Entries {
		if err := c.put(table, e); err != nil {
			return fmt.Errorf("%s: %w", e.Key, err)
		}
	}
	table.SetRevision(change.Revision)
	c.table.Store(table)
	select {
	case c.applied <- struct{}{}:
	default:
	}
	return nil
}

func (c *Client) put(table *edge.Table, e feed.Entry) error {
	if e.Deleted {
		remove(table, e.Key)
		return nil
	}
	entry, err := decode(e.Key, e.Value)
	if err != nil {
		return err
	}
	switch v := entry.(type) {
	case edge.Tenant:
		table.SetTenant(v)
	case edge.Domain:
		table.SetDomain(v)
	case edge.App:
		table.SetApp(v)
	case edge.Cell:
		table.SetCell(v)
		if c.cfg.SealKey != nil {
			c.cfg.SealKey(v.ID, v.SealKID)
		}
	case edge.Plan:
		table.SetPlan(v)
	}
	return nil
}

func remove(table *edge.Table, key string) {
	kind, id, _ := strings.Cut(key, "/")
	switch kind {
	case "tenant":
		if uid, err := tenant.ParseUID(id); err == nil {
			table.RemoveTenant(uid)
		}
	case "domain":
		if host, err := authority.ParseName(id); err == nil {
			table.RemoveDomain(host)
		}
	case "app":
		table.RemoveApp(id)
	case "cell":
		table.RemoveCell(id)
	case "plan":
		table.RemovePlan(id)
	}
}

// check judges an entry before it is applied.
func check(key string, value []byte) error {
	_, err := decode(key, value)
	return err
}

// decode turns an entry into what the table holds; nil for kinds that it does not.
func decode(key string, value []byte) (any, error) {
	m := new(tenancyv1.RouteEntry)
	if err := proto.Unmarshal(value, m); err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	var entry any
	var name string
	var err error
	switch k := m.GetKind().(type) {
	case *tenancyv1.RouteEntry_Tenant:
		var t edge.Tenant
		t, err = tenantOf(k.Tenant)
		entry, name = t, "tenant/"+t.UID.String()
	case *tenancyv1.RouteEntry_Domain:
		var d edge.Domain
		d, err = domainOf(k.Domain)
		entry, name = d, "domain/"+d.Host.String()
	case *tenancyv1.RouteEntry_App:
		var a edge.App
		a, err = appOf(k.App)
		entry, name = a, "app/"+a.ID
	case *tenancyv1.RouteEntry_Cell:
		cell := edge.Cell{
			ID: k.Cell.GetCell(), Number: k.Cell.GetNumber(), Region: k.Cell.GetRegion(),
			SealKID: uint8(k.Cell.GetSealKid()), //nolint:gosec // a kid is one byte
		}
		entry, name = cell, "cell/"+cell.ID
	case *tenancyv1.RouteEntry_Plan:
		plan := edge.Plan{ID: k.Plan.GetPlan(), Weight: int(k.Plan.GetWeight())}
		entry, name = plan, "plan/"+plan.ID
	default:
		if isOurs(key) {
			return nil, errForeign
		}
		return nil, nil //nolint:nilnil // nothing to hold is no error
	}
	if err == nil && name != key {
		err = errForeign
	}
	return entry, err
}

var errForeign = errors.New("the entry does not belong to its key")

// isOurs reports whether the table holds what is under such keys.
func isOurs(key string) bool {
	kind, _, _ := strings.Cut(key, "/")
	return slices.Contains([]string{"tenant", "domain", "app", "cell", "plan"}, kind)
}

func tenantOf(r *tenancyv1.TenantRoute) (edge.Tenant, error) {
	uid, err := uidOf(r.GetUid())
	if err != nil {
		return edge.Tenant{}, err
	}
	id, err := tenant.ParseID(r.GetTenantId())
	if err != nil {
		return edge.Tenant{}, fmt.Errorf("id: %w", err)
	}
	if r.GetGeneration() == 0 || r.GetCell() == "" || r.GetPlan() == "" {
		return edge.Tenant{}, errors.New("a tenant needs a generation, a cell and a plan")
	}
	return edge.Tenant{
		UID: uid, ID: id, DisplayName: r.GetDisplayName(), State: stateOf(r.GetState()), Generation: r.GetGeneration(),
		Plan: r.GetPlan(), Model: tenant.Model(r.GetModel()), Cell: r.GetCell(), //nolint:gosec // the enums have the same numbers
		PlacementGeneration: r.GetPlacementGeneration(),
		DenyOnLoss:          r.GetLossPolicy() == tenancyv1.LossPolicy_LOSS_POLICY_DENY,
	}, nil
}

func stateOf(s tenancyv1.TenantState) edge.State {
	switch s {
	case tenancyv1.TenantState_TENANT_STATE_ACTIVE:
		return edge.Active
	case tenancyv1.TenantState_TENANT_STATE_SUSPENDED:
		return edge.Suspended
	case tenancyv1.TenantState_TENANT_STATE_DELETED:
		return edge.Deleted
	default:
		return edge.NotReady
	}
}

func domainOf(r *tenancyv1.DomainRoute) (edge.Domain, error) {
	host, err := authority.ParseName(r.GetHost())
	if err != nil {
		return edge.Domain{}, fmt.Errorf("host: %w", err)
	}
	uid, err := uidOf(r.GetTenantUid())
	return edge.Domain{Host: host, Tenant: uid, App: r.GetApp()}, err
}

func appOf(r *tenancyv1.AppRoute) (edge.App, error) {
	app := edge.App{
		ID: r.GetApp(), Audience: tenant.AudienceApp(int(r.GetAudienceBit())),
		GRPCServices: make(map[string]bool), Upstreams: make(map[string]edge.Upstream),
	}
	if app.ID == "" || app.Audience == 0 {
		return app, errors.New("an app needs an id and an audience bit")
	}
	for _, s := range r.GetGrpcServices() {
		app.GRPCServices[s] = true
	}
	for _, h := range r.GetSharedHosts() {
		host, err := authority.ParseName(h)
		if err != nil {
			return app, fmt.Errorf("shared host: %w", err)
		}
		app.SharedHosts = append(app.SharedHosts, host)
	}
	for _, u := range r.GetUpstreams() {
		app.Upstreams[u.GetCell()] = edge.Upstream{
			GRPCAddress: u.GetGrpcAddress(), HTTPAddress: u.GetHttpAddress(), SPIFFEID: u.GetSpiffeId(),
		}
	}
	return app, nil
}

func uidOf(b []byte) (tenant.UID, error) {
	var uid tenant.UID
	if copy(uid[:], b) != len(uid) || len(b) != len(uid) {
		return uid, errors.New("a uid has 16 bytes")
	}
	if _, err := tenant.ParseUID(uid.String()); err != nil {
		return uid, fmt.Errorf("uid: %w", err)
	}
	return uid, nil
}

// report tells tenancy what was applied: after each change and once a second.
func (c *Client) report(ctx context.Context) {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.applied:
		case <-tick.C:
		}
		status := c.feed.Status()
		quarantined := slices.Sorted(maps.Keys(status.Quarantined))
		const most = 100
		_, err := c.service.ReportApplied(ctx, &tenancyv1.ReportAppliedRequest{
			Feed: FeedName, Replica: c.cfg.Replica, AppliedRevision: status.Revision,
			Quarantined: quarantined[:min(len(quarantined), most)],
		})
		if err != nil && ctx.Err() == nil {
			c.cfg.Log.DebugContext(ctx, "the applied revision was not reported", "error", err)
		}
	}
}
