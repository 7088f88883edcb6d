package gateway

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/rowhouse-platform/rowhouse/internal/rule"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/flags"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/cel"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/clientkey"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/door"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/flagd"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/ofrep"
)

// flagDoor serves tenants' flags on their own hosts.
type flagDoor struct {
	ofrep *ofrep.Handler
	flagd *flagd.Handler
	rules rule.Table // of flagd's methods: no other is served
	keys  clientkey.Store
	end   func()
}

// followClientKeys opens the feed of client keys. Until it has a state, from config or from disk, nobody is let in; the
// gateway is ready without, for its apps do not depend on it.
func (h *house) followClientKeys(ctx context.Context) error {
	conn, err := h.dial(ctx, h.c.Settings)
	if err != nil {
		return err
	}
	keys, err := h.c.Settings.feedKeys()
	if err != nil {
		return err
	}
	conditions, err := cel.New()
	if err != nil {
		return err
	}
	client, err := flags.New(flags.Config{
		Store: &h.looks.settings, Clock: h.p.Clock, Metrics: h.p.Telemetry.MeterProvider(), Conditions: conditions,
	})
	if err != nil {
		return err
	}
	ending := make(chan struct{})
	h.flags = &flagDoor{rules: rule.Flagd(), end: sync.OnceFunc(func() { close(ending) })}
	entrance := &door.Door{
		Flags: client, Keys: &h.flags.keys, Standing: h.stillHolds, Changed: h.trust.Watch, Ending: ending, Clock: h.p.Clock,
	}
	h.flags.ofrep = ofrep.New(ofrep.Config{
		Door: entrance, Revision: func() int64 { return h.looks.feed.Status().Revision }, Log: h.p.Log,
	})
	h.flags.flagd = flagd.New(flagd.Config{Door: entrance, Log: h.p.Log})
	followed, err := clientkey.Follow(context.WithoutCancel(ctx), clientkey.FollowConfig{
		Config: conn, FeedKeys: keys, Replica: h.c.Replica, Store: &h.flags.keys, Dir: h.c.in("clientkeys"), Clock: h.p.Clock, Log: h.p.Log,
		Metrics: h.p.Telemetry.MeterProvider(),
	})
	if err != nil {
		return err
	}
	h.close(followed.Close)
	return nil
}

// stillHolds says why a stream of flags must end: the tenant is not served, or it is on another plan or in another region, by
// which the stream was opened. A tenant that moves to another parent keeps its streams, whose subscriptions hear of it.
func (h *house) stillHolds(w flags.Who) error {
	if err := h.standing(w.UID); err != nil {
		return err
	}
	t, _ := h.trust.Tenant(w.UID)
	if t.Plan != w.Plan || t.Region != "" && t.Region != w.Region {
		return fault.New(fault.Unavailable, fault.ReasonTenantNotReady, "the account has changed; connect again").WithRetry(time.Second)
	}
	return nil
}

// Serves implements front.Flags.
func (f *flagDoor) Serves(path string) bool {
	_, ok := f.rules[path]
	return ok || strings.HasPrefix(path, ofrep.Prefix)
}

// Streams implements front.Flags.
func (f *flagDoor) Streams(r *http.Request) bool {
	path := r.URL.EscapedPath()
	if strings.HasPrefix(path, ofrep.Prefix) {
		return ofrep.Streams(r)
	}
	return strings.HasSuffix(path, "/EventStream") || strings.HasSuffix(path, "/SyncFlags")
}

// ServeHTTP implements front.Flags.
func (f *flagDoor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.EscapedPath(), ofrep.Prefix) {
		f.ofrep.ServeHTTP(w, r)
		return
	}
	f.flagd.ServeHTTP(w, r)
}

// Refuse implements front.Flags.
func (f *flagDoor) Refuse(w http.ResponseWriter, r *http.Request, err error) {
	if strings.HasPrefix(r.URL.EscapedPath(), ofrep.Prefix) {
		f.ofrep.Refuse(w, r, err)
		return
	}
	f.flagd.Refuse(w, r, err)
}
