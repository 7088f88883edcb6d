package pgserver_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
)

// envChild makes the test binary start a server and wait, for tests about the end of
// the process that started it, and about other users.
const envChild = "PGSERVER_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(envChild) != "" {
		os.Exit(child())
	}
	os.Exit(inScratch(m))
}

// inScratch runs the tests with a temporary folder of their own, in memory where there
// is room: copying clusters is what they spend their time with.
func inScratch(m *testing.M) int {
	base := "/dev/shm"
	if _, err := os.Stat(base); err != nil {
		base = ""
	}
	dir, err := os.MkdirTemp(base, "pgs")
	if err == nil {
		defer os.RemoveAll(dir)
		err = errors.Join(os.Chmod(dir, 0o777|os.ModeSticky), os.Setenv("TMPDIR", dir))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// child tells its server's process and folders, and stops it when its input closes.
func child() int {
	server, err := pgserver.Start(context.Background(), pgserver.Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Fprintln(os.Stdout, server.PID(), server.Dir(), server.DSN(pgserver.Login{}))
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := server.Stop(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// A process is the test binary as child.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
	pid   int // of its server
	dir   string
	dsn   string
}

// startChild starts a child as the user, or as the caller when that is "".
func startChild(t *testing.T, as string) *process {
	t.Helper()
	binary := os.Args[0]
	if as != "" {
		binary = copyBinary(t) // the folder of `go test` is closed to others
	}
	cmd := exec.CommandContext(t.Context(), binary)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), envChild+"=yes", "HOME=/nonexistent", "XDG_CACHE_HOME=")
	cmd.Stderr = os.Stderr
	if as != "" {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential(t, as)}
	}
	stdin := must(cmd.StdinPipe())(t)
	stdout := must(cmd.StdoutPipe())(t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: cmd, stdin: stdin}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("the child started no server: %v", err)
	}
	if _, err := fmt.Sscan(line, &p.pid, &p.dir, &p.dsn); err != nil {
		t.Fatal(err)
	}
	return p
}

func copyBinary(t *testing.T) string {
	t.Helper()
	self := must(os.ReadFile(os.Args[0]))(t)
	path := filepath.Join(folder(t), "child")
	if err := os.WriteFile(path, self, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func credential(t *testing.T, name string) *syscall.Credential {
	t.Helper()
	u := must(user.Lookup(name))(t)
	return &syscall.Credential{Uid: number(t, u.Uid), Gid: number(t, u.Gid)}
}

func number(t *testing.T, text string) uint32 {
	t.Helper()
	return uint32(must(strconv.ParseUint(text, 10, 32))(t))
}

// folder is a temporary folder that the server's user can pass; t.TempDir is not.
func folder(t *testing.T) string {
	t.Helper()
	dir := must(os.MkdirTemp("", "pgs"))(t) //nolint:usetesting // see above
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}

// start starts a server and stops it at the test's end.
func start(t *testing.T, options pgserver.Options) *pgserver.Server {
	t.Helper()
	s, err := pgserver.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *pgserver.Server) {
	t.Helper()
	if err := s.Stop(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
}

// one returns the only value that the query has, as text.
func one(t *testing.T, dsn, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	var text string
	if err := conn.QueryRow(t.Context(), sql).Scan(&text); err != nil {
		t.Fatal(err)
	}
	return text
}

func run(t *testing.T, dsn, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

// gone waits until the process and the folder are no more.
func gone(t *testing.T, pid int, dir string) {
	t.Helper()
	eventually(t, fmt.Sprintf("process %d and %s to go", pid, dir), func() bool {
		_, err := os.Lstat(dir)
		return dead(pid) && os.IsNotExist(err)
	})
}

// dead counts a zombie as dead: its new parent has only not looked yet.
func dead(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for !is() {
		select {
		case <-limit.C:
			t.Fatal("waited in vain for " + what)
		case <-look.C:
		}
	}
}

// wantError wants a mendable error of the kind, in one line that holds the texts.
func wantError(t *testing.T, err, kind error, texts ...string) {
	t.Helper()
	told, ok := errors.AsType[*pgserver.Error](err)
	if !ok || !errors.Is(err, kind) {
		t.Fatalf("got %v, want an *Error of kind %q", err, kind)
	}
	if told.Mend == "" || strings.Contains(err.Error(), "\n") {
		t.Errorf("%q has no mend or more than one line", err)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q does not say %q", err, text)
		}
	}
}

// must returns a function that takes the test, so that a call with two results fits in.
func must[T any](value T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

// asRoot says whether the caller is root, for what only root can see.
func asRoot() bool { return os.Geteuid() == 0 }
