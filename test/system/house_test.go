package system

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The names of a development house.
const (
	domain   = "rowhouse.localhost"
	platform = "rowhouse.localhost"
	cellID   = "cell-1"
	app      = "notes"
)

// processes are a house's own, beside PostgreSQL.
var processes = []string{"tenancy", "config", "quota", "gateway", app}

// Bounds that only a broken house reaches.
const (
	startWithin = 90 * time.Second
	stopWithin  = 60 * time.Second
	settle      = 15 * time.Second
	tick        = 20 * time.Millisecond
)

// plan says what house is wanted.
type plan struct {
	dir   string   // the state folder; a new one when empty
	bin   string   // the folder of the binaries; the plain ones when empty
	flags []string // of rowhouse dev, after those that every house has
}

// house is a running `rowhouse dev`.
type house struct {
	dir   string
	bin   string
	ports ports
	out   *output
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // of the process; read it after ended

	mu    sync.Mutex
	after []func() // run before the house stops
}

// ports are those of ports.json.
type ports struct {
	HTTP, HTTPS, AppHTTP int
	GRPC, Ops            map[string]int
}

// output is what a process has said so far. It is safe for concurrent use.
type output struct {
	mu    sync.Mutex
	text  bytes.Buffer
	heard chan struct{}
}

// Write implements io.Writer.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.heard <- struct{}{}:
	default:
	}
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// start starts a house that ends with the test and must end clean.
func start(t testing.TB, p plan) *house {
	t.Helper()
	h, err := launch(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// launch starts a house and returns when it is ready.
func launch(ctx context.Context, p plan) (*house, error) {
	h, err := ignite(p)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	for !strings.Contains(h.out.String(), "Stop: Ctrl-C") {
		select {
		case <-h.out.heard:
		case <-h.ended:
			return nil, fmt.Errorf("rowhouse dev ended: %w\n%s", h.err, h.out)
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("rowhouse dev is not ready: %w\n%s", ctx.Err(), h.out), h.close())
		}
	}
	b, err := os.ReadFile(h.path("ports.json"))
	if err == nil {
		err = json.Unmarshal(b, &h.ports)
	}
	if err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

// ignite starts the process and does not wait for it to be ready.
func ignite(p plan) (*house, error) {
	h := &house{dir: p.dir, bin: p.bin, out: &output{heard: make(chan struct{}, 1)}, ended: make(chan struct{})}
	if h.bin == "" {
		h.bin = binaries
	}
	if h.dir == "" {
		dir, err := newRoom()
		if err != nil {
			return nil, err
		}
		h.dir = dir
	}
	h.cmd = exec.CommandContext(context.Background(), filepath.Join(h.bin, "rowhouse"),
		append([]string{"dev", "--state", h.dir, "--base-port", "0"}, p.flags...)...)
	h.cmd.Stdout, h.cmd.Stderr = h.out, h.out
	// A test that dies takes its houses with it: the kernel interrupts them.
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGINT}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the signal is sent when the thread ends that started the child
		err := h.cmd.Start()
		started <- err
		if err == nil {
			h.err = h.cmd.Wait()
			close(h.ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return h, nil
}

// newRoom returns the path of a state folder that does not exist yet.
func newRoom() (string, error) {
	dir, err := os.MkdirTemp(rooms, "h")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o711)
}

func (h *house) path(elem ...string) string {
	return filepath.Join(append([]string{h.dir}, elem...)...)
}

// finally has fn run before the house stops.
func (h *house) finally(fn func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.after = append(h.after, fn)
}

// close interrupts the house and removes its folder.
func (h *house) close() error {
	err := h.interrupt()
	if keep := os.Getenv("ROWHOUSE_TEST_KEEP"); keep != "" { // the logs, for one who looks for a defect
		err = errors.Join(err, os.CopyFS(filepath.Join(keep, filepath.Base(h.dir)), os.DirFS(h.path("log"))))
	}
	return errors.Join(err, os.RemoveAll(h.dir))
}

// interrupt ends the house as Ctrl-C does, waits, and looks for what it left running.
func (h *house) interrupt() error {
	h.mu.Lock()
	after := h.after
	h.after = nil
	h.mu.Unlock()
	for _, fn := range after {
		fn()
	}
	pids := h.pids()
	_ = h.cmd.Process.Signal(os.Interrupt) // it may have ended
	timer := time.NewTimer(stopWithin)
	defer timer.Stop()
	select {
	case <-h.ended:
	case <-timer.C:
		_ = h.cmd.Process.Kill()
		<-h.ended
		return fmt.Errorf("the house did not end in %s\n%s", stopWithin, h.out)
	}
	var errs []error
	if h.err != nil {
		errs = append(errs, fmt.Errorf("rowhouse dev: %w\n%s", h.err, h.out))
	}
	for name, pid := range pids {
		if alive(pid) {
			errs = append(errs, fmt.Errorf("%s (pid %d) lives on after the house has ended", name, pid))
		}
	}
	return errors.Join(errs...)
}

// pids are the processes of the house, PostgreSQL's included.
func (h *house) pids() map[string]int {
	found := map[string]int{}
	for _, name := range processes {
		if pid := h.pid(name); pid > 0 {
			found[name] = pid
		}
	}
	if files, err := filepath.Glob(h.path("pg", "*", "postmaster.pid")); err == nil {
		for _, file := range append(files, h.path("pg", "postmaster.pid")) {
			if pid := pidIn(file); pid > 0 {
				found["postgres"] = pid
			}
		}
	}
	return found
}

func (h *house) pid(name string) int { return pidIn(h.path(name, "pid")) }

func pidIn(file string) int {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		return 0
	}
	return pid
}

// alive says whether a process runs; one that nobody has waited for yet does not.
func alive(pid int) bool {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

// kill ends a process of the house as a crash would.
func (h *house) kill(t testing.TB, name string) {
	t.Helper()
	pid := h.pid(name)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("kill %s: %v", name, err)
	}
	eventually(t, settle, func() error {
		if alive(pid) {
			return fmt.Errorf("%s lives on", name)
		}
		return nil
	})
}

// eventually repeats fn until it succeeds.
func eventually(t testing.TB, within time.Duration, fn func() error) {
	t.Helper()
	if err := poll(t.Context(), within, fn); err != nil {
		t.Fatal(err)
	}
}

func poll(ctx context.Context, within time.Duration, fn func() error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		err := fn()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %s: %w", within, err)
		case <-ticker.C:
		}
	}
}

func makeDir(dir string) error { return os.MkdirAll(dir, 0o700) }

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// common is the house that tests share, and wild the one whose app is hijacked.
var common, wild lazy

// lazy is a house that starts when it is first asked for.
type lazy struct {
	once  sync.Once
	house *house
	users *issuer
	err   error
}

// shared returns the house of all tests that harm nothing but their own tenants.
func shared(t testing.TB) *house {
	t.Helper()
	common.once.Do(func() {
		if common.users, common.err = newIssuer(rooms); common.err != nil {
			return
		}
		common.house, common.err = launch(context.Background(), plan{flags: []string{"--users", common.users.file}})
	})
	if common.err != nil {
		t.Fatal(common.err)
	}
	return common.house
}

// hijacked returns a house whose app glues SQL together and tells the tenant contexts
// that it gets; for tests that harm nothing but their own tenants.
func hijacked(t testing.TB) *house {
	t.Helper()
	wild.once.Do(func() { wild.house, wild.err = launch(context.Background(), plan{bin: hostile}) })
	if wild.err != nil {
		t.Fatal(wild.err)
	}
	return wild.house
}

// closeShared ends the houses that tests shared.
func closeShared() error {
	var errs []error
	for _, l := range []*lazy{&common, &wild} {
		if l.house != nil {
			errs = append(errs, l.house.close())
		}
	}
	return errors.Join(errs...)
}
