package pgserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	lockName     = "lock"
	passwordName = "superuser.password"
	tempPrefix   = "rowhouse-pg-"
	// socketPrefix is not tempPrefix and more, or else the sweeper would take the folders
	// of sockets, which have no lock.
	socketPrefix = "rowhouse-pgsocket-"
	shmDir       = "/dev/shm"
	shmFree      = 1 << 30
	// lockPatience covers a server that is still going down because the
	// process that owned it was killed.
	lockPatience = 5 * time.Second
)

// home is the folder of one server. Its lock file is held by this process and
// inherited by postgres, so it is free only when both are gone.
type home struct {
	dir  string
	temp bool
	who  identity
	lock *os.File
}

func (h *home) data() string     { return filepath.Join(h.dir, "data") }
func (h *home) password() string { return filepath.Join(h.dir, passwordName) }

// openHome makes or opens the folder that the options name, and locks it.
func openHome(ctx context.Context, o Options, who identity) (*home, error) {
	if o.Dir == "" {
		return openTempHome(who)
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("pgserver: %w", err)
	}
	if err := checkForeign(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, who.callerMode()); err != nil {
		return nil, fmt.Errorf("pgserver: %w", err)
	}
	h := &home{dir: dir, who: who}
	if err := h.waitForLock(ctx); err != nil {
		return nil, err
	}
	if err := who.checkPassable(dir); err != nil {
		return nil, errors.Join(err, h.unlock())
	}
	return h, nil
}

// checkForeign refuses a folder that holds something which is not ours.
func checkForeign(dir string) error {
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) || (err == nil && len(entries) == 0) {
		return nil
	}
	if err != nil {
		return &Error{ErrFolder, err.Error(), "choose a folder that you may read"}
	}
	for _, e := range entries {
		if e.Name() == lockName {
			return nil
		}
	}
	return &Error{ErrForeign, dir + " is not empty and was not made by Rowhouse", "choose an empty folder"}
}

func (h *home) waitForLock(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	path := filepath.Join(h.dir, lockName)
	for {
		lock, err := tryLock(path)
		if err == nil {
			h.lock = lock
			return h.noteHolder(lock)
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("pgserver: lock %s: %w", path, err)
		}
		// A holder that lives keeps the lock. Of one that died, postgres is on
		// its way out, and that is worth a wait.
		holder := lockHolder(path)
		if ctx.Err() != nil || alive(holder) {
			return &Error{ErrRunning, fmt.Sprintf("a server runs on %s (started by process %d)", h.dir, holder),
				"stop that process or choose another folder"}
		}
		select {
		case <-ctx.Done():
		case <-retry.C:
		}
	}
}

// noteHolder tells whoever finds the lock taken which process to look at.
func (h *home) noteHolder(lock *os.File) error {
	err := lock.Truncate(0)
	if err == nil {
		_, err = fmt.Fprintln(lock, os.Getpid())
	}
	if err != nil {
		return fmt.Errorf("pgserver: %w", errors.Join(err, lock.Close()))
	}
	return nil
}

// lockHolder returns the process that took the lock, or 0 before it wrote so.
func lockHolder(path string) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return pid
}

func alive(pid int) bool {
	return pid > 0 && !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// tryLock opens and locks a file without waiting.
func tryLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (h *home) unlock() error { return h.lock.Close() }

// close gives the folder back, and removes it when it was only for this run.
func (h *home) close() error {
	var err error
	if h.temp {
		err = os.RemoveAll(h.dir)
	}
	return errors.Join(err, h.unlock())
}

// openTempHome makes a folder for one run, after it has removed those that
// killed processes left behind.
func openTempHome(who identity) (*home, error) {
	base := tempBase()
	if err := who.checkPassable(base); err != nil {
		return nil, err
	}
	sweepTempHomes(base)
	for {
		h := &home{dir: filepath.Join(base, tempPrefix+strings.ToLower(rand.Text()[:10])), temp: true, who: who}
		if err := os.Mkdir(h.dir, 0o700); err != nil {
			return nil, fmt.Errorf("pgserver: %w", err)
		}
		// Chmod because the umask may have taken bits that Mkdir was given.
		if err := os.Chmod(h.dir, who.callerMode()); err != nil && !os.IsNotExist(err) {
			return nil, fmt.Errorf("pgserver: %w", err)
		}
		lock, err := tryLock(filepath.Join(h.dir, lockName))
		if err == nil && stillThere(lock) {
			h.lock = lock
			return h, nil
		}
		// A sweeper took the folder between Mkdir and the lock: try again.
		if err == nil {
			err = lock.Close()
		}
		if err != nil && !os.IsNotExist(err) && !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("pgserver: %w", err)
		}
	}
}

func stillThere(f *os.File) bool {
	open, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(f.Name())
	return err == nil && os.SameFile(open, named)
}

func tempBase() string {
	var st syscall.Statfs_t
	if err := syscall.Statfs(shmDir, &st); err != nil || !writable(shmDir) {
		return os.TempDir()
	}
	if free := st.Bavail * uint64(st.Bsize); free >= shmFree { //nolint:gosec // a block's size is not negative
		return shmDir
	}
	return os.TempDir()
}

func writable(dir string) bool {
	const writeAndPass = 2 | 1
	return syscall.Access(dir, writeAndPass) == nil
}

// sweepTempHomes removes the folders of this user whose lock nobody holds, and
// empty ones without a lock, whose maker died before it took one. It is a
// courtesy: what it cannot remove is left for the next start.
func sweepTempHomes(base string) {
	dirs, _ := filepath.Glob(filepath.Join(base, tempPrefix+"*")) // the pattern is well formed
	for _, dir := range dirs {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || ownerOf(info) != os.Geteuid() {
			continue
		}
		path := filepath.Join(dir, lockName)
		if _, err := os.Lstat(path); os.IsNotExist(err) {
			_ = os.Remove(dir) // only when it is empty
			continue
		}
		lock, err := tryLock(path)
		if err != nil {
			continue
		}
		_ = os.RemoveAll(dir)
		_ = lock.Close()
	}
}

// copyTree copies a folder of plain files, with owners and modes.
func copyTree(from, to string) error {
	return filepath.Walk(from, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(path, from))
		switch {
		case info.IsDir():
			err = os.Mkdir(target, info.Mode().Perm())
		case info.Mode().IsRegular():
			err = copyFile(path, target, info)
		default:
			err = fmt.Errorf("%s is neither file nor folder", path)
		}
		if err != nil || os.Geteuid() != 0 {
			return err
		}
		return os.Lchown(target, ownerOf(info), -1)
	})
}

// copyFile lets the kernel share or copy the bytes where it can.
func copyFile(from, to string, info os.FileInfo) error {
	src, err := os.OpenFile(from, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Close())
}
