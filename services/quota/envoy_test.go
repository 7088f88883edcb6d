package quota_test

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	common "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/wrapperspb"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/services/quota"
)

// free is an address that nobody has.
func (r *rig) free() string {
	r.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	r.need(err)
	r.need(l.Close())
	return l.Addr().String()
}

// withEnvoys has the replicas that come next answer Envoys, and returns the address of the next one.
func (r *rig) withEnvoys() string {
	r.Helper()
	r.config.RateLimit = &quota.RateLimit{GRPC: r.free(), HTTP: r.free(), Headers: "none", Peers: quota.EnvoyPeers{
		{Identity: r.id("app", "envoy"), Domains: []string{"*"}, Override: true, Refund: true, NamesTenant: "tenant"},
	}}
	return r.config.RateLimit.GRPC
}

// envoy is the generated client of an Envoy.
func (r *rig) envoy(address, name string) rlsv3.RateLimitServiceClient {
	r.Helper()
	pair, err := r.ca.Issue(identity.Leaf{ID: r.id("app", name)})
	r.need(err)
	source, err := identity.FromPair(pair, identity.Options{})
	r.need(err)
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(source.ClientTLS(r.id("service", "quota")))),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	r.need(err)
	r.Cleanup(func() { _ = conn.Close() })
	return rlsv3.NewRateLimitServiceClient(conn)
}

// about is a request about the user, hits times.
func about(user string, hits uint32) *rlsv3.RateLimitRequest {
	return &rlsv3.RateLimitRequest{Domain: "edge", HitsAddend: hits, Descriptors: []*common.RateLimitDescriptor{
		{Entries: []*common.RateLimitDescriptor_Entry{{Key: "user", Value: user}}},
	}}
}

// said is the overall code and what is left of the first descriptor.
func (r *rig) said(c rlsv3.RateLimitServiceClient, req *rlsv3.RateLimitRequest) string {
	r.Helper()
	resp, err := c.ShouldRateLimit(r.Context(), req)
	r.need(err)
	return fmt.Sprint(resp.GetOverallCode(), " ", resp.GetStatuses()[0].GetLimitRemaining())
}

// imported stores a file and waits until a replica answers by it.
func (r *rig) imported(c rlsv3.RateLimitServiceClient, limit int) {
	r.Helper()
	f := file("edge")
	f.Content = strings.Replace(f.GetContent(), "requests_per_unit: 3", fmt.Sprint("requests_per_unit: ", limit), 1)
	_, err := r.as("operator").ImportRateLimitConfig(r.Context(), imports(f))
	r.need(err)
	eventually(r, "the import holds", func() bool {
		req := about("nobody", 0)
		req.Descriptors[0].HitsAddend = wrapperspb.UInt64(0)
		resp, err := c.ShouldRateLimit(r.Context(), req)
		return err == nil && resp.GetStatuses()[0].GetCurrentLimit().GetRequestsPerUnit() == uint32(limit)
	})
}

// Replicas share what is spent: the limit holds over both, and a denial is every replica's.
func TestEnvoysOfTwoReplicas(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var clients []rlsv3.RateLimitServiceClient
	for i := range 2 {
		address := r.withEnvoys()
		r.replica(fmt.Sprint("envoys-", i))
		clients = append(clients, r.envoy(address, "envoy"))
	}
	for _, c := range clients {
		r.imported(c, 20)
	}
	admitted := 0
	for i := range 40 {
		if strings.HasPrefix(r.said(clients[i%2], about("ann", 1)), "OK") {
			admitted++
		}
	}
	if admitted != 20 {
		t.Errorf("%d of 20 were admitted", admitted)
	}
	// Another replica hears of the next import, and keeps what was spent.
	for _, c := range clients {
		r.imported(c, 30)
	}
	eventually(t, "10 more are admitted", func() bool {
		if strings.HasPrefix(r.said(clients[admitted%2], about("ann", 1)), "OK") {
			admitted++
		}
		return admitted >= 30
	})
	if got := r.said(clients[0], about("ann", 1)); got != "OVER_LIMIT 0" {
		t.Errorf("after 30 of 30: %s", got)
	}
}

// What the engine of leases says is what the protocol wants: hits, looks, refunds, many descriptors at once.
func TestEnvoyOverLeases(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	address := r.withEnvoys()
	r.replica("envoys")
	c := r.envoy(address, "envoy")
	r.imported(c, 10)
	look := func(user string) *rlsv3.RateLimitRequest {
		req := about(user, 0)
		req.Descriptors[0].HitsAddend = wrapperspb.UInt64(0)
		return req
	}
	back := func(user string, n uint32) *rlsv3.RateLimitRequest {
		req := about(user, n)
		req.Descriptors[0].IsNegativeHits = true
		return req
	}
	for i, step := range []struct {
		req  *rlsv3.RateLimitRequest
		want string
	}{
		{look("ann"), "OK 10"},
		{about("ann", 4), "OK 6"},
		{about("ann", 7), "OVER_LIMIT 0"},
		{about("ann", 11), "OVER_LIMIT 0"},
		{look("ann"), "OK 6"},
		{about("ann", 6), "OK 0"},
		{look("ann"), "OVER_LIMIT 0"},
		{about("ann", 1), "OVER_LIMIT 0"},
		{back("ann", 3), "OK 3"},
		{about("ann", 3), "OK 0"},
		{back("ann", 1e6), "OK 10"},
		{about("ann", 10), "OK 0"},
	} {
		if got := r.said(c, step.req); got != step.want {
			t.Errorf("%d: %s, want %s", i, got, step.want)
		}
	}
	many := &rlsv3.RateLimitRequest{Domain: "edge"}
	for i := range 40 {
		many.Descriptors = append(many.Descriptors, about(fmt.Sprint("user-", i), 1).GetDescriptors()...)
	}
	if got := r.said(c, many); got != "OK 9" {
		t.Errorf("many: %s", got)
	}
	many.Descriptors = append(many.Descriptors, about("ann", 1).GetDescriptors()...)
	if got := r.said(c, many); !strings.HasPrefix(got, "OVER_LIMIT") {
		t.Errorf("many and one that is over: %s", got)
	}
	for _, i := range []int{0, 20, 39} {
		if got := r.said(c, look(fmt.Sprint("user-", i))); got != "OK 9" {
			t.Errorf("user %d was charged by what was refused: %s", i, got)
		}
	}
	_, err := r.envoy(address, "stranger").ShouldRateLimit(t.Context(), about("ann", 1))
	refused(t, "a stranger", err, codes.PermissionDenied, "PERMISSION_MISSING")
}

// Cells of a tenant are the tenant's, whoever's the domain is.
func TestEnvoysNameTenants(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	address := r.withEnvoys()
	r.replica("envoys")
	c := r.envoy(address, "envoy")
	_, err := r.as("operator").ImportRateLimitConfig(t.Context(), imports(&quotav1.RateLimitFile{Name: "t.yaml", Content: `
domain: edge
descriptors:
  - {key: tenant, rate_limit: {unit: day, requests_per_unit: 1000}}
  - {key: user, rate_limit: {unit: day, requests_per_unit: 7}}
`}))
	r.need(err)
	ask := func(id string) string {
		return r.said(c, &rlsv3.RateLimitRequest{Domain: "edge", Descriptors: []*common.RateLimitDescriptor{
			{Entries: []*common.RateLimitDescriptor_Entry{{Key: "tenant", Value: id}}},
		}})
	}
	eventually(t, "the import holds", func() bool { return ask("globex") != "OK 0" })
	if got := ask("acme"); got != "OK 999" {
		t.Errorf("acme's first: %s", got)
	}
}

// Concurrent calls take each token once.
func TestEnvoyRace(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	address := r.withEnvoys()
	r.replica("envoys")
	c := r.envoy(address, "envoy")
	r.imported(c, 50)
	var mu sync.Mutex
	var callers sync.WaitGroup
	admitted := 0
	for range 8 {
		callers.Go(func() {
			for range 12 {
				resp, err := c.ShouldRateLimit(t.Context(), about("ann", 1))
				mu.Lock()
				if err == nil && resp.GetOverallCode() == rlsv3.RateLimitResponse_OK {
					admitted++
				}
				mu.Unlock()
			}
		})
	}
	callers.Wait()
	if admitted != 50 {
		t.Errorf("%d of 50 were admitted", admitted)
	}
}
