package docs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
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

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
)

// binaries is the folder of rowhouse and notes, written before the first test runs.
var binaries string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if binaries = os.Getenv("ROWHOUSE_BIN"); binaries != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "rowhouse-docs-")
	if err == nil {
		defer os.RemoveAll(dir)
		binaries = dir
		cmd := exec.CommandContext(context.Background(), "go", "build", "-buildvcs=false", "-o", dir, "./cmd/rowhouse", "./examples/notes/cmd/notes")
		cmd.Dir = root
		cmd.Stderr = os.Stderr
		err = cmd.Run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "docs:", err)
		return 1
	}
	return m.Run()
}

// Bounds that only a broken house reaches.
const (
	startWithin = 90 * time.Second
	stopWithin  = 60 * time.Second
)

// house is a running `rowhouse dev`.
type house struct {
	dir   string
	ports struct {
		HTTP, HTTPS, EnvoyHTTP int
		GRPC, Ops              map[string]int
	}
	spare int    // a port that is free
	work  string // where pages are run
	said  string // what it said until it was ready
	token string // of a user of acme
}

// output collects what a process says and tells when there is more.
type output struct {
	mu    sync.Mutex
	text  strings.Builder
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

// start starts a house that ends with the test.
func start(t *testing.T) *house {
	t.Helper()
	dir, err := os.MkdirTemp("", "rhd") //nolint:usetesting // a folder of t.TempDir lets no other user pass
	if err == nil {
		err = os.Chmod(dir, 0o711) // PostgreSQL's user has to pass
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	h := &house{dir: filepath.Join(dir, "state"), spare: freePort(t), work: t.TempDir()}
	out := &output{heard: make(chan struct{}, 1)}
	h.token = signIn(t, dir)
	cmd := exec.CommandContext(context.Background(), filepath.Join(binaries, "rowhouse"), "dev", "--state", h.dir, "--base-port", "0",
		"--users", filepath.Join(dir, "users.yaml"))
	cmd.Stdout, cmd.Stderr = out, out
	ended := launch(t, cmd)
	t.Cleanup(func() { stop(t, cmd, ended, out) })
	deadline := time.NewTimer(startWithin)
	defer deadline.Stop()
	for !strings.Contains(out.String(), "Stop: Ctrl-C") {
		select {
		case <-out.heard:
		case err := <-ended:
			ended <- err
			t.Fatalf("rowhouse dev ended: %v\n%s", err, out)
		case <-deadline.C:
			t.Fatalf("rowhouse dev is not ready after %s\n%s", startWithin, out)
		}
	}
	h.said = out.String()
	b, err := os.ReadFile(filepath.Join(h.dir, "ports.json"))
	if err := errors.Join(err, json.Unmarshal(b, &h.ports)); err != nil {
		t.Fatal(err)
	}
	return h
}

// launch starts a process that the kernel interrupts when this one dies, and returns where its end is told.
func launch(t *testing.T, cmd *exec.Cmd) chan error {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGINT}
	started, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the signal is sent when the thread ends that started the child
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	return ended
}

// stop interrupts a house as Ctrl-C does and waits for it.
func stop(t *testing.T, cmd *exec.Cmd, ended chan error, out *output) {
	t.Helper()
	_ = cmd.Process.Signal(os.Interrupt) // it may have ended
	timer := time.NewTimer(stopWithin)
	defer timer.Stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("rowhouse dev: %v\n%s", err, out)
		}
	case <-timer.C:
		_ = cmd.Process.Kill()
		t.Errorf("rowhouse dev did not end in %s\n%s", stopWithin, out)
	}
}

// freePort finds a port that nobody has, below those that the system hands out: the page takes it much later.
func freePort(t *testing.T) int {
	t.Helper()
	const lowest, many, tries = 20000, 10000, 100
	for range tries {
		port := lowest + rand.N(many)
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatal("there is no free port")
	return 0
}

// folder is where a page is run: one of its own, or that of the page which it continues and which was run before it.
func (h *house) folder(t *testing.T, p page) string {
	t.Helper()
	if first := p.continues(); first != "" {
		dir := filepath.Join(h.work, first)
		if _, err := os.Stat(dir); err != nil {
			t.Fatalf("%s continues %s, which was not run: %v", p.path, first, err)
		}
		return dir
	}
	dir := filepath.Join(h.work, p.path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// here replaces the ports of a usual house, which pages show, by those of this one.
func (h *house) here(text string) string {
	return strings.NewReplacer(
		"localhost:8080", "localhost:"+strconv.Itoa(h.ports.HTTP),
		"localhost:8443", "localhost:"+strconv.Itoa(h.ports.HTTPS),
		"127.0.0.1:7101", "127.0.0.1:"+strconv.Itoa(h.ports.GRPC["tenancy"]),
		"127.0.0.1:7102", "127.0.0.1:"+strconv.Itoa(h.ports.GRPC["config"]),
		"127.0.0.1:7108", "127.0.0.1:"+strconv.Itoa(h.ports.EnvoyHTTP),
		"127.0.0.1:7120", "127.0.0.1:"+strconv.Itoa(h.spare),
	).Replace(text)
}

// environment is what a reader has set before the first command.
func (h *house) environment(t *testing.T) []string {
	t.Helper()
	bins, err := pgserver.Discover(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	repo, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	path := strings.Join([]string{binaries, os.Getenv("PATH"), bins.Dir}, ":")
	return append(os.Environ(), "PATH="+path, "ROWHOUSE="+repo, "STATE="+h.dir, "TOKEN="+h.token,
		"ROWHOUSE_CONTEXTS="+filepath.Join(h.dir, "contexts.yaml"), "LC_ALL=C.UTF-8")
}

// askOps asks each process for what the architecture says of ops ports.
func (h *house) askOps(t *testing.T) {
	t.Helper()
	for process, port := range h.ports.Ops {
		paths := map[string]int{"livez": 200, "readyz": 200, "metrics": 200, "startupz": 200}
		if process == "notes" { // the example app is no service of ours
			paths["startupz"] = 404
		}
		for path, want := range paths {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/%s", port, path), nil)
			if err != nil {
				t.Fatal(err)
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != want {
				t.Errorf("%s answers /%s with %d, not %d", process, path, res.StatusCode, want)
			}
		}
	}
	if len(h.ports.Ops) == 0 {
		t.Error("ports.json holds no ops port")
	}
}
