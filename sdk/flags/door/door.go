// Package door decides who may see which flags, for servers of open protocols.
//
// The tenant of a request is verified before it comes here; the gateway takes it from the host. A client key says where
// the caller runs and what it may see, and must be that tenant's own. Nothing else of a request has authority. Packages
// ofrep and flagd speak the protocols. Start at [Door.Enter].
package door

import (
	"cmp"
	"context"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/flags"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/clientkey"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// Door is what servers of flags share. Flags and Keys are required. Do not change it once it is used.
type Door struct {
	// Flags answers for all tenants.
	Flags *flags.Client
	// Keys are the client keys of all tenants.
	Keys *clientkey.Store
	// Standing says why what a visit began with holds no more, such as a plan that the tenant has left; and Changed is
	// closed at the next change of a tenant by which that may be so. Streams end then. Optional, both or none.
	Standing func(flags.Who) error
	Changed  func(tenant.UID) <-chan struct{}
	// Ending is closed when streams must end because the process does. Optional.
	Ending <-chan struct{}
	// Clock is compared with the ends of keys. Default time.Now.
	Clock func() time.Time
	// Streams is how many streams are held with one key at a time, so that a key that is in every page leaves room for those
	// of servers. Default 500.
	Streams int

	mu   sync.Mutex
	held map[clientkey.Digest]int // by key
}

// defaultStreams is half of what a gateway holds for one tenant.
const defaultStreams = 500

// Visit is one request that was let in.
type Visit struct {
	// Key is what it came with.
	Key *clientkey.Key
	// Who is whose flags it asks for, where the key says.
	Who flags.Who
}

// Now is the door's time.
func (d *Door) Now() time.Time {
	if d.Clock == nil {
		return time.Now()
	}
	return d.Clock()
}

// Enter looks at the key in a request's header, for the tenant of ctx. The key comes as "Authorization: Bearer", as
// "X-API-Key", or as the password of "Authorization: Basic", for clients that can be given a URL and nothing else.
// Errors are faults: CONTEXT_MISSING without a tenant, STARTING before there are keys, CREDENTIAL_MISSING,
// CREDENTIAL_INVALID for no key, or one that is revoked or ended, and TENANT_MISMATCH for another tenant's.
func (d *Door) Enter(ctx context.Context, h http.Header) (Visit, error) {
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return Visit{}, err
	}
	text, err := credential(h)
	if err != nil {
		return Visit{}, err
	}
	digest, ok := clientkey.DigestOf(text)
	if !ok {
		return Visit{}, invalid()
	}
	return d.admit(tc, d.Keys.Find(digest, d.Now()))
}

// Named is Enter for what was handed out to the holder of a key before, for a stream. It must be verified.
func (d *Door) Named(ctx context.Context, id string) (Visit, error) {
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return Visit{}, err
	}
	return d.admit(tc, d.Keys.Named(tc.UID(), id, d.Now()))
}

func (d *Door) admit(tc tenant.Context, k *clientkey.Key) (Visit, error) {
	switch {
	case k == nil && !d.Keys.Loaded():
		return Visit{}, fault.New(fault.Unavailable, fault.ReasonStarting, "the client keys are not loaded yet").WithRetry(time.Second)
	case k == nil:
		return Visit{}, invalid()
	case k.Tenant != tc.UID():
		return Visit{}, fault.New(fault.PermissionDenied, fault.ReasonTenantMismatch, "the client key is not of this host's tenant")
	}
	return Visit{Key: k, Who: flags.Who{
		UID: tc.UID(), ID: tc.ID(), Plan: tc.Plan(), Region: tc.Region(), Environment: k.Environment,
	}}, nil
}

func invalid() error {
	return fault.New(fault.Unauthenticated, fault.ReasonCredentialInvalid, "the client key is not valid")
}

// credential returns the one key that a request holds.
func credential(h http.Header) (string, error) {
	var found []string
	for _, line := range h.Values("Authorization") {
		scheme, rest, _ := strings.Cut(line, " ")
		switch rest = strings.TrimSpace(rest); {
		case strings.EqualFold(scheme, "Bearer"):
			found = append(found, rest)
		case strings.EqualFold(scheme, "Basic"):
			pair, err := base64.StdEncoding.DecodeString(rest)
			if err != nil {
				return "", invalid()
			}
			_, password, _ := strings.Cut(string(pair), ":")
			found = append(found, password)
		default:
			return "", invalid()
		}
	}
	switch found = append(found, h.Values("X-Api-Key")...); len(found) {
	case 0:
		return "", fault.New(fault.Unauthenticated, fault.ReasonCredentialMissing, "a client key is needed")
	case 1:
		return found[0], nil
	default:
		return "", invalid()
	}
}

// Own reports whether an origin is the host's that a request was sent to.
func Own(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, host)
}

// Hold returns a context that ends, with a fault as its cause, when the visit's key is revoked or ends, what the
// visit began with holds no more, or the process ends. The returned function must be called. The error is the fault
// OVERLOADED where too many are held with the key.
func (d *Door) Hold(ctx context.Context, v Visit) (held context.Context, stop func(), err error) {
	if !d.count(v.Key.Digest) {
		return nil, nil, fault.New(fault.ResourceExhausted, fault.ReasonOverloaded, "too many streams are open with this client key").
			WithRetry(time.Second)
	}
	ctx, cut := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { cut(d.watch(ctx, v)) })
	return ctx, func() { cut(nil); watching.Wait(); d.leave(v.Key.Digest) }, nil
}

// count counts a stream in, unless there are too many.
func (d *Door) count(key clientkey.Digest) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.held == nil {
		d.held = make(map[clientkey.Digest]int)
	}
	if d.held[key] >= cmp.Or(d.Streams, defaultStreams) {
		return false
	}
	d.held[key]++
	return true
}

func (d *Door) leave(key clientkey.Digest) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.held[key]--; d.held[key] == 0 {
		delete(d.held, key)
	}
}

// standing returns why a visit must end, or else a channel that is closed when it may have to.
func (d *Door) standing(w flags.Who) (<-chan struct{}, error) {
	if d.Standing == nil {
		return nil, nil //nolint:nilnil // nothing ever changes
	}
	changed := d.Changed(w.UID)
	return changed, d.Standing(w)
}

// watch returns why a stream must end, or nil when ctx has ended.
func (d *Door) watch(ctx context.Context, v Visit) error {
	var ends <-chan time.Time
	if !v.Key.Expires.IsZero() {
		timer := time.NewTimer(v.Key.Expires.Sub(d.Now()))
		defer timer.Stop()
		ends = timer.C
	}
	for {
		changed := d.Keys.Changed()
		if d.Keys.Find(v.Key.Digest, d.Now()) == nil {
			return invalid()
		}
		moved, err := d.standing(v.Who)
		if err != nil {
			return err
		}
		select {
		case <-changed:
		case <-moved:
		case <-ends:
			return invalid()
		case <-d.Ending:
			return fault.New(fault.Unavailable, fault.ReasonDependency, "the server is going away; connect again").WithRetry(time.Second)
		case <-ctx.Done():
			return nil
		}
	}
}
