package tenancy_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/hook"
	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
	"github.com/rowhouse-platform/rowhouse/services/tenancy"
)

// hooks stands in for the service config.
type hooks struct {
	configv1.UnimplementedHookServiceServer

	key     ed25519.PrivateKey
	entries []*apiv1.FeedEntry

	mu     sync.Mutex
	asked  []*configv1.HookQuestion
	refuse bool
	// followers are the replicas that followed.
	followers []string
}

func (s *hooks) WatchHooks(req *configv1.WatchHooksRequest, stream grpc.ServerStreamingServer[configv1.WatchHooksResponse]) error {
	s.mu.Lock()
	s.followers = append(s.followers, req.GetReplica())
	s.mu.Unlock()
	digest := feed.NewDigest()
	for _, e := range s.entries {
		digest.Set(e.GetKey(), e.GetValue())
	}
	root := digest.Root()
	frame := &apiv1.FeedFrame{Kind: &apiv1.FeedFrame_Chunk{Chunk: &apiv1.FeedChunk{Revision: 1, Last: true, Entries: s.entries}}}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if err := stream.Send(&configv1.WatchHooksResponse{Frame: frame}); err != nil {
			return err
		}
		if frame.GetBookmark() != nil {
			select {
			case <-tick.C:
			case <-stream.Context().Done():
				return stream.Context().Err()
			}
		}
		b := &apiv1.FeedBookmark{Revision: 1, Root: root[:], ServerTime: timestamppb.Now(), ResumeToken: "x"}
		feed.Sign(s.key, hook.FeedName, b)
		frame = &apiv1.FeedFrame{Kind: &apiv1.FeedFrame_Bookmark{Bookmark: b}}
	}
}

func (s *hooks) DecideHooks(_ context.Context, req *configv1.DecideHooksRequest) (*configv1.DecideHooksResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, req.GetQuestion())
	d := &configv1.HookDecision{Hook: "hooks/closed", Outcome: configv1.HookOutcome_HOOK_OUTCOME_ALLOWED}
	if s.refuse {
		d.Outcome, d.Reason = configv1.HookOutcome_HOOK_OUTCOME_DENIED, "not today"
	}
	return &configv1.DecideHooksResponse{Decisions: []*configv1.HookDecision{d}}, nil
}

// steps are those that were asked about since the last call.
func (s *hooks) steps() (out []configv1.HookStep) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.asked {
		out = append(out, q.GetStep())
	}
	s.asked = nil
	return out
}

func (s *hooks) refuses(yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = yes
}

// withHooks starts the service anew with a config that has the given hooks, each of all steps.
func (r *rig) withHooks(all map[string]configv1.HookFailure) (s *hooks, kill func()) {
	r.tb.Helper()
	tb := r.tb
	must(tb, keyfile.NewPair(r.path("hooks"), rand.Reader))
	key, err := keyfile.Private(r.path("hooks.key"))
	must(tb, err)
	s = &hooks{key: key}
	for name, failure := range all {
		value, err := proto.Marshal(&configv1.HookEntry{Failure: failure, Steps: []configv1.HookStep{
			configv1.HookStep_HOOK_STEP_TENANT_CREATE, configv1.HookStep_HOOK_STEP_TENANT_PLAN_CHANGE, configv1.HookStep_HOOK_STEP_DOMAIN_ATTACH,
		}})
		must(tb, err)
		s.entries = append(s.entries, &apiv1.FeedEntry{Key: name, Value: value})
	}
	id := r.id("service", "config")
	pair, err := r.ca.Issue(identity.Leaf{ID: id})
	must(tb, err)
	dir := tb.TempDir()
	must(tb, pair.Write(dir))
	source, err := identity.Files(filepath.Join(dir, identity.CertFile), filepath.Join(dir, identity.KeyFile),
		filepath.Join(dir, identity.RootsFile), identity.Options{})
	must(tb, err)
	listen, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	must(tb, err)
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(source.ServerTLS())))
	configv1.RegisterHookServiceServer(server, s)
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listen) }()
	kill = func() { server.Stop(); <-served }
	tb.Cleanup(kill)
	r.stop()
	r.config.Hooks = &tenancy.Hooks{
		Address: "passthrough:///" + listen.Addr().String(), Identity: id, FeedKeys: yamlfile.Path(r.path("hooks.pub")),
		State: yamlfile.Path(r.path("hooks")),
	}
	r.start()
	return s, kill
}

func TestHooksMayRefuseSteps(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.furnish()
	config, kill := r.withHooks(map[string]configv1.HookFailure{
		"hooks/closed": configv1.HookFailure_HOOK_FAILURE_CLOSED, "hooks/open": configv1.HookFailure_HOOK_FAILURE_OPEN,
	})
	a, ctx := r.owner(), t.Context()
	create := func(id, request, skip string) error {
		_, err := a.CreateTenant(ctx, &tenancyv1.CreateTenantRequest{
			TenantId: id, Tenant: &tenancyv1.Tenant{DisplayName: id}, RequestId: request, SkipHooks: skip,
		})
		return err
	}
	first := newID()
	must(t, create("acme", first, ""))
	must(t, create("acme", first, "")) // a repeat
	if got := config.steps(); !slices.Equal(got, []configv1.HookStep{configv1.HookStep_HOOK_STEP_TENANT_CREATE}) {
		t.Errorf("asked about %v, want one creation", got)
	}
	update := func(tenant *tenancyv1.Tenant) error {
		_, err := a.UpdateTenant(ctx, &tenancyv1.UpdateTenantRequest{Tenant: tenant})
		return err
	}
	attach := func(host string) error {
		_, err := a.CreateDomain(ctx, &tenancyv1.CreateDomainRequest{
			Parent: "tenants/acme", DomainId: host, Domain: &tenancyv1.Domain{App: "apps/" + r.app},
		})
		return err
	}
	must(t, update(&tenancyv1.Tenant{Name: "tenants/acme", DisplayName: "Acme"}))
	must(t, update(&tenancyv1.Tenant{Name: "tenants/acme", Plan: "plans/business"}))
	must(t, attach("a.localhost"))
	want := []configv1.HookStep{configv1.HookStep_HOOK_STEP_TENANT_PLAN_CHANGE, configv1.HookStep_HOOK_STEP_DOMAIN_ATTACH}
	if got := config.steps(); !slices.Equal(got, want) {
		t.Errorf("asked about %v, want %v", got, want)
	}

	// A host that is claimed without a proof begins to lead somewhere when it is verified, and elsewhere when it gets another app.
	must(t, attach("shop.example.com"))
	const shop = "tenants/acme/domains/shop.example.com"
	verify := func() error {
		_, err := a.VerifyDomain(ctx, &tenancyv1.VerifyDomainRequest{Name: shop, Reason: "TXT record seen"})
		return err
	}
	must(t, errOf(a.CreateApp(ctx, &tenancyv1.CreateAppRequest{AppId: "other"})))
	lead := func(app string) error {
		_, err := a.UpdateDomain(ctx, &tenancyv1.UpdateDomainRequest{Domain: &tenancyv1.Domain{Name: shop, App: app}})
		return err
	}
	config.refuses(true)
	refused(t, "VerifyDomain", verify(), codes.FailedPrecondition, "HOOK_DENIED")
	refused(t, "UpdateDomain", lead("apps/other"), codes.FailedPrecondition, "HOOK_DENIED")
	config.refuses(false)
	config.steps()
	must(t, verify())
	must(t, lead("apps/other"))
	must(t, lead("apps/other")) // changes nothing
	if got := config.steps(); len(got) != 2 || got[0] != configv1.HookStep_HOOK_STEP_DOMAIN_ATTACH || got[1] != got[0] {
		t.Errorf("asked about %v, want two hosts", got)
	}

	config.refuses(true)
	refused(t, "CreateTenant", create("globex", newID(), ""), codes.FailedPrecondition, "HOOK_DENIED")
	refused(t, "UpdateTenant", update(&tenancyv1.Tenant{Name: "tenants/acme", Plan: "plans/free"}), codes.FailedPrecondition, "HOOK_DENIED")
	refused(t, "CreateDomain", attach("b.localhost"), codes.FailedPrecondition, "HOOK_DENIED")
	if got, err := a.GetTenant(ctx, &tenancyv1.GetTenantRequest{Name: "tenants/acme"}); err != nil || got.GetTenant().GetPlan() != "plans/business" {
		t.Errorf("the tenant: %v, %v", got, err)
	}
	must(t, create("globex", newID(), "the hook is wrong about it"))

	// What stops is never asked about, whatever hooks say.
	config.steps()
	must(t, errOf(a.SuspendTenant(ctx, &tenancyv1.SuspendTenantRequest{
		Name: "tenants/globex", Cause: tenancyv1.SuspensionCause_SUSPENSION_CAUSE_ABUSE, Reason: "an attack from there",
	})))
	must(t, errOf(a.DeleteTenant(ctx, &tenancyv1.DeleteTenantRequest{Name: "tenants/globex", Reason: "end of contract"})))
	must(t, errOf(a.DeleteDomain(ctx, &tenancyv1.DeleteDomainRequest{Name: "tenants/acme/domains/a.localhost"})))
	if got := config.steps(); len(got) > 0 {
		t.Errorf("asked about %v", got)
	}

	// Config dies. What was answered is answered again, steps are not taken, and others are.
	kill()
	must(t, create("acme", first, ""))
	refused(t, "CreateTenant without config", create("initech", newID(), ""), codes.FailedPrecondition, "HOOK_UNAVAILABLE")
	must(t, update(&tenancyv1.Tenant{Name: "tenants/acme", DisplayName: "Acme Inc"}))
	// A restart knows from its disk which hooks there are.
	r.stop()
	r.start()
	a = r.owner()
	refused(t, "CreateTenant after a restart", create("initech", newID(), ""), codes.FailedPrecondition, "HOOK_UNAVAILABLE")
	must(t, create("initech", newID(), "config is dead, and they wait"))
}

// Replicas tell each other apart: by what is configured, and else by the name of their host.
func TestReplicasFollowHooksByTheirNames(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	config, _ := r.withHooks(nil)
	follows := func(want string) {
		t.Helper()
		eventually(t, want+" follows", func() bool {
			config.mu.Lock()
			defer config.mu.Unlock()
			return slices.Contains(config.followers, want)
		})
	}
	host, err := os.Hostname()
	must(t, err)
	follows(host)
	r.stop()
	r.config.Replica = "tenancy-7"
	r.start()
	follows("tenancy-7")
}

func TestADeadConfigStopsNoStepOfHooksThatFailOpen(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.furnish()
	config, kill := r.withHooks(map[string]configv1.HookFailure{"hooks/open": configv1.HookFailure_HOOK_FAILURE_OPEN})
	a := r.owner()
	create := func(id string) {
		t.Helper()
		_, err := a.CreateTenant(t.Context(), &tenancyv1.CreateTenantRequest{TenantId: id, Tenant: &tenancyv1.Tenant{DisplayName: id}})
		must(t, err)
	}
	create("acme")
	if len(config.steps()) != 1 {
		t.Error("it was not asked")
	}
	kill()
	create("globex")
}

// errOf drops the answer.
func errOf[T any](_ T, err error) error { return err }
