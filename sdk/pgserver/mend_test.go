package pgserver_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
)

// stopped returns the folder of a server that ran and was stopped.
func stopped(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(folder(t), "pg")
	s := start(t, pgserver.Options{Dir: dir})
	stop(t, s)
	return dir
}

func TestAlreadyRunning(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(folder(t), "pg")
	s := start(t, pgserver.Options{Dir: dir})
	_, err := pgserver.Start(t.Context(), pgserver.Options{Dir: dir})
	wantError(t, err, pgserver.ErrRunning, dir, fmt.Sprint("process ", os.Getpid()))
	one(t, s.DSN(pgserver.Login{}), "SELECT 'unharmed'")
}

func TestForeignFolder(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	if err := os.WriteFile(filepath.Join(dir, "thesis.txt"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := pgserver.Start(t.Context(), pgserver.Options{Dir: dir})
	wantError(t, err, pgserver.ErrForeign, dir, "choose an empty folder")
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the folder was touched: %v, %v", entries, err)
	}
}

func TestBrokenData(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(data string) error{
		"no control file": func(data string) error { return os.Remove(filepath.Join(data, "global", "pg_control")) },
		"cut short":       func(data string) error { return os.Truncate(filepath.Join(data, "global", "pg_control"), 0) },
		"torn":            func(data string) error { return scribble(filepath.Join(data, "global", "pg_control")) },
		"no log":          func(data string) error { return os.RemoveAll(filepath.Join(data, "pg_wal")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := stopped(t)
			if err := harm(filepath.Join(dir, "data")); err != nil {
				t.Fatal(err)
			}
			_, err := pgserver.Start(t.Context(), pgserver.Options{Dir: dir})
			wantError(t, err, pgserver.ErrBroken, dir, "to start afresh")
		})
	}
}

func scribble(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt([]byte("scribble"), 16); err != nil {
		return err
	}
	return f.Close()
}

func TestLostPassword(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(folder(t), "pg")
	s := start(t, pgserver.Options{Dir: dir, Profile: pgserver.Dev})
	stop(t, s)
	file := filepath.Join(dir, "superuser.password")
	if err := os.WriteFile(file, []byte("guess"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := pgserver.Start(t.Context(), pgserver.Options{Dir: dir, Profile: pgserver.Dev})
	wantError(t, err, pgserver.ErrBroken, file)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	_, err = pgserver.Start(t.Context(), pgserver.Options{Dir: dir, Profile: pgserver.Dev})
	wantError(t, err, pgserver.ErrBroken, file)
}

func TestAnotherMajorVersion(t *testing.T) {
	t.Parallel()
	dir := stopped(t)
	if err := os.WriteFile(filepath.Join(dir, "data", "PG_VERSION"), []byte("9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := pgserver.Start(t.Context(), pgserver.Options{Dir: dir})
	wantError(t, err, pgserver.ErrVersion, "PostgreSQL 9", "postgresql-9")
}

// A server that was killed leaves its pid file and sockets, and the pid may be another
// process's by now. None of that is in the way.
func TestStartAfterKill(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(folder(t), "pg")
	s := start(t, pgserver.Options{Dir: dir})
	if err := syscall.Kill(s.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-s.Done()
	stop(t, s)
	pidFile := filepath.Join(dir, "data", "postmaster.pid")
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n")
	other := start(t, pgserver.Options{}) // of the same user, so postgres itself would shrink back
	if err := os.WriteFile(pidFile, fmt.Appendf(nil, "%d\n%s", other.PID(), rest), 0o600); err != nil {
		t.Fatal(err)
	}
	again := start(t, pgserver.Options{Dir: dir})
	one(t, again.DSN(pgserver.Login{}), "SELECT 'recovered'")
}

func TestClosedParent(t *testing.T) {
	t.Parallel()
	closed := filepath.Join(folder(t), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	if !asRoot() {
		start(t, pgserver.Options{Dir: filepath.Join(closed, "pg")}) // one's own folder is open
		return
	}
	_, err := pgserver.Start(t.Context(), pgserver.Options{Dir: filepath.Join(closed, "pg")})
	wantError(t, err, pgserver.ErrFolder, "user postgres must pass "+closed, "chmod o+x "+closed)
}

func TestSocketFolder(t *testing.T) {
	t.Parallel()
	long := filepath.Join(folder(t), strings.Repeat("long", 30))
	_, err := pgserver.Start(t.Context(), pgserver.Options{SocketDir: long})
	wantError(t, err, pgserver.ErrPathTooLong, "107", "SocketDir")

	open := folder(t)
	_, err = pgserver.Start(t.Context(), pgserver.Options{SocketDir: open})
	wantError(t, err, pgserver.ErrFolder, open, "0700")

	s := start(t, pgserver.Options{SocketDir: filepath.Join(folder(t), "s")})
	info, err := os.Stat(s.SocketDir())
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
}

// A deep Dir gets its socket elsewhere.
func TestDeepFolder(t *testing.T) {
	t.Parallel()
	s := start(t, pgserver.Options{Dir: filepath.Join(folder(t), strings.Repeat("deep", 30), "pg")})
	one(t, s.DSN(pgserver.Login{}), "SELECT 'reached'")
	stop(t, s)
	if _, err := os.Stat(s.SocketDir()); !os.IsNotExist(err) {
		t.Errorf("the socket's folder stayed: %v", err)
	}
}

func TestBadOptions(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]pgserver.Options{
		"no folder":       {Profile: pgserver.Dev},
		"profile":         {Profile: 7},
		"key alone":       {TCP: pgserver.TCP{Enabled: true, KeyFile: "key"}},
		"TCP not enabled": {TCP: pgserver.TCP{Port: 5432}},
		"port":            {TCP: pgserver.TCP{Enabled: true, Port: 70000}},
		"no certificate":  {TCP: pgserver.TCP{Enabled: true, CertFile: "/nowhere", KeyFile: "/nowhere"}},
		"listens":         {Settings: map[string]string{"listen_addresses": "*"}},
		"opens":           {Settings: map[string]string{"hba_file": "/tmp/hba"}},
		"no setting":      {Settings: map[string]string{"a b": "1"}},
		"unknown setting": {Settings: map[string]string{"work_memory": "1"}},
		"bad value":       {Settings: map[string]string{"work_mem": "plenty"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := pgserver.Start(t.Context(), o)
			wantError(t, err, pgserver.ErrOptions)
		})
	}
}

func TestNoBinariesInFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := pgserver.Start(t.Context(), pgserver.Options{BinDir: dir})
	wantError(t, err, pgserver.ErrNoBinaries, dir, "apt-get install -y postgresql-15")
}
