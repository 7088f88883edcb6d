package limits

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// FeedName is the name of quota's feed of limits.
const FeedName = "limits"

// FollowConfig makes a follower of quota's limits. Quota, FeedKeys, Replica and
// Store are required.
type FollowConfig struct {
	// Quota is a connection to the quota service.
	Quota grpc.ClientConnInterface
	// FeedKeys sign the feed's bookmarks.
	FeedKeys []ed25519.PublicKey
	// Replica names this process.
	Replica string
	// Store gets the limits. Nobody else writes it.
	Store *Store
	// Dir keeps the last good state; empty keeps none.
	Dir   string
	Clock func() time.Time
	Log   *slog.Logger
}

// Follow keeps a store up to date from quota's feed, beginning with the last good
// state on disk. The caller closes the feed.
func Follow(ctx context.Context, c FollowConfig) (*feed.Feed, error) {
	service := quotav1.NewLimitServiceClient(c.Quota)
	open := func(ctx context.Context, token string) (feed.Stream, error) {
		stream, err := service.WatchLimits(ctx, &quotav1.WatchLimitsRequest{ResumeToken: []byte(token), Replica: c.Replica})
		if err != nil {
			return nil, fmt.Errorf("watch: %w", err)
		}
		return feed.Recv(func() (*apiv1.FeedFrame, error) {
			res, err := stream.Recv()
			return res.GetFrame(), err
		}), nil
	}
	f, err := feed.Start(ctx, feed.Config{
		Name: FeedName, Open: open, Apply: c.Store.Apply, Keys: c.FeedKeys, Dir: c.Dir, Clock: c.Clock, Log: c.Log,
		Check: func(key string, value []byte) error {
			return new(Store).Apply(feed.Change{Entries: []feed.Entry{{Key: key, Value: value}}})
		},
	})
	if err != nil {
		return nil, fmt.Errorf("follow the limits: %w", err)
	}
	return f, nil
}

// Apply takes a revision of the feed in. When it fails nothing has changed.
func (s *Store) Apply(change feed.Change) error {
	edits := make([]edit, 0, len(change.Entries))
	for _, entry := range change.Entries {
		e, err := decode(entry)
		if err != nil {
			return fmt.Errorf("%s: %w", entry.Key, err)
		}
		edits = append(edits, e)
	}
	if change.Reset {
		s.replace(edits)
	} else {
		s.put(edits...)
	}
	return nil
}

func decode(entry feed.Entry) (edit, error) {
	e, owner, err := parseKey(entry.Key)
	if err != nil || entry.Deleted {
		return e, err
	}
	m := new(quotav1.LimitEntry)
	if err := proto.Unmarshal(entry.Value, m); err != nil {
		return e, fmt.Errorf("decode: %w", err)
	}
	// Of a tenant the key has the uid and the name has the id.
	name := m.GetLimit().GetName()
	if !strings.HasPrefix(name, owner) || !strings.HasSuffix(name, "/limits/"+e.limit) {
		return e, errors.New("the limit does not belong to its key")
	}
	p, err := PolicyOf(m.GetLimit())
	e.policy = &p
	return e, err
}

// parseKey returns the place that a key of the feed names, and how names of limits
// there begin.
func parseKey(key string) (e edit, owner string, err error) {
	parts := strings.Split(key, "/")
	if slices.Contains(parts, "") {
		return e, "", errKey
	}
	e = edit{layer: parts[0], limit: parts[len(parts)-1]}
	switch {
	case len(parts) == 2 && e.layer == platform:
		return e, "platform/limits/", nil
	case len(parts) == 3 && e.layer == plans:
		e.plan = parts[1]
		return e, "plans/" + e.plan + "/limits/", nil
	case len(parts) == 3 && e.layer == tenants:
		e.uid, err = tenant.ParseUID(parts[1])
		return e, "tenants/", err
	}
	return e, "", errKey
}

var errKey = errors.New("not the key of a limit")

// PolicyOf reads a limit of the API. It fails for numbers that make no limit.
func PolicyOf(l *quotav1.Limit) (Policy, error) {
	_, id, _ := strings.Cut(l.GetName(), "/limits/")
	p := Policy{
		ID: id, Resource: cmp.Or(l.GetResource(), id), Revision: l.GetRevision(), Dimensions: slices.Clone(l.GetDimensions()),
		Shadow: l.GetMode() == quotav1.LimitMode_LIMIT_MODE_SHADOW, Match: matchesOf(l.GetMatch()),
	}
	var err error
	if l.GetKind() == quotav1.LimitKind_LIMIT_KIND_CONCURRENCY {
		p.Kind, p.Slots, p.TTL = lease.Concurrency, l.GetTokens(), l.GetPeriod().AsDuration()
		if p.Slots < 0 || p.Slots > gcra.MaxTokens || p.TTL < minTTL || p.TTL > maxTTL {
			return Policy{}, ErrSlots
		}
	} else if p.Limit, err = gcra.New(l.GetTokens(), l.GetPeriod().AsDuration(), l.GetBurst()); err != nil {
		return Policy{}, err
	}
	if len(p.Dimensions) > maxDimensions {
		return Policy{}, ErrDimensions
	}
	switch l.GetOnStoreLoss() {
	case quotav1.StoreLossPolicy_STORE_LOSS_POLICY_FAIL_OPEN:
		p.OnLoss = FailOpen
	case quotav1.StoreLossPolicy_STORE_LOSS_POLICY_FAIL_CLOSED:
		p.OnLoss = FailClosed
	}
	switch l.GetScope() {
	case quotav1.LimitScope_LIMIT_SCOPE_PLAN:
		p.Scope = ScopePlan
	case quotav1.LimitScope_LIMIT_SCOPE_PLATFORM:
		p.Scope = ScopePlatform
	}
	if l.GetOnChange() == quotav1.LimitChange_LIMIT_CHANGE_RESET {
		p.OnChange = lease.Reset
	}
	if l.GetExpireTime() != nil {
		p.ExpireTime = l.GetExpireTime().AsTime()
	}
	for _, c := range l.GetCosts() {
		if c.GetCost() < 1 || c.GetCost() > lease.MaxCost {
			return Policy{}, ErrCost
		}
		p.Costs = append(p.Costs, Cost{Match: matchesOf(c.GetMatch()), Cost: c.GetCost()})
	}
	return p, nil
}

const (
	minTTL = time.Second
	maxTTL = 24 * time.Hour
)

// Errors of [PolicyOf].
var (
	// ErrSlots is returned for numbers that make no limit of concurrency.
	ErrSlots = errors.New("limits: a limit of concurrency has 0 to 2^40 tokens and a period of 1 s to 24 h")
	// ErrDimensions is returned for too many dimensions.
	ErrDimensions = errors.New("limits: a limit has at most 3 dimensions")
	// ErrCost is returned for what is no cost.
	ErrCost = errors.New("limits: a call costs 1 to 2^40")
)

func matchesOf(matches []*quotav1.LimitMatch) []Match {
	var out []Match
	for _, m := range matches {
		out = append(out, Match{Dimension: m.GetDimension(), Values: slices.Clone(m.GetValues())})
	}
	return out
}
