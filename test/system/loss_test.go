package system

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	notesv1 "github.com/rowhouse-platform/rowhouse/gen/notes/v1"
)

// Known tenants are served while tenancy, config, quota and their databases are gone,
// also by a gateway and an app that start meanwhile. make test looks for seconds at a
// time, make test-long for a minute.
func TestControlPlaneLost(t *testing.T) {
	t.Parallel()
	h := start(t, plan{})
	// Past 15 s of silence the verifiers count the control plane as lost: the later loads run then.
	length := 8 * time.Second
	if long() {
		length = time.Minute
	}
	h.load(t, "with the control plane", time.Second)

	for _, name := range []string{"tenancy", "config", "quota"} {
		h.kill(t, name)
	}
	h.closeDatabases(t)
	h.load(t, "without the control plane", length)
	h.restart(t, "gateway", filepath.Join(h.bin, "rowhouse"), "serve", "gateway")
	h.load(t, "after a restart of the gateway", length)
	h.restart(t, app, filepath.Join(h.bin, app), "serve")
	h.load(t, "after a restart of the app", length/2)

	for host, want := range map[string]int{"notes.nobody.localhost": http.StatusNotFound, "notes.acme.localhost": http.StatusOK} {
		if a := h.visit(t, visit{host: host, path: "/notes"}); a.status != want {
			t.Errorf("%s: %d, want %d", host, a.status, want)
		}
	}
}

// The load of a test, and what it wants of it beside success: it is no proof of service when few were asked, or all waited.
const (
	clients = 3 // of each tenant
	pace    = 100 * time.Millisecond
	// enough is the part of the requests that the pace allows which must have been answered.
	enough = 0.8
	// patience bounds all but the slowest twentieth: the first request of each client, some in a hundred, makes its
	// connection to what has only just started. A person would not call it broken, on a machine that does much else.
	patience = time.Second
)

// tally is what a load has seen. It is safe for concurrent use.
type tally struct {
	mu     sync.Mutex
	took   []time.Duration
	failed int
	first  map[string]error // of each tenant
}

func (l *tally) add(tenant string, took time.Duration, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.took = append(l.took, took)
	if err == nil {
		return
	}
	l.failed++
	if l.first[tenant] == nil {
		l.first[tenant] = err
	}
}

// slowest is the time within which all but a twentieth were answered.
func (l *tally) slowest() time.Duration {
	if len(l.took) == 0 {
		return 0
	}
	slices.Sort(l.took)
	return l.took[(len(l.took)-1)*95/100]
}

// faults says what is wrong with a load of that length by so many clients.
func (l *tally) faults(length time.Duration, clients int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	if l.failed > 0 {
		errs = append(errs, fmt.Errorf("%d of %d requests failed: %v", l.failed, len(l.took), l.first))
	}
	if all := clients * int(length/pace); float64(len(l.took)) < enough*float64(all) {
		errs = append(errs, fmt.Errorf("only %d requests of %d were answered in %s", len(l.took), all, length))
	}
	if p95 := l.slowest(); p95 > patience {
		errs = append(errs, fmt.Errorf("a request in twenty takes longer than %s", p95))
	}
	return errors.Join(errs...)
}

// load sends requests of all tenants, several of each at a time, by HTTP and gRPC in turn, and fails the test for each
// that fails, for too few and for slow ones.
func (h *house) load(t *testing.T, when string, length time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	seen := &tally{first: map[string]error{}}
	var group sync.WaitGroup
	for tenant := range samples {
		client := func(ask [2]func(context.Context) (string, error)) {
			ticker := time.NewTicker(pace)
			defer ticker.Stop()
			for turn := 0; ctx.Err() == nil; turn++ {
				began := time.Now()
				text, err := ask[turn%2](t.Context())
				if err == nil && (len(foreign(tenant, text)) > 0 || !strings.Contains(text, samples[tenant])) {
					err = fmt.Errorf("wrong rows: %s", text)
				}
				seen.add(tenant, time.Since(began), err)
				select {
				case <-ticker.C:
				case <-ctx.Done():
				}
			}
		}
		for range clients {
			ask := h.both(t, tenant)
			group.Go(func() { client(ask) })
		}
	}
	group.Wait()
	if err := seen.faults(length, clients*len(samples)); err != nil {
		t.Errorf("%s: %v", when, err)
	}
	t.Logf("%s: %d requests in %s, %d failed, p95 %s", when, len(seen.took), length, seen.failed, seen.slowest())
}

// A load that is thin, slow or refused is no service.
func TestLoadFindsWhatIsNoService(t *testing.T) {
	t.Parallel()
	const length, one = 10 * time.Second, 1
	for name, c := range map[string]struct {
		requests, slow, failed int
		ok                     bool
	}{
		"good":             {requests: 100, ok: true},
		"five are slow":    {requests: 100, slow: 5, ok: true},
		"six are slow":     {requests: 100, slow: 6},
		"too few":          {requests: 79},
		"nothing answered": {},
		"one failed":       {requests: 100, failed: 1},
	} {
		seen := &tally{first: map[string]error{}}
		for i := range c.requests {
			took, err := time.Millisecond, error(nil)
			if i < c.slow {
				took = 2 * patience
			}
			if i < c.failed {
				err = errors.New("refused")
			}
			seen.add("acme", took, err)
		}
		if err := seen.faults(length, one); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// both are a sample tenant's list of notes by HTTP and by gRPC.
func (h *house) both(t *testing.T, tenant string) [2]func(context.Context) (string, error) {
	t.Helper()
	host := app + "." + tenant + ".localhost"
	client := h.browser()
	front := notesv1.NewNotesServiceClient(h.front(t, host, false))
	return [2]func(context.Context) (string, error){
		func(ctx context.Context) (string, error) {
			a, err := h.ask(ctx, client, visit{host: host, path: "/notes"})
			if err == nil && a.status != http.StatusOK {
				err = fmt.Errorf("%d %s", a.status, a.body)
			}
			return a.body, err
		},
		func(ctx context.Context) (string, error) {
			list, err := front.ListNotes(ctx, &notesv1.ListNotesRequest{})
			return list.String(), err
		},
	}
}

// closeDatabases makes the control plane's databases unreachable. The app's, on the same
// server here, stays.
func (h *house) closeDatabases(t *testing.T) {
	t.Helper()
	conn := h.superuser(t, "postgres")
	for _, name := range []string{"rowhouse_tenancy", "rowhouse_config", "rowhouse_quota", "rowhouse_gateway"} {
		for _, sql := range []string{
			"ALTER DATABASE " + name + " ALLOW_CONNECTIONS false",
			"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '" + name + "'",
		} {
			if _, err := conn.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// superuser connects to a database of the house's PostgreSQL.
func (h *house) superuser(t testing.TB, database string) *pgx.Conn {
	t.Helper()
	return connect(t, h.path("cells", cellID), database)
}

// connect connects with the connection string in a file.
func connect(t testing.TB, file, database string) *pgx.Conn {
	t.Helper()
	dsn, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	config, err := pgx.ParseConfig(strings.TrimSpace(string(dsn)))
	if err != nil {
		t.Fatal(err)
	}
	config.Database = database
	conn, err := pgx.ConnectConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}

// restart ends a process of the house in good order and starts it again.
func (h *house) restart(t *testing.T, name string, command ...string) {
	t.Helper()
	pid := h.pid(name)
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, stopWithin, func() error {
		if alive(pid) {
			return errors.New(name + " does not end")
		}
		return nil
	})
	h.bringBack(t, name, command...)
}

// bringBack starts a process of the house that has ended.
func (h *house) bringBack(t *testing.T, name string, command ...string) {
	t.Helper()
	log, err := os.Create(h.path("log", name+"-again.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), command[0],
		append(command[1:], "--config", h.path(name, "config.yaml"))...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h.finally(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		if err := errors.Join(cmd.Wait(), log.Close()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	client := h.browser()
	began := time.Now()
	if err := poll(t.Context(), startWithin, func() error {
		return ready(t.Context(), client, h.ports.Ops[name])
	}); err != nil {
		text, _ := os.ReadFile(log.Name())
		t.Fatalf("%s does not come back: %v\n%s", name, err, text)
	}
	t.Logf("%s is ready again after %s", name, time.Since(began).Round(time.Millisecond))
}

// ready asks a process whether it serves.
func ready(ctx context.Context, client *http.Client, port int) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+loopback(port)+"/readyz", nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return nil
}

// Streams that were open when the control plane was lost live on past the end of their
// contexts: a gateway renews them from what it knows. What each carries is its tenant's
// alone, and one that is silent meanwhile, but for pings, is not taken for dead.
func TestStreamOutlivesTheControlPlane(t *testing.T) {
	t.Parallel()
	h := start(t, plan{bin: hostile})
	mine, theirs, silent := h.tenant(t, "streaming"), h.tenant(t, "elsewhere"), h.tenant(t, "silent")
	next := h.watch(t, mine)
	nextOfSilent := h.watch(t, silent)
	began := time.Now()
	for _, name := range []string{"tenancy", "config", "quota"} {
		h.kill(t, name)
	}
	h.closeDatabases(t)

	token, err := h.refresh(t, app, "gateway", h.steal(t, mine))
	if err != nil {
		t.Fatalf("the gateway does not renew without the control plane: %v", err)
	}
	if _, err := h.refresh(t, app, "tenancy", token); status.Code(err) != codes.Unavailable {
		t.Errorf("tenancy is gone, and says %v", err)
	}
	// A context lives 45 s; the tests that take their time see the stream live through its second one.
	const pace = 2 * time.Second
	length := 5 * pace
	if long() {
		length = 100 * time.Second
	}
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	for turn := 1; time.Since(began) < length; turn++ {
		<-ticker.C
		h.write(t, theirs, "theirs")
		next(strconv.Itoa(turn))
	}
	nextOfSilent("the only one")
	t.Logf("the streams lived for %s", time.Since(began).Round(time.Second))
}

// watch opens a tenant's stream of notes through the front door. The returned function
// writes a note and wants it to be the next that the stream carries.
func (h *house) watch(t *testing.T, host string) (next func(title string)) {
	t.Helper()
	began := time.Now()
	stream, err := notesv1.NewNotesServiceClient(h.front(t, host, false)).WatchNotes(t.Context(), &notesv1.WatchNotesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	next = func(title string) {
		t.Helper()
		h.write(t, host, title)
		if m, err := stream.Recv(); err != nil || m.GetNote().GetTitle() != title {
			t.Fatalf("after %s the stream of %s says %v, %v; want note %s", time.Since(began).Round(time.Second), host, m, err, title)
		}
	}
	next("the first")
	return next
}
