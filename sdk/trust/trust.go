// Package trust keeps a [tenant.Trust] up to date from tenancy's feed "tenants": the state of every tenant and the keys
// that may sign tenant contexts.
//
// [Open] loads the last good state from disk, so that a service starts with the control plane gone, and follows the
// feed until [Client.Close]. It reports to tenancy what it has applied, which is what a suspension waits for. Verifying
// tokens against the trust is [tenant.NewVerifier]'s matter.
package trust

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

const (
	// FeedName is the name of the feed that a Client follows.
	FeedName = "tenants"

	tenantPrefix = "tenant/"
	keyPrefix    = "key/"

	// denyAfter is the silence from which on tenants with the policy DENY are refused.
	denyAfter      = 60 * time.Second
	reportEvery    = time.Second
	reportLimit    = 2 * time.Second
	maxQuarantined = 100 // keys in one report
)

// Config says where the feed comes from and what fills.
type Config struct {
	// Tenancy is a connection to the tenancy service, with this process's own mTLS identity.
	Tenancy grpc.ClientConnInterface
	// Trust is what is kept up to date. Nobody else writes it.
	Trust *tenant.Trust
	// Catalog is kept up to date too, if there is one.
	Catalog *Catalog
	// Roots are the keys that sign key certificates: the current one and the next.
	Roots []ed25519.PublicKey
	// FeedKeys are the keys that sign the feed's bookmarks.
	FeedKeys []ed25519.PublicKey
	// Replica names this process, unique while it runs.
	Replica string
	// Dir keeps the last good state; empty keeps none.
	Dir string
	// Clock is the time of what is heard. Default time.Now; it must be the clock of Trust.
	Clock func() time.Time
	// Silence is after how long without a sign of life the stream is opened again. Default 5 s.
	Silence time.Duration
	// Log gets what goes wrong. Default slog.Default().
	Log *slog.Logger
}

// Client follows the feed. Its methods are safe for concurrent use.
type Client struct {
	cfg     Config
	service tenancyv1.RoutingServiceClient
	feed    *feed.Feed
	applied chan struct{}
	cancel  context.CancelFunc
	done    sync.WaitGroup
}

// Open loads what the disk has and begins to follow the feed. It fails only when cfg cannot work; a control plane that
// is away is waited for.
func Open(ctx context.Context, cfg Config) (*Client, error) {
	if cfg.Tenancy == nil || cfg.Trust == nil || len(cfg.Roots) == 0 || cfg.Replica == "" {
		return nil, errors.New("trust: a connection, a trust, roots and a replica name are needed")
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	c := &Client{
		cfg: cfg, service: tenancyv1.NewRoutingServiceClient(cfg.Tenancy), applied: make(chan struct{}, 1),
	}
	ctx, c.cancel = context.WithCancel(ctx)
	var err error
	c.feed, err = feed.Start(ctx, feed.Config{
		Name: FeedName, Open: c.open, Check: c.check, Apply: c.apply, Applied: c.wake, Bookmark: c.bookmark,
		Keys: cfg.FeedKeys, Dir: cfg.Dir, Clock: cfg.Clock, Silence: cfg.Silence, Log: cfg.Log,
	})
	if err != nil {
		c.cancel()
		return nil, err
	}
	c.done.Go(func() { c.report(ctx) })
	return c, nil
}

// Ready is closed once the trust has a state, from disk or from tenancy.
func (c *Client) Ready() <-chan struct{} { return c.feed.Ready() }

// Status returns where the feed stands.
func (c *Client) Status() feed.Status { return c.feed.Status() }

// Run waits for ctx to end and then closes the client: for callers that run their parts in a group.
func (c *Client) Run(ctx context.Context) error {
	<-ctx.Done()
	c.Close()
	return nil
}

// Close ends the stream and waits for it. The trust keeps its last state and grows stale. Close may be called again.
func (c *Client) Close() {
	c.cancel()
	c.feed.Close()
	c.done.Wait()
}

func (c *Client) open(ctx context.Context, token string) (feed.Stream, error) {
	stream, err := c.service.WatchTenants(ctx, &tenancyv1.WatchTenantsRequest{
		ResumeToken: []byte(token), Replica: c.cfg.Replica,
	})
	if err != nil {
		return nil, err
	}
	return feed.Recv(func() (*apiv1.FeedFrame, error) {
		res, err := stream.Recv()
		return res.GetFrame(), err
	}), nil
}

// check refuses an entry that could not be applied, so that it alone is quarantined.
func (c *Client) check(key string, value []byte) error {
	_, err := c.decode(key, value)
	return err
}

// decoded is an entry: a key's certificate, a tenant's state, a plan or a cell's region. None of these means that there is
// nothing to know.
type decoded struct {
	cert         *tenant.KeyCertificate
	state        *tenant.TenantState
	plan, region string
	weight       int32 // of the plan
}

func (c *Client) decode(key string, value []byte) (decoded, error) {
	entry := new(tenancyv1.RouteEntry)
	if err := proto.Unmarshal(value, entry); err != nil {
		return decoded{}, fmt.Errorf("decode: %w", err)
	}
	switch kind := entry.GetKind().(type) {
	case *tenancyv1.RouteEntry_ContextKey:
		cert, err := tenant.ParseKeyCertificate(c.cfg.Roots, kind.ContextKey.GetCertificate())
		if err == nil && key != keyPrefix+hex.EncodeToString(cert.KeyID[:]) {
			err = errors.New("the certificate is of another key")
		}
		return decoded{cert: &cert}, err
	case *tenancyv1.RouteEntry_Tenant:
		state, served, err := stateOf(kind.Tenant)
		if err == nil && key != tenantPrefix+uidOf(kind.Tenant).String() {
			err = errors.New("the entry is of another tenant")
		}
		if err != nil || !served {
			return decoded{}, err
		}
		return decoded{state: &state}, nil
	case *tenancyv1.RouteEntry_Plan:
		if key != planPrefix+kind.Plan.GetPlan() {
			return decoded{}, errors.New("the entry is of another plan")
		}
		return decoded{plan: kind.Plan.GetPlan(), weight: kind.Plan.GetWeight()}, nil
	case *tenancyv1.RouteEntry_Cell:
		if key != cellPrefix+kind.Cell.GetCell() {
			return decoded{}, errors.New("the entry is of another cell")
		}
		return decoded{region: kind.Cell.GetRegion()}, nil
	default:
		return decoded{}, nil // a kind of a newer tenancy
	}
}

func uidOf(t *tenancyv1.TenantRoute) (uid tenant.UID) {
	if len(t.GetUid()) == len(uid) {
		copy(uid[:], t.GetUid())
	}
	return uid
}

// stateOf also says whether the tenant was ever served; no token can be made for one that was not. Values that are not
// known here are read as the strictest: a refused entry would leave the last one in force, which may serve.
func stateOf(t *tenancyv1.TenantRoute) (s tenant.TenantState, served bool, err error) {
	s.Generation, s.PlacementGeneration, s.Plan = t.GetGeneration(), t.GetPlacementGeneration(), t.GetPlan()
	if s.UID, err = tenant.ParseUID(uidOf(t).String()); err != nil {
		return s, false, err
	}
	if s.ID, err = tenant.ParseID(t.GetTenantId()); err != nil {
		return s, false, err
	}
	s.Region = t.GetRegion()
	if len(t.GetParentUid()) > 0 {
		if len(t.GetParentUid()) != len(s.Parent) {
			return s, false, errors.New("the parent's uid is not of 16 bytes")
		}
		s.Parent = tenant.UID(t.GetParentUid())
	}
	switch t.GetState() {
	case tenancyv1.TenantState_TENANT_STATE_CREATING, tenancyv1.TenantState_TENANT_STATE_FAILED:
		return s, false, nil
	case tenancyv1.TenantState_TENANT_STATE_ACTIVE:
		s.State = tenant.StateActive
	case tenancyv1.TenantState_TENANT_STATE_SUSPENDED:
		s.State = tenant.StateSuspended
	case tenancyv1.TenantState_TENANT_STATE_DELETED:
		s.State = tenant.StateDeleted
	default:
		s.State = tenant.StateSuspended // of a newer tenancy: what is not known to serve does not
	}
	switch t.GetLossPolicy() {
	case tenancyv1.LossPolicy_LOSS_POLICY_SERVE:
		s.Loss = tenant.LossServe
	default: // DENY, and what a newer tenancy may have
		s.Loss = tenant.LossDenyAfter(denyAfter)
	}
	return s, true, nil
}

func (c *Client) apply(change feed.Change) error {
	if change.Reset {
		return c.replace(change.Entries)
	}
	for _, e := range change.Entries {
		if err := c.set(e); err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) replace(entries []feed.Entry) error {
	var certs []tenant.KeyCertificate
	var states []tenant.TenantState
	plans, regions, weights := map[string]string{}, map[string]string{}, map[string]int32{}
	for _, e := range entries {
		d, err := c.decode(e.Key, e.Value)
		switch {
		case err != nil:
			return err
		case d.cert != nil:
			certs = append(certs, *d.cert)
		case d.state != nil:
			states = append(states, *d.state)
		case d.plan != "":
			plans[e.Key], weights[d.plan] = d.plan, d.weight
		case d.region != "":
			regions[e.Key] = d.region
		}
	}
	if err := c.cfg.Trust.Replace(certs, states); err != nil {
		return err
	}
	c.cfg.Catalog.replace(plans, regions, weights)
	return nil
}

func (c *Client) set(e feed.Entry) error {
	var d decoded
	if !e.Deleted {
		var err error
		if d, err = c.decode(e.Key, e.Value); err != nil {
			return err
		}
	}
	switch {
	case d.cert != nil:
		return c.cfg.Trust.SetKey(*d.cert)
	case d.state != nil:
		return c.cfg.Trust.SetTenant(*d.state)
	}
	c.cfg.Catalog.set(e.Key, d)
	if digits, ok := strings.CutPrefix(e.Key, keyPrefix); ok {
		var id tenant.KeyID
		if n, err := hex.Decode(id[:], []byte(digits)); err != nil || n != len(id) {
			return errors.New("not a key id")
		}
		c.cfg.Trust.RevokeKey(id)
	}
	if text, ok := strings.CutPrefix(e.Key, tenantPrefix); ok {
		uid, err := tenant.ParseUID(text)
		if err != nil {
			return err
		}
		c.cfg.Trust.RemoveTenant(uid)
	}
	return nil
}

// bookmark tells the trust how fresh it is. What the disk holds is as old as the server's word for it.
func (c *Client) bookmark(b feed.Bookmark) {
	if b.Source == feed.SourceLive {
		c.cfg.Trust.Bookmark(c.cfg.Clock())
		return
	}
	c.cfg.Trust.Bookmark(b.ServerTime)
}

func (c *Client) wake(int64) {
	select {
	case c.applied <- struct{}{}:
	default:
	}
}

// report tells tenancy what is in force here: after each change, and each second as a sign of life.
func (c *Client) report(ctx context.Context) {
	tick := time.NewTicker(reportEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-c.applied:
		}
		status := c.feed.Status()
		if status.Source != feed.SourceLive {
			continue // nobody to tell, or nothing that they do not know
		}
		if err := c.reportOnce(ctx, status); err != nil && ctx.Err() == nil {
			c.cfg.Log.DebugContext(ctx, "trust: cannot report what was applied", "error", err)
		}
	}
}

func (c *Client) reportOnce(ctx context.Context, status feed.Status) error {
	ctx, cancel := context.WithTimeout(ctx, reportLimit)
	defer cancel()
	bad := slices.Sorted(maps.Keys(status.Quarantined))
	_, err := c.service.ReportApplied(ctx, &tenancyv1.ReportAppliedRequest{
		Feed: FeedName, Replica: c.cfg.Replica, AppliedRevision: status.Revision,
		Quarantined: bad[:min(len(bad), maxQuarantined)],
	})
	return err
}
