package dev

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
)

// routesFeed is the name of tenancy's feed that holds the domains.
const routesFeed = "routes"

// maxNames bounds the front door's certificate, which goes out with every handshake.
const maxNames = 500

// front is what the front door's certificate names: what every house has, and the hosts
// that its operator adds.
type front struct {
	mu    sync.Mutex
	hosts map[string]bool
	names []string // of the certificate in force
	close func()
}

// follow learns the domains from tenancy, as the gateway does and with its identity, and
// keeps the front door's certificate in step.
func (h *house) follow(ctx context.Context) error {
	pem := func(name string) string { return h.l.path("gateway", name) }
	source, err := identity.Files(pem(identity.CertFile), pem(identity.KeyFile), h.l.Roots(), identity.Options{})
	if err != nil {
		return err
	}
	id, err := serviceID("tenancy")
	if err != nil {
		return err
	}
	keys, err := keyfile.Public(h.l.path("keys", "feed-tenancy.pub"))
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient(loopback(h.p.GRPC["tenancy"]), grpc.WithTransportCredentials(credentials.NewTLS(source.ClientTLS(id))))
	if err != nil {
		return fmt.Errorf("follow the domains: %w", err)
	}
	service := tenancyv1.NewRoutingServiceClient(conn)
	followed, err := feed.Start(ctx, feed.Config{
		Name: routesFeed, Keys: keys, Apply: h.applyHosts, Log: slog.New(slog.DiscardHandler), // tenancy's own log says more
		Open: func(ctx context.Context, token string) (feed.Stream, error) {
			stream, err := service.WatchRoutes(ctx, &tenancyv1.WatchRoutesRequest{ResumeToken: []byte(token), Replica: "dev-certificate"})
			if err != nil {
				return nil, fmt.Errorf("watch: %w", err)
			}
			return feed.Recv(func() (*apiv1.FeedFrame, error) {
				res, err := stream.Recv()
				return res.GetFrame(), err
			}), nil
		},
	})
	if err != nil {
		_ = conn.Close()
		return err
	}
	h.front.close = func() {
		followed.Close()
		_ = conn.Close()
	}
	return nil
}

// applyHosts takes a revision of the routes in, and has the certificate signed anew when
// it lacks a name. The gateway reads it within a second.
func (h *house) applyHosts(change feed.Change) error {
	h.front.mu.Lock()
	defer h.front.mu.Unlock()
	if change.Reset || h.front.hosts == nil {
		h.front.hosts = map[string]bool{}
	}
	for _, e := range change.Entries {
		host, ok := strings.CutPrefix(e.Key, "domain/")
		switch {
		case !ok:
		case e.Deleted:
			delete(h.front.hosts, host)
		default:
			h.front.hosts[host] = true
		}
	}
	names, whole := namesFor(h.front.hosts)
	if slices.Equal(names, h.front.names) {
		return nil
	}
	if !whole {
		fmt.Fprintf(h.o.Out, "there are too many domains for one certificate; HTTPS works for the first %d names\n", maxNames)
	}
	authority, err := identity.OpenAuthority(h.l.path("ca"), authorityConfig())
	if err == nil {
		err = h.l.issueFront(authority, names)
	}
	if err != nil {
		fmt.Fprintf(h.o.Out, "the certificate for HTTPS could not be renewed (%v); new domains answer over HTTP only\n", err)
		return nil
	}
	h.front.names = names
	return nil
}

// renewFront signs the front door's certificate anew for the hosts of now.
func (h *house) renewFront(authority *identity.Authority) error {
	h.front.mu.Lock()
	defer h.front.mu.Unlock()
	names, _ := namesFor(h.front.hosts)
	return h.l.issueFront(authority, names)
}

// namesFor returns what a certificate for hosts names, without those that the authority
// may not sign. A tenant's own zone is named whole, so that its next host is there at
// once; the zone of all is not, because most clients take no "*.localhost". whole says
// that nothing had to be left out.
func namesFor(hosts map[string]bool) (names []string, whole bool) {
	base := []string{zone, "*." + zone, platform}
	for _, t := range samples() {
		base = append(base, "*."+t.id+"."+zone)
	}
	for _, host := range slices.Sorted(maps.Keys(hosts)) {
		if !strings.HasSuffix(host, "."+zone) {
			continue
		}
		name := host
		if _, parent, _ := strings.Cut(host, "."); parent != zone {
			name = "*." + parent
		}
		if slices.Contains(base, name) {
			continue
		}
		if len(base) == maxNames {
			return base, false
		}
		base = append(base, name)
	}
	return base, true
}

// issueFront writes the certificate that browsers see.
func (l Layout) issueFront(authority *identity.Authority, names []string) error {
	id, err := serviceID("gateway")
	if err != nil {
		return err
	}
	return issue(authority, identity.Leaf{ID: id, DNSNames: names}, l.path("gateway", "front"))
}
