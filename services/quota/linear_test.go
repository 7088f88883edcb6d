package quota_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/services/quota"
)

// envReplica names the configuration of a replica that this test binary is to be, so that it can be killed.
const envReplica = "QUOTA_TEST_REPLICA"

// runReplica is a replica of quota in a process of its own.
func runReplica(path string) int {
	var c quota.Config
	err := yamlfile.Load(path, &c)
	if err == nil {
		err = quota.Run(context.Background(), c)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// fleet is quota as three processes on a PostgreSQL of their own.
type fleet struct {
	*rig

	options pgserver.Options
	server  *pgserver.Server
	configs []string
	conns   []*grpc.ClientConn

	mu    sync.Mutex
	procs []*exec.Cmd
}

func newFleet(t *testing.T, replicas int) *fleet {
	f := &fleet{rig: bareRig(t)}
	dir, err := os.MkdirTemp("", "rowhouse-fleet-") //nolint:usetesting // a socket wants a short path, and its user a way in
	f.need(err)
	f.need(os.Chmod(dir, 0o711))
	f.options = pgserver.Options{
		Dir: filepath.Join(dir, "pg"), MaxConnections: 60,
		// What the profile of tests gives away is what this is about. Only the whole machine's crash needs fsync.
		Settings: map[string]string{"synchronous_commit": "on", "full_page_writes": "on"},
	}
	f.server, err = pgserver.Start(t.Context(), f.options)
	f.need(err)
	t.Cleanup(func() {
		f.each(func(_ int, c *exec.Cmd) {
			_ = c.Process.Kill() // it may be gone
			_ = c.Wait()
		})
		f.need(f.server.Stop(context.WithoutCancel(t.Context())))
		f.need(os.RemoveAll(dir))
	})
	f.need(pg.Provision(t.Context(), f.server.DSN(pgserver.Login{Database: "postgres"}), database()))
	f.migrate()
	f.write("db.dsn", f.server.DSN(pgserver.Login{User: database().Service(), Database: quota.Database}))
	for i := range replicas {
		f.configs = append(f.configs, f.configure(fmt.Sprintf("quota-%d", i)))
		f.procs = append(f.procs, nil)
		f.start(i)
	}
	return f
}

func (f *fleet) each(do func(i int, c *exec.Cmd)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, c := range f.procs {
		do(i, c)
	}
}

// configure writes the configuration of a replica at a port of its own, and dials it.
func (f *fleet) configure(name string) string {
	f.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	f.need(err)
	address := l.Addr().String()
	f.need(l.Close())
	config := f.config
	config.Process.Listen, config.Replica, config.State = address, name, f.path("state-"+name)
	b, err := yaml.Marshal(config)
	f.need(err)
	f.write(name+".yaml", string(b))
	tls := f.source(f.id("app", "notes")).ClientTLS(f.id("service", "quota"))
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(tls)),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second}))
	f.need(err)
	f.Cleanup(func() { _ = conn.Close() })
	f.conns = append(f.conns, conn)
	f.replicas = append(f.replicas, address)
	return string(f.path(name + ".yaml"))
}

func (f *fleet) start(i int) {
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), envReplica+"="+f.configs[i])
	log, err := os.OpenFile(f.configs[i]+".log", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	f.need(err)
	c.Stderr = log
	f.need(c.Start())
	f.need(log.Close())
	f.mu.Lock()
	f.procs[i] = c
	f.mu.Unlock()
}

// fault makes one of the faults, in turn, and mends it.
func (f *fleet) fault(n int) {
	i := n / 3 % len(f.procs)
	f.mu.Lock()
	victim := f.procs[i]
	f.mu.Unlock()
	switch n % 3 {
	case 0:
		f.need(victim.Process.Kill())
		_ = victim.Wait() // that it was killed is no news
		f.start(i)
	case 1:
		f.need(victim.Process.Signal(syscall.SIGSTOP))
		stop := time.NewTimer(stopped)
		<-stop.C
		f.need(victim.Process.Signal(syscall.SIGCONT))
	default:
		f.need(syscall.Kill(f.server.PID(), syscall.SIGKILL))
		<-f.server.Done()
		_ = f.server.Stop(f.Context()) // lets go of the folder
		f.restart()
	}
}

func (f *fleet) restart() {
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for end := time.Now().Add(time.Minute); ; <-retry.C {
		server, err := pgserver.Start(f.Context(), f.options)
		if err == nil {
			f.server = server
			return
		}
		if !errors.Is(err, pgserver.ErrRunning) && !errors.Is(err, pgserver.ErrStart) || time.Now().After(end) {
			f.Fatal(err)
		}
	}
}

// history is what the clients saw.
type history struct {
	mu       sync.Mutex
	calls    []porcupine.Operation
	done     atomic.Int64
	unknown  atomic.Int64
	start    time.Time
	last     atomic.Int64 // of reservations
	haunting []porcupine.Operation
}

func (h *history) now() int64 { return time.Since(h.start).Nanoseconds() }

// client is one caller of a tenant.
type client struct {
	f      *fleet
	h      *history
	tenant string
	number int
	random *rand.Rand
	set    quotav1.QuotaServiceClient
	token  string
	minted time.Time
}

const (
	// patience is the time of one try, stopped how long a process is stopped.
	patience = 2500 * time.Millisecond
	stopped  = 3 * time.Second
)

// try calls until there is an answer that says what happened, and whether there were tries before of which nothing is known.
func (c *client) try(call func(ctx context.Context, conn *grpc.ClientConn) error) (err error, unknown bool) {
	for {
		if c.f.Context().Err() != nil {
			return c.f.Context().Err(), true
		}
		if time.Since(c.minted) > 10*time.Second {
			c.token, c.minted = c.f.token(c.tenant, "free"), time.Now()
		}
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(c.f.Context(), tenant.MetadataKey, c.token), patience)
		err = call(ctx, c.f.conns[c.random.IntN(len(c.f.conns))])
		cancel()
		switch status.Code(err) {
		case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Unknown, codes.Internal, codes.PermissionDenied, codes.Unauthenticated:
			if status.Code(err) != codes.Unavailable && status.Code(err) != codes.DeadlineExceeded {
				c.f.Logf("%s: %v", c.tenant, err)
			}
			if fault.ReasonOf(tenantgrpc.FromStatus(err)) != fault.ReasonDependency { // of which nothing was done
				unknown = true
				c.h.unknown.Add(1)
			}
			pause := time.NewTimer(time.Duration(5+c.random.IntN(40)) * time.Millisecond)
			<-pause.C
		default:
			return err, unknown
		}
	}
}

// did keeps a call that was answered.
func (c *client) did(what call, from int64, a answer) {
	what.tenant, what.from, what.end = c.tenant, from, c.h.now()
	c.h.mu.Lock()
	c.h.calls = append(c.h.calls, porcupine.Operation{ClientId: c.number, Input: what, Call: from, Output: a, Return: what.end})
	c.h.mu.Unlock()
	c.h.done.Add(1)
}

func (c *client) must(err error) bool {
	if err != nil && c.f.Context().Err() == nil {
		c.f.Errorf("%s: %v", c.tenant, err)
	}
	return err == nil
}

// round reserves and ends what it got, or leaves it; now and then it reads, or sets what is used.
func (c *client) round() {
	switch n := c.random.IntN(20); {
	case n == 0:
		c.setUsed()
		return
	case n < 4:
		c.read()
		return
	}
	const long, short = time.Hour, time.Second
	ttl := long
	if c.random.IntN(25) == 0 {
		ttl = short
	}
	id, name := c.reserve(ttl)
	switch {
	case name == "" || ttl == short: // refused, or left to run out
	case c.random.IntN(3) == 0:
		from := c.h.now()
		err, _ := c.try(func(ctx context.Context, conn *grpc.ClientConn) error {
			_, err := quotav1.NewReservationServiceClient(conn).Release(ctx, &quotav1.ReleaseRequest{Name: name})
			return err
		})
		if c.must(err) {
			c.did(call{verb: releasing, id: id}, from, answer{ok: true})
		}
	default:
		actual := pair{int64(c.random.IntN(2)), int64(c.random.IntN(2))}
		from := c.h.now()
		err, _ := c.try(func(ctx context.Context, conn *grpc.ClientConn) error {
			_, err := quotav1.NewReservationServiceClient(conn).Commit(ctx, &quotav1.CommitRequest{Name: name, Amounts: actual.proto()})
			return err
		})
		if c.must(err) {
			c.did(call{verb: committing, id: id, amount: actual}, from, answer{ok: true})
		}
	}
}

func (p pair) proto() []*quotav1.QuotaAmount {
	return []*quotav1.QuotaAmount{{Quota: "gb", Amount: p[1]}, {Quota: "seats", Amount: p[0]}}
}

func (c *client) reserve(ttl time.Duration) (id int, name string) {
	what := call{verb: reserving, id: int(c.h.last.Add(1)), amount: pair{1 + int64(c.random.IntN(12)), 1 + int64(c.random.IntN(12))}}
	req := &quotav1.ReserveRequest{Amounts: what.amount.proto(), Ttl: durationpb.New(ttl), RequestId: newID()}
	var got *quotav1.Reservation
	from := c.h.now()
	err, unknown := c.try(func(ctx context.Context, conn *grpc.ClientConn) error {
		resp, err := quotav1.NewReservationServiceClient(conn).Reserve(ctx, req)
		got = resp.GetReservation()
		return err
	})
	switch status.Code(err) {
	case codes.OK:
		c.did(what, from, answer{ok: true, expire: got.GetExpireTime().AsTime().Sub(c.h.start).Nanoseconds()})
		return what.id, got.GetName()
	case codes.ResourceExhausted:
		c.did(what, from, answer{})
		if unknown {
			c.haunt(what, from, ttl)
		}
	default:
		c.must(err)
	}
	return 0, ""
}

// haunt keeps that an earlier try may still have taken effect behind the refusal of the last: until its own time ended, which a
// process that was stopped for a while may notice late. Nobody knows when what it holds runs out.
func (c *client) haunt(what call, from int64, ttl time.Duration) {
	const grace = patience + stopped + time.Second
	what.verb, what.tenant, what.from, what.end, what.id = haunting, c.tenant, from, from, -what.id
	expire := int64(1 << 60)
	if ttl < time.Minute {
		expire = whenever
	}
	c.h.mu.Lock()
	defer c.h.mu.Unlock()
	c.h.haunting = append(c.h.haunting, porcupine.Operation{
		ClientId: 1_000_000 + len(c.h.haunting), Input: what, Call: from, Output: answer{expire: expire},
		Return: c.h.now() + grace.Nanoseconds(),
	})
}

func (c *client) read() {
	var a answer
	from := c.h.now()
	err, _ := c.try(func(ctx context.Context, conn *grpc.ClientConn) error {
		resp, err := quotav1.NewReservationServiceClient(conn).ListQuotaUsage(ctx, &quotav1.ListQuotaUsageRequest{})
		if err == nil && len(resp.GetUsage()) == 2 {
			gb, seats := resp.GetUsage()[0], resp.GetUsage()[1]
			a = answer{ok: true, used: pair{seats.GetUsed(), gb.GetUsed()}, held: pair{seats.GetHeld(), gb.GetHeld()}}
		}
		return err
	})
	if c.must(err) {
		c.did(call{verb: reading}, from, a)
	}
}

// setUsed sets what is used of each quota, by a call each.
func (c *client) setUsed() {
	for quota, i := range map[string]int{"seats": 0, "gb": 1} {
		what := call{verb: setting, id: i, amount: pair{int64(c.random.IntN(5)), 0}}
		req := &quotav1.SetUsageRequest{
			Name: "tenants/" + c.tenant + "/quotas/" + quota, Used: what.amount[0], RequestId: newID(), Reason: "counted in the test",
		}
		from := c.h.now()
		for {
			ctx, cancel := context.WithTimeout(c.f.Context(), patience)
			_, err := c.set.SetUsage(ctx, req)
			cancel()
			if code := status.Code(err); code == codes.Unavailable || code == codes.DeadlineExceeded {
				pause := time.NewTimer(20 * time.Millisecond)
				<-pause.C
				if c.f.Context().Err() == nil {
					continue
				}
			}
			if c.must(err) {
				c.did(what, from, answer{ok: true})
			}
			break
		}
	}
}

// Three processes serve tenants' reservations, through kills and stops of any of them and kills of PostgreSQL. Whatever was
// answered, there is an order of all calls of a tenant that one quota in one process could have had.
func TestReservationsAreLinearizable(t *testing.T) {
	t.Parallel()
	enough, faults, tenants := int64(20_000), 9, 24
	if os.Getenv("ROWHOUSE_TEST_LONG") != "" {
		enough, faults, tenants = 1_000_000, 60, 96
	}
	if n, err := parseCount(os.Getenv("QUOTA_TEST_CALLS")); err == nil {
		enough = n
	}
	const clients = 3
	f := newFleet(t, 3)
	h := &history{start: time.Now()}
	ids := make([]string, tenants)
	for i := range ids {
		ids[i] = fmt.Sprintf("linear-%d", i)
		f.setTenant(ids[i], "free", tenancyv1.TenantState_TENANT_STATE_ACTIVE, 1)
	}
	owner := quotav1.NewQuotaServiceClient(f.operator("owner"))
	for quota, i := range map[string]int{"seats": 0, "gb": 1} {
		eventually(t, "a replica", func() bool {
			_, err := owner.UpdateQuota(t.Context(), &quotav1.UpdateQuotaRequest{
				Quota: &quotav1.Quota{Name: "platform/quotas/" + quota, Amount: bounds[i]}, AllowMissing: true,
			})
			return err == nil
		})
	}
	var group sync.WaitGroup
	for i, id := range ids {
		for n := range clients {
			c := &client{f: f, h: h, tenant: id, number: i*clients + n, random: rand.New(rand.NewPCG(uint64(i), uint64(n))), set: owner}
			group.Go(func() {
				for h.done.Load() < enough && t.Context().Err() == nil {
					c.round()
				}
			})
		}
	}
	for n := range faults {
		due := enough * int64(n+1) / int64(faults+1)
		tick := time.NewTicker(5 * time.Millisecond)
		for h.done.Load() < due {
			<-tick.C
		}
		tick.Stop()
		f.fault(n)
	}
	group.Wait()
	ran := time.Since(h.start)
	result, info := porcupine.CheckOperationsVerbose(model(), append(h.calls, h.haunting...), 10*time.Minute)
	t.Logf("%d calls of %d tenants in %s through %d faults, %d tries without an answer, %d that may come late; checked in %s",
		len(h.calls), tenants, ran.Round(time.Second), faults, h.unknown.Load(), len(h.haunting), (time.Since(h.start) - ran).Round(time.Millisecond))
	if result != porcupine.Ok {
		path := filepath.Join(os.TempDir(), "reservations.html")
		if err := porcupine.VisualizePath(model(), info, path); err == nil {
			t.Logf("see %s", path)
		}
		t.Errorf("the calls are not linearizable: %s", result)
	}
}

func parseCount(text string) (n int64, err error) {
	_, err = fmt.Sscan(text, &n)
	return n, err
}

// operator is a connection as an operator, to whichever replica there is.
func (f *fleet) operator(role string) *grpc.ClientConn {
	f.Helper()
	tls, err := identity.AnonymousClientTLS(f.ca.RootsPEM(), f.id("service", "quota"), nil)
	f.need(err)
	conn, err := grpc.NewClient("passthrough:///"+f.replicas[0], grpc.WithTransportCredentials(credentials.NewTLS(tls)),
		with("authorization", "Bearer "+f.tokens[role]), grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second}))
	f.need(err)
	f.Cleanup(func() { _ = conn.Close() })
	return conn
}

// migrate makes the schema.
func (f *fleet) migrate() {
	f.Helper()
	conn, err := pg.Open(f.Context(), pg.Config{DSN: f.server.DSN(pgserver.Login{Database: quota.Database})})
	f.need(err)
	defer conn.Close()
	one, err := conn.Acquire(f.Context())
	f.need(err)
	defer one.Release()
	f.need(pg.Migrate(f.Context(), one.Conn(), database()))
}
