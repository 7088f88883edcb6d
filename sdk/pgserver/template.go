package pgserver

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// newMark is part of the name of every folder that is not complete yet.
const newMark = ".new-"

// ensureData makes the data folder when there is none, and checks it when
// there is one.
func (h *home) ensureData(ctx context.Context, b Binaries, o Options) error {
	sweepHalfMade(h.data())
	switch _, err := os.Lstat(h.data()); {
	case err == nil:
		return h.checkData(b, o)
	case !os.IsNotExist(err):
		return fmt.Errorf("pgserver: %w", err)
	}
	if o.Profile == Dev {
		return h.initDev(ctx, b)
	}
	if o.Follow != nil {
		return h.copyRunning(ctx, b, o.Follow)
	}
	template, err := ensureTemplate(ctx, b, o, h.who)
	if err != nil {
		return err
	}
	half := halfMade(h.data())
	if err := copyTree(template, half); err != nil {
		return fmt.Errorf("pgserver: copy the template: %w", err)
	}
	return os.Rename(half, h.data())
}

func halfMade(path string) string { return path + newMark + rand.Text()[:8] }

// sweepHalfMade removes what killed processes left of path. The caller holds
// the lock under which path is made.
func sweepHalfMade(path string) {
	left, _ := filepath.Glob(path + newMark + "*") // the pattern is well formed
	for _, dir := range left {
		_ = os.RemoveAll(dir) // the next start tries again
	}
}

// checkData says in one line why an existing data folder cannot be used.
func (h *home) checkData(b Binaries, o Options) error {
	restore := "restore it from a backup, or remove " + h.dir + " to start afresh"
	info, err := os.Stat(h.data())
	if err != nil {
		return fmt.Errorf("pgserver: %w", err)
	}
	if owner := ownerOf(info); owner != h.who.uid {
		return &Error{ErrForeign, fmt.Sprintf("%s belongs to uid %d and the server would run as %s", h.data(), owner, h.who.name),
			"start it as the user that made it, or choose another folder"}
	}
	for _, name := range []string{"PG_VERSION", "global/pg_control", "base", "pg_wal"} {
		if _, err := os.Stat(filepath.Join(h.data(), name)); err != nil {
			return &Error{ErrBroken, h.data() + " has no " + name, restore}
		}
	}
	if major := dataMajor(h.dir); major != b.Major {
		return &Error{ErrVersion, fmt.Sprintf("%s was made by PostgreSQL %d, and %s has %d", h.data(), major, b.Dir, b.Major),
			fmt.Sprintf("run `apt-get install -y postgresql-%d`, or remove %s to start afresh", major, h.dir)}
	}
	if o.Profile == Dev {
		if _, err := os.Stat(h.password()); err != nil {
			return &Error{ErrBroken, "the superuser's password is lost: " + err.Error(), restore}
		}
	}
	return h.clearStalePid()
}

// dataMajor returns the major version that made the data below dir, or 0.
func dataMajor(dir string) int {
	text, err := os.ReadFile(filepath.Join(dir, "data", "PG_VERSION"))
	if err != nil {
		return 0
	}
	major, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return major
}

// clearStalePid removes the postmaster.pid of a server that was killed. The
// lock says that none of ours runs; what remains is a server that someone
// started by hand, which is told by its working folder.
func (h *home) clearStalePid() error {
	path := filepath.Join(h.data(), "postmaster.pid")
	text, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("pgserver: %w", err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	if pid, err := strconv.Atoi(strings.TrimSpace(first)); err == nil && worksIn(pid, h.data()) {
		return &Error{ErrRunning, fmt.Sprintf("PostgreSQL process %d runs on %s", pid, h.data()),
			fmt.Sprintf("run `kill -INT %d` or choose another folder", pid)}
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("pgserver: %w", err)
	}
	return nil
}

func worksIn(pid int, dir string) bool {
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		return false
	}
	real, err := filepath.EvalSymlinks(dir)
	return err == nil && cwd == real
}

// initDev makes a durable cluster with a generated superuser password.
func (h *home) initDev(ctx context.Context, b Binaries) error {
	password := newPassword()
	if err := (identity{}).writeFile(h.password(), []byte(password+"\n")); err != nil {
		return fmt.Errorf("pgserver: keep the password: %w", err)
	}
	// initdb reads the password as its own user, so it gets its own copy.
	pwfile := halfMade(h.data()) + ".pw"
	if err := h.who.writeFile(pwfile, []byte(password+"\n")); err != nil {
		return fmt.Errorf("pgserver: %w", err)
	}
	half := halfMade(h.data())
	err := initdb(ctx, b, h.who, half, "--auth=scram-sha-256", "--data-checksums", "--pwfile="+pwfile)
	if err = errors.Join(err, os.Remove(pwfile)); err != nil {
		return errors.Join(err, os.RemoveAll(half))
	}
	return os.Rename(half, h.data())
}

// ensureTemplate returns the folder of a fresh cluster that test servers copy.
func ensureTemplate(ctx context.Context, b Binaries, o Options, who identity) (string, error) {
	cache, err := cacheDir(o.CacheDir, who)
	if err != nil {
		return "", err
	}
	template := filepath.Join(cache, "template-"+templateHash(b, who))
	if complete(template) {
		return template, nil
	}
	unlock, err := lockWaiting(ctx, template+".lock")
	if err != nil {
		return "", fmt.Errorf("pgserver: lock the template: %w", err)
	}
	defer unlock()
	if complete(template) {
		return template, nil
	}
	sweepHalfMade(template)
	half := halfMade(template)
	// Synced, although test servers do not sync: a template that a crash of
	// the machine had cut short would break every start that follows.
	if err := initdb(ctx, b, who, half, "--auth=trust"); err != nil {
		return "", errors.Join(err, os.RemoveAll(half))
	}
	return template, os.Rename(half, template)
}

func complete(dir string) bool {
	_, err := os.Stat(dir)
	return err == nil
}

// templateHash changes with all that initdb's result depends on.
func templateHash(b Binaries, who identity) string {
	const layout = 1 // raise it when initdb's arguments change
	sum := sha256.Sum256(fmt.Appendf(nil, "%d\n%s\n%s\n%d", layout, b.Version, b.Dir, who.uid))
	return hex.EncodeToString(sum[:8])
}

// cacheDir returns a folder that only the caller can write.
func cacheDir(dir string, who identity) (string, error) {
	switch home, err := os.UserCacheDir(); {
	case dir != "":
	case who.drop():
		dir = "/var/cache/rowhouse/pgserver"
	case err == nil && os.MkdirAll(home, 0o700) == nil && writable(home):
		dir = filepath.Join(home, "rowhouse", "pgserver")
	default: // users such as nobody have no home
		dir = filepath.Join(os.TempDir(), "rowhouse-cache-"+strconv.Itoa(os.Geteuid()))
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("pgserver: %w", err)
	}
	if err := os.MkdirAll(dir, who.callerMode()); err != nil {
		return "", &Error{ErrFolder, err.Error(), "set CacheDir to a folder that you may write"}
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", fmt.Errorf("pgserver: %w", err)
	}
	if !info.IsDir() || ownerOf(info) != os.Geteuid() || info.Mode()&0o022 != 0 {
		return "", &Error{ErrFolder, "others could write the cache folder " + dir, "remove it, or set CacheDir"}
	}
	if who.drop() { // initdb runs as the server's user and must write here
		dir = filepath.Join(dir, who.name)
		if err := who.mkdir(dir); err != nil && !os.IsExist(err) {
			return "", fmt.Errorf("pgserver: %w", err)
		}
	}
	return dir, who.checkPassable(dir)
}

// lockWaiting locks a file and waits its turn, up to the context's end.
func lockWaiting(ctx context.Context, path string) (unlock func(), err error) {
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	for {
		f, err := tryLock(path)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-retry.C:
		}
	}
}

// copyRunning makes the data folder of a standby of a running server.
func (h *home) copyRunning(ctx context.Context, b Binaries, of *Server) error {
	return runTool(ctx, b, h.who, h.data(), "pg_basebackup", "-D", h.data(), "-d", of.DSN(Login{}),
		"--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf", "--no-sync")
}

// initdb makes a cluster in dir, which must not exist.
func initdb(ctx context.Context, b Binaries, who identity, dir string, args ...string) error {
	args = append([]string{"-D", dir, "-U", Superuser, "-E", "UTF8", "--locale=C"}, args...)
	return runTool(ctx, b, who, dir, "initdb", args...)
}

// runTool runs a program of PostgreSQL that fills dir, which must not exist.
func runTool(ctx context.Context, b Binaries, who identity, dir, name string, args ...string) error {
	if err := who.mkdir(dir); err != nil {
		return fmt.Errorf("pgserver: %w", err)
	}
	cmd := exec.CommandContext(ctx, b.path(name), args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env, cmd.Dir = serverEnv(), "/"
	cmd.SysProcAttr = processAttributes(who, syscall.SIGQUIT)
	runtime.LockOSThread() // see process.go: the signal is tied to the thread
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("pgserver: %s: %w", name, ctx.Err())
		}
		return &Error{ErrStart, fmt.Sprintf("%s: %v: %s", name, err, lastLines(out.String(), 3)),
			"free disk space and check the folder " + filepath.Dir(dir)}
	}
	return nil
}

// serverEnv keeps the caller's secrets and locale away from PostgreSQL.
func serverEnv() []string {
	env := []string{"TZ=UTC", "LC_ALL=C", "PATH=" + os.Getenv("PATH")}
	if lib := os.Getenv("LD_LIBRARY_PATH"); lib != "" {
		env = append(env, "LD_LIBRARY_PATH="+lib)
	}
	return env
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], " | ")
}

// newPassword returns 26 letters and digits that need no quoting.
func newPassword() string { return rand.Text() }
