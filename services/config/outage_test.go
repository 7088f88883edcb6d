package config_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// TestAnHourWithoutConfig stops the service, and restarts an app and a gateway an hour later: whatever they could read
// before they read now, and say how old it is.
func TestAnHourWithoutConfig(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a := r.as("owner")
	r.namespace(a, "notes", `{"properties":{"v":{"default":"schema"}}}`)
	for _, owner := range []string{"plans/business", "tenants/globex", "tenants/umbrella", "tenants/initech/environments/staging"} {
		r.set(a, owner+"/config/notes", fmt.Sprintf(`{"v":%q}`, owner))
	}
	r.set(a, "plans/free/config/brand", `{"name":"Free"}`)
	r.set(a, "tenants/acme/config/brand", `{"name":"Acme"}`)
	keys, err := keyfile.Public(r.path("feed.pub"))
	must(t, err)
	known, conn := families(t), r.gateway()
	dirs := map[string]string{"app": t.TempDir(), "gateway": t.TempDir()}
	open := func(process string, conn grpc.ClientConnInterface, clock func() time.Time) (*settings.Store, *feed.Feed) {
		t.Helper()
		s := &settings.Store{Trust: known, Environment: "staging"}
		f, err := settings.Follow(t.Context(), settings.FollowConfig{
			Config: conn, FeedKeys: keys, Replica: process, Store: s, Dir: dirs[process], Clock: clock, Log: slog.New(slog.DiscardHandler),
		})
		must(t, err)
		t.Cleanup(f.Close)
		<-f.Ready()
		return s, f
	}
	reads := func(s *settings.Store) string {
		t.Helper()
		var b strings.Builder
		for _, id := range []string{"acme", "globex", "initech", "umbrella"} {
			ctx := r.issuer.In(context.WithoutCancel(t.Context()), t, id, func(c *tenant.Claims) { c.Plan = plans()[id] })
			v, err := settings.For[struct{ V string }](ctx, s, "notes")
			must(t, err)
			brand, err := settings.BrandFor(ctx, s)
			must(t, err)
			edge, _ := s.Brand(tenanttest.UID(id), plans()[id])
			fmt.Fprintf(&b, "%s: %s, %s, %s\n", id, v.V, brand.Name, edge.Name)
		}
		return b.String()
	}
	const want = "acme: plans/business, Acme, Acme\nglobex: tenants/globex, Free, Free\n" +
		"initech: tenants/initech/environments/staging, Free, Free\numbrella: tenants/umbrella, , \n"
	for process := range dirs {
		s, f := open(process, conn, nil)
		eventually(t, "the last write", func() bool { return f.Status().Revision > 0 && reads(s) == want })
		applied := f.Status().LastBookmark // what is kept on disk is what a bookmark signs
		eventually(t, "a bookmark behind it", func() bool { return f.Status().LastBookmark.After(applied) })
		f.Close()
	}
	r.stop()
	later := func() time.Time { return time.Now().Add(time.Hour) }
	for process := range dirs {
		for range 3 { // and again, and again
			s, f := open(process, conn, later)
			if got := reads(s); got != want {
				t.Errorf("%s reads\n%swant\n%s", process, got, want)
			}
			if status := f.Status(); status.Source != feed.SourceDisk || status.Age < time.Hour || status.Age > 2*time.Hour {
				t.Errorf("%s: %v, %v old", process, status.Source, status.Age)
			}
			f.Close()
		}
	}
}
