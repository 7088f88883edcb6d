package decide

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/rowhouse-platform/rowhouse/bench/measure"
	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/internal/serve"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/services/quota"
)

const (
	startWithin = 3 * time.Minute
	stopWithin  = 30 * time.Second
	lookEvery   = 100 * time.Millisecond
	envoyMethod = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit"
	guberMethod = "/pb.gubernator.V1/GetRateLimits"
	readable    = 0o644
	private     = 0o700
)

// rules is the file of envoyproxy/ratelimit that it and we answer by.
const rules = "domain: " + domain + "\ndescriptors:\n  - key: user\n    rate_limit: {unit: hour, requests_per_unit: 1000000000}\n"

// street is everything that runs.
type street struct {
	processes []*exec.Cmd
	targets   []target
}

// open builds and starts everything.
func (s *street) open(ctx context.Context, env measure.Env) error {
	env.Sayf("building the house and its peers")
	if err := build(ctx, env); err != nil {
		return err
	}
	env.Sayf("starting a house, gubernator, envoyproxy/ratelimit and Redis")
	for _, begin := range []func(context.Context, measure.Env) (target, error){s.house, s.gubernator, s.ratelimit} {
		t, err := begin(ctx, env)
		if err != nil {
			return err
		}
		s.targets = append(s.targets, t)
	}
	again := s.targets[0]
	again.name = control
	s.targets = append(s.targets, again)
	return s.pin()
}

// pin gives all servers one processor, and the load another, where there are two.
func (s *street) pin() error {
	all := measure.Processors()
	if len(all) < 2 {
		return nil
	}
	var pids []int
	for _, t := range s.targets {
		pids = append(pids, t.pids...)
	}
	return errors.Join(measure.Pin(all[:1], pids...), measure.Pin(all[1:], os.Getpid()))
}

// build compiles what is run. The peers are built of a module of their own, which pins them.
func build(ctx context.Context, env measure.Env) error {
	for binary, from := range map[string][2]string{
		"rowhouse":   {env.Root, "./cmd/rowhouse"},
		"notes":      {env.Root, "./examples/notes/cmd/notes"},
		"gubernator": {filepath.Join(env.Root, "bench", "peers", "limiters"), "github.com/gubernator-io/gubernator/v2/cmd/gubernator"},
		"ratelimit":  {filepath.Join(env.Root, "bench", "peers", "limiters"), "github.com/envoyproxy/ratelimit/src/service_cmd"},
	} {
		cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", filepath.Join(env.Scratch, binary), from[1])
		cmd.Dir = from[0]
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", binary, err, out)
		}
	}
	return nil
}

// start starts a process and waits until up says that it serves.
func (s *street) start(ctx context.Context, dir, name string, env []string, up func() bool, command ...string) (int, error) {
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		return 0, err
	}
	defer func() { _ = log.Close() }() // the process has its own
	// Not bound to ctx: stop ends it, in order.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), command[0], command[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.Env = dir, log, log, append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start %s: %w", name, err)
	}
	s.processes = append(s.processes, cmd)
	deadline := time.Now().Add(startWithin)
	for !up() {
		if ctx.Err() != nil || time.Now().After(deadline) {
			said, _ := os.ReadFile(log.Name()) // it is help, not the matter
			return 0, fmt.Errorf("%s does not serve\n%s", name, said)
		}
		time.Sleep(lookEvery)
	}
	return cmd.Process.Pid, nil
}

// stop ends all processes, the last first.
func (s *street) stop() error {
	var faults []error
	for _, cmd := range slices.Backward(s.processes) {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		kill := time.AfterFunc(stopWithin, func() { _ = cmd.Process.Kill() })
		var exit *exec.ExitError
		if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
			faults = append(faults, err)
		}
		kill.Stop()
	}
	return errors.Join(faults...)
}

// free is an address on loopback that nobody has.
func free(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

func listening(ctx context.Context, address string) func() bool {
	return func() bool {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	}
}

// house starts a whole Rowhouse and has quota answer Envoys about the domain.
func (s *street) house(ctx context.Context, env measure.Env) (t target, err error) {
	state := filepath.Join(env.Scratch, "state")
	said := func() bool {
		b, err := os.ReadFile(filepath.Join(env.Scratch, "house.log"))
		return err == nil && bytes.Contains(b, []byte("ready in"))
	}
	rowhouse := filepath.Join(env.Scratch, "rowhouse")
	if _, err = s.start(ctx, env.Scratch, "house", nil, said, rowhouse, "dev", "--base-port", "0", "--state", state); err != nil {
		return t, err
	}
	config, err := serve.Load[quota.Config](filepath.Join(state, "quota", "config.yaml"))
	if err != nil {
		return t, err
	}
	if err := importRules(ctx, state, config); err != nil {
		return t, err
	}
	id, err := identity.Parse("spiffe://rowhouse.localhost/cell/cell-1/service/quota")
	if err != nil {
		return t, err
	}
	at := func(name string) string { return filepath.Join(state, "envoy", name) }
	roots := filepath.Join(state, "ca", identity.RootsFile)
	source, err := identity.Files(at(identity.CertFile), at(identity.KeyFile), roots, identity.Options{})
	if err != nil {
		return t, err
	}
	t = target{
		name: ours, address: config.RateLimit.GRPC, creds: credentials.NewTLS(source.ClientTLS(id)), method: envoyMethod,
		request: envoyRequest, check: envoyCheck,
	}
	for _, file := range []string{filepath.Join(state, "quota", "pid"), filepath.Join(state, "pg", "data", "postmaster.pid")} {
		pid, err := readPid(file)
		if err != nil {
			return t, err
		}
		t.pids = append(t.pids, pid)
	}
	return t, nil
}

// readPid reads a process's number from the first line of a file.
func readPid(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return strconv.Atoi(strings.TrimSpace(line))
}

// importRules imports the file as the house's operator.
func importRules(ctx context.Context, state string, config quota.Config) error {
	roots, err := os.ReadFile(filepath.Join(state, "ca", identity.RootsFile))
	if err != nil {
		return err
	}
	id, err := identity.Parse("spiffe://rowhouse.localhost/cell/cell-1/service/quota")
	if err != nil {
		return err
	}
	tls, err := identity.AnonymousClientTLS(roots, id, time.Now)
	if err != nil {
		return err
	}
	secret, err := os.ReadFile(filepath.Join(state, "operator", "token"))
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient(config.Process.Listen, grpc.WithTransportCredentials(credentials.NewTLS(tls)),
		grpc.WithPerRPCCredentials(bearer(strings.TrimSpace(string(secret)))))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_, err = quotav1.NewRateLimitConfigServiceClient(conn).ImportRateLimitConfig(ctx, &quotav1.ImportRateLimitConfigRequest{
		Parent: "platform", Files: []*quotav1.RateLimitFile{{Name: "bench.yaml", Content: rules}},
	})
	return err
}

// bearer is an operator's token.
type bearer string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (bearer) RequireTransportSecurity() bool { return true }

// gubernator starts one node that traces nothing.
func (s *street) gubernator(ctx context.Context, env measure.Env) (target, error) {
	api, err := free(ctx)
	if err != nil {
		return target{}, err
	}
	web, err := free(ctx)
	if err != nil {
		return target{}, err
	}
	pid, err := s.start(ctx, env.Scratch, "gubernator", []string{
		"GUBER_GRPC_ADDRESS=" + api, "GUBER_HTTP_ADDRESS=" + web, "GUBER_ADVERTISE_ADDRESS=" + api, "GUBER_PEER_DISCOVERY_TYPE=none",
		"GUBER_LOG_LEVEL=error", "OTEL_TRACES_EXPORTER=none", "GUBER_TRACING_LEVEL=ERROR",
	}, listening(ctx, api), filepath.Join(env.Scratch, "gubernator"))
	return target{
		name: gubernator, address: api, creds: insecure.NewCredentials(), pids: []int{pid},
		method: guberMethod, request: guberRequest, check: guberCheck,
	}, err
}

// ratelimit starts envoyproxy/ratelimit and its Redis.
func (s *street) ratelimit(ctx context.Context, env measure.Env) (t target, err error) {
	var at [4]string
	var ports [4]string
	for i := range at {
		if at[i], err = free(ctx); err != nil {
			return t, err
		}
		if _, ports[i], err = net.SplitHostPort(at[i]); err != nil {
			return t, err
		}
	}
	redis, err := s.start(ctx, env.Scratch, "redis", nil, listening(ctx, at[0]),
		"redis-server", "--port", ports[0], "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
	if err != nil {
		return t, err
	}
	folder := filepath.Join(env.Scratch, "runtime", "ratelimit", "config")
	if err := os.MkdirAll(folder, private); err != nil {
		return t, err
	}
	if err := os.WriteFile(filepath.Join(folder, "bench.yaml"), []byte(rules), readable); err != nil {
		return t, err
	}
	pid, err := s.start(ctx, env.Scratch, "ratelimit", []string{
		"REDIS_SOCKET_TYPE=tcp", "REDIS_URL=" + at[0], "USE_STATSD=false", "LOG_LEVEL=error", "GRPC_HOST=127.0.0.1", "GRPC_PORT=" + ports[1],
		"HOST=127.0.0.1", "PORT=" + ports[2], "DEBUG_HOST=127.0.0.1", "DEBUG_PORT=" + ports[3], "TRACING_ENABLED=false",
		"RUNTIME_ROOT=" + filepath.Join(env.Scratch, "runtime"), "RUNTIME_SUBDIRECTORY=ratelimit", "RUNTIME_WATCH_ROOT=false",
	}, listening(ctx, at[1]), filepath.Join(env.Scratch, "ratelimit"))
	return target{
		name: ratelimit, address: at[1], creds: insecure.NewCredentials(), method: envoyMethod, request: envoyRequest, check: envoyCheck,
		pids: []int{pid, redis},
	}, err
}
