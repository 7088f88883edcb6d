package system

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
)

// refusedStart runs rowhouse dev, which must end by itself with one line, and returns it.
func refusedStart(t *testing.T, bin, dir string, env []string, flags ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), settle)
	defer cancel()
	runtime.LockOSThread() // the kernel ends the child with the thread that started it
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "rowhouse"), append([]string{"dev", "--state", dir}, flags...)...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGINT}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = settle
	out, err := cmd.CombinedOutput()
	if _, ok := errors.AsType[*exec.ExitError](err); !ok {
		t.Fatalf("rowhouse dev ended with %v: %s", err, out)
	}
	var errs []string
	for line := range strings.Lines(string(out)) {
		if said, ok := strings.CutPrefix(line, "rowhouse: "); ok {
			errs = append(errs, strings.TrimSpace(said))
		}
	}
	if len(errs) != 1 || !strings.HasSuffix(strings.TrimSpace(string(out)), errs[0]) {
		t.Errorf("not one clear line at the end: %s", out)
	}
	return strings.Join(errs, "; ")
}

func wantLine(t *testing.T, line string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(line, word) {
			t.Errorf("the line does not say %q: %s", word, line)
		}
	}
}

// promised is how long a first start may take, as rowhouse dev measures it, on a machine with little else to do.
const promised = 30 * time.Second

// The first start, with its database, keys, migrations and samples, keeps its promise. It is no parallel test, so that
// the house that the others share starts alone, here.
func TestDevStartsInTime(t *testing.T) { //nolint:paralleltest // see above
	if err := inTime(shared(t).out.String()); err != nil {
		t.Error(err)
	}
}

// inTime reads how long a start took from what it said.
func inTime(said string) error {
	m := regexp.MustCompile(`(?m)^ready in ([0-9.]+) s\.`).FindStringSubmatch(said)
	if m == nil {
		return fmt.Errorf("it does not say how long it took: %s", said)
	}
	took, err := time.ParseDuration(m[1] + "s")
	if err == nil && took > promised {
		err = fmt.Errorf("the start took %s, promised are %s", took, promised)
	}
	return err
}

func TestInTimeFindsALateStart(t *testing.T) {
	t.Parallel()
	for said, ok := range map[string]bool{
		"\nready in 7.3 s. Open": true, "\nready in 30.0 s. Open": true, "\nready in 30.1 s. Open": false,
		"\nready in 120.0 s. Open": false, "\nready. Open": false, "": false,
	} {
		if err := inTime(said); (err == nil) != ok {
			t.Errorf("%q: %v", said, err)
		}
	}
}

// A second start on a folder in use names who runs, and harms nothing.
func TestDevRunsOnceOnAFolder(t *testing.T) {
	t.Parallel()
	h := shared(t)
	line := refusedStart(t, binaries, h.dir, nil, "--base-port", "0")
	wantLine(t, line, "already running", fmt.Sprintf("pid %d", h.cmd.Process.Pid), "--state")
	line = refusedStart(t, binaries, h.dir, nil, "--base-port", "0", "--reset")
	wantLine(t, line, "already running", fmt.Sprintf("pid %d", h.cmd.Process.Pid))
	if a := h.visit(t, visit{host: "notes.acme.localhost", path: "/notes"}); a.status != 200 {
		t.Errorf("afterwards: %d %s", a.status, a.body)
	}
}

// A port in use, a folder of somebody else, a missing app and a missing PostgreSQL each
// get one line with the mend, and leave nothing running.
func TestDevSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	t.Run("port in use", func(t *testing.T) {
		t.Parallel()
		taken, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = taken.Close() }()
		_, port, _ := net.SplitHostPort(taken.Addr().String())
		line := refusedStart(t, binaries, filepath.Join(t.TempDir(), "house"), nil, "--http-port", port)
		wantLine(t, line, "port "+port, fmt.Sprintf("pid %d", os.Getpid()), "--http-port")
	})
	t.Run("foreign folder", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		file := filepath.Join(dir, "thesis.txt")
		if err := os.WriteFile(file, []byte("ten years of work"), 0o600); err != nil {
			t.Fatal(err)
		}
		wantLine(t, refusedStart(t, binaries, dir, nil, "--base-port", "0"), dir, "--state")
		wantLine(t, refusedStart(t, binaries, dir, nil, "--base-port", "0", "--reset"), dir, "nothing was removed")
		if b, err := os.ReadFile(file); err != nil || string(b) != "ten years of work" {
			t.Errorf("the file there is now %q, %v", b, err)
		}
	})
	t.Run("damaged folder", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		for name, text := range map[string]string{"rowhouse-dev": "2\n", "ports.json": "{"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		wantLine(t, refusedStart(t, binaries, dir, nil, "--base-port", "0"), "ports.json", "--reset")
	})
	t.Run("no app", func(t *testing.T) {
		t.Parallel()
		bin, err := newRoom()
		if err == nil {
			err = os.Link(filepath.Join(binaries, "rowhouse"), filepath.Join(bin, "rowhouse"))
		}
		if err != nil {
			t.Fatal(err)
		}
		dir, err := newRoom()
		if err != nil {
			t.Fatal(err)
		}
		wantLine(t, refusedStart(t, bin, dir, nil, "--base-port", "0"), "example app", "make build")
		if files, _ := filepath.Glob(filepath.Join(dir, "pg", "*.pid")); files != nil {
			t.Errorf("PostgreSQL was left behind: %v", files)
		}
	})
	t.Run("no PostgreSQL", func(t *testing.T) {
		t.Parallel()
		line := refusedStart(t, binaries, filepath.Join(t.TempDir(), "house"), []string{pgserver.EnvBin + "=" + t.TempDir()}, "--base-port", "0")
		wantLine(t, line, "PostgreSQL")
	})
}

// An interrupt ends everything; the next start keeps the data; --reset starts over.
func TestDevKeepsDataUntilReset(t *testing.T) {
	t.Parallel()
	first := ownHouse(t, plan{})
	first.write(t, "notes.acme.localhost", "kept over a restart")
	second := ownHouse(t, plan{dir: first.leave(t)})
	if second.ports.HTTP != first.ports.HTTP {
		t.Errorf("the port moved from %d to %d", first.ports.HTTP, second.ports.HTTP)
	}
	all := func(h *house) string {
		return h.visit(t, visit{host: "notes.acme.localhost", path: "/notes"}).body
	}
	if got := all(second); !strings.Contains(got, "kept over a restart") || strings.Count(got, samples["acme"]) != 1 {
		t.Errorf("after the second start: %s", got)
	}
	third := start(t, plan{dir: second.leave(t), flags: []string{"--reset"}})
	if got := all(third); strings.Contains(got, "kept over a restart") || strings.Count(got, samples["acme"]) != 1 {
		t.Errorf("after --reset: %s", got)
	}
}

// A house starts again after its operator suspended one sample tenant and deleted another, and leaves them so.
func TestDevStartsAfterItsOperator(t *testing.T) {
	t.Parallel()
	first := ownHouse(t, plan{})
	tenants := tenancyv1.NewTenantServiceClient(first.operator(t, "tenancy"))
	_, err := tenants.SuspendTenant(t.Context(), &tenancyv1.SuspendTenantRequest{
		Name: "tenants/acme", Cause: tenancyv1.SuspensionCause_SUSPENSION_CAUSE_BILLING, Reason: "an unpaid bill",
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = tenants.DeleteTenant(t.Context(), &tenancyv1.DeleteTenantRequest{Name: "tenants/globex", Reason: "they left us"}); err != nil {
		t.Fatal(err)
	}
	second := start(t, plan{dir: first.leave(t)})
	notes := func(id string) answer {
		return second.visit(t, visit{host: "notes." + id + ".localhost", path: "/notes"})
	}
	eventually(t, settle, func() error {
		if a := notes("acme"); a.reason() != "TENANT_SUSPENDED" {
			return fmt.Errorf("acme, suspended: %d %s", a.status, a.body)
		}
		if a := notes("globex"); a.status/100 != 4 {
			return fmt.Errorf("globex, deleted: %d %s", a.status, a.body)
		}
		if a := notes("initech"); a.status != http.StatusOK || !strings.Contains(a.body, samples["initech"]) {
			return fmt.Errorf("initech: %d %s", a.status, a.body)
		}
		return nil
	})
	_, err = tenancyv1.NewTenantServiceClient(second.operator(t, "tenancy")).ResumeTenant(t.Context(), &tenancyv1.ResumeTenantRequest{
		Name: "tenants/acme", Cause: tenancyv1.SuspensionCause_SUSPENSION_CAUSE_BILLING, Reason: "they paid",
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, settle, func() error {
		if a := notes("acme"); a.status != http.StatusOK || !strings.Contains(a.body, samples["acme"]) {
			return fmt.Errorf("acme, resumed: %d %s", a.status, a.body)
		}
		return nil
	})
}

// A domain that an operator adds answers over HTTPS like the samples', without a restart.
func TestDevSignsForNewDomains(t *testing.T) {
	t.Parallel()
	h := shared(t)
	host := h.tenant(t, "freshly")
	client := h.browser()
	eventually(t, settle, func() error {
		a, err := h.ask(t.Context(), client, visit{host: host, path: "/notes", tls: true})
		if err == nil && a.status != http.StatusOK {
			err = fmt.Errorf("%s: %d %s", host, a.status, a.body)
		}
		return err
	})
}

// ownHouse starts a house that the test leaves by itself.
func ownHouse(t *testing.T, p plan) *house {
	t.Helper()
	h, err := launch(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.close() }) // where leave was not reached
	return h
}

// leave interrupts the house, wants nothing left running, and returns its folder.
func (h *house) leave(t *testing.T) string {
	t.Helper()
	if err := h.interrupt(); err != nil {
		t.Error(err)
	}
	if out := h.out.String(); !strings.Contains(out, "stopping") {
		t.Errorf("it does not say that it stops: %s", out)
	}
	return h.dir
}
