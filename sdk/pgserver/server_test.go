package pgserver_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
)

func TestSettingsOfTheTestProfile(t *testing.T) {
	t.Parallel()
	s := start(t, pgserver.Options{Settings: map[string]string{"work_mem": "5MB", "fsync": "on"}})
	for name, want := range map[string]string{
		"synchronous_commit": "off", "full_page_writes": "off", "fsync": "on", "work_mem": "5MB",
		"wal_level": "logical", "max_connections": "200", "max_prepared_transactions": "0",
		"max_locks_per_transaction": "256", "TimeZone": "UTC", "server_encoding": "UTF8",
		"listen_addresses": "", "lc_messages": "C", "is_superuser": "on",
	} {
		if got := one(t, s.DSN(pgserver.Login{}), "SELECT current_setting('"+name+"')"); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestStopLeavesNothing(t *testing.T) {
	t.Parallel()
	s := start(t, pgserver.Options{})
	// A client that stays does not hold a fast shutdown up.
	conn, err := pgx.Connect(t.Context(), s.DSN(pgserver.Login{}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	stop(t, s)
	if _, err := os.Lstat(s.Dir()); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", s.Dir(), err)
	}
	if !dead(s.PID()) {
		t.Errorf("process %d still runs", s.PID())
	}
	select {
	case <-s.Done():
	default:
		t.Error("Done is open after Stop")
	}
	stop(t, s) // once more does no harm
}

func TestStopInsists(t *testing.T) {
	t.Parallel()
	s, err := pgserver.Start(t.Context(), pgserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	// A stopped postgres hears neither SIGINT nor SIGQUIT.
	if err := syscall.Kill(s.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	hurried, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Stop(hurried); err == nil {
		t.Error("Stop does not tell that it had to kill postgres")
	}
	gone(t, s.PID(), s.Dir())
}

func TestDevIsDurableAndAsksForPasswords(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(folder(t), "dev")
	s := start(t, pgserver.Options{Dir: dir, Profile: pgserver.Dev})
	if got := one(t, s.DSN(pgserver.Login{}), "SELECT current_setting('fsync')"); got != "on" {
		t.Errorf("fsync is %s", got)
	}
	run(t, s.DSN(pgserver.Login{}), "CREATE TABLE kept AS SELECT 'here'::text AS word")
	_, err := pgx.Connect(t.Context(), s.DSN(pgserver.Login{Password: "wrong"}))
	if denied, ok := errors.AsType[*pgconn.PgError](err); !ok || denied.Code != "28P01" {
		t.Errorf("a wrong password gets %v", err)
	}
	info, err := os.Stat(filepath.Join(dir, "superuser.password"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the password's file: %v, %v", info, err)
	}
	stop(t, s)

	again := start(t, pgserver.Options{Dir: dir, Profile: pgserver.Dev})
	if again.Password() != s.Password() || again.Password() == "" {
		t.Error("the password changed")
	}
	if got := one(t, again.DSN(pgserver.Login{}), "SELECT word FROM kept"); got != "here" {
		t.Errorf("the table holds %q", got)
	}
}

func TestPasswordIsInNoCommandLine(t *testing.T) {
	t.Parallel()
	s := start(t, pgserver.Options{TCP: pgserver.TCP{Enabled: true}})
	line, err := os.ReadFile("/proc/" + strconv.Itoa(s.PID()) + "/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(line), s.Password()) {
		t.Error("ps shows the password")
	}
}

func TestTCP(t *testing.T) {
	t.Parallel()
	s := start(t, pgserver.Options{TCP: pgserver.TCP{Enabled: true}})
	if got := one(t, s.TCPDSN(pgserver.Login{}), "SELECT host(inet_server_addr())"); got != "127.0.0.1" {
		t.Errorf("listens on %s", got)
	}
	_, err := pgx.Connect(t.Context(), s.TCPDSN(pgserver.Login{Password: "wrong"}))
	if denied, ok := errors.AsType[*pgconn.PgError](err); !ok || denied.Code != "28P01" {
		t.Errorf("a wrong password over TCP gets %v", err)
	}
	// The port is taken now, and that is told.
	_, err = pgserver.Start(t.Context(), pgserver.Options{TCP: pgserver.TCP{Enabled: true, Port: s.Port()}})
	wantError(t, err, pgserver.ErrStart, "port "+strconv.Itoa(s.Port()))
}

func TestTLS(t *testing.T) {
	t.Parallel()
	cert, key, roots := selfSigned(t)
	s := start(t, pgserver.Options{TCP: pgserver.TCP{Enabled: true, CertFile: cert, KeyFile: key}})
	cfg, err := pgx.ParseConfig(s.TCPDSN(pgserver.Login{}))
	if err != nil {
		t.Fatal(err)
	}
	cfg.TLSConfig = &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	var version string
	const sql = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
	if err := conn.QueryRow(t.Context(), sql).Scan(&version); err != nil || version != "TLSv1.3" {
		t.Errorf("%s, %v", version, err)
	}
	plain := strings.Replace(s.TCPDSN(pgserver.Login{}), "sslmode=require", "sslmode=disable", 1)
	if _, err := pgx.Connect(t.Context(), plain); err == nil {
		t.Error("TCP without TLS is let in")
	}
}

func selfSigned(t *testing.T) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, key.Public(), key))(t)
	roots = x509.NewCertPool()
	roots.AddCert(must(x509.ParseCertificate(der))(t))
	dir := t.TempDir()
	write := func(name, kind string, content []byte) string {
		path := filepath.Join(dir, name)
		text := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content})
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	keyDER := must(x509.MarshalPKCS8PrivateKey(key))(t)
	return write("crt", "CERTIFICATE", der), write("key", "PRIVATE KEY", keyDER), roots
}

// Eight starts at once make one template, and each gets a cluster of its own.
func TestOneTemplateForAll(t *testing.T) {
	t.Parallel()
	cacheDir := filepath.Join(folder(t), "cache")
	t.Run("starts", func(t *testing.T) {
		t.Parallel()
		for range 8 {
			t.Run("start", func(t *testing.T) {
				t.Parallel()
				s := start(t, pgserver.Options{CacheDir: cacheDir})
				run(t, s.DSN(pgserver.Login{}), "CREATE TABLE mine ()")
			})
		}
	})
	t.Cleanup(func() {
		if asRoot() {
			cacheDir = filepath.Join(cacheDir, "*")
		}
		made, err := filepath.Glob(filepath.Join(cacheDir, "template-*[!k]")) // not the .lock
		if err != nil || len(made) != 1 {
			t.Errorf("templates: %v, %v", made, err)
		}
	})
}

// The parent-death signal is tied to a thread; that one must not end before postgres.
func TestServerOutlivesTheThreadThatStartedIt(t *testing.T) {
	t.Parallel()
	type result struct {
		s   *pgserver.Server
		err error
		tid int
	}
	started := make(chan result)
	onMortalThread(func() {
		s, err := pgserver.Start(t.Context(), pgserver.Options{})
		started <- result{s, err, syscall.Gettid()}
	})
	r := <-started
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { stop(t, r.s) })
	eventually(t, "the thread to end", func() bool {
		_, err := os.Stat("/proc/self/task/" + strconv.Itoa(r.tid))
		return os.IsNotExist(err)
	})
	one(t, r.s.DSN(pgserver.Login{}), "SELECT 'alive'")
}

// onMortalThread calls f on a thread that ends with it.
func onMortalThread(f func()) {
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if syscall.Gettid() != os.Getpid() {
			f()
			return
		}
		// The process's first thread never ends. While it is kept busy, another
		// goroutine gets another one.
		defer runtime.UnlockOSThread()
		done := make(chan struct{})
		onMortalThread(func() { defer close(done); f() })
		<-done
	}()
}

// However the process that started a server ends, nothing of it stays.
func TestServerDiesWithItsProcess(t *testing.T) {
	t.Parallel()
	users := []string{""}
	if asRoot() {
		users = append(users, "nobody")
	}
	for _, as := range users {
		for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
			t.Run(as+" "+signal.String(), func(t *testing.T) {
				t.Parallel()
				p := startChild(t, as)
				if asRoot() {
					one(t, p.dsn, "SELECT 'alive'")
				}
				if err := p.cmd.Process.Signal(signal); err != nil {
					t.Fatal(err)
				}
				gone(t, p.pid, p.dir)
			})
		}
	}
}

func TestOrdinaryUser(t *testing.T) {
	t.Parallel()
	as := ""
	if asRoot() {
		as = "nobody"
	}
	p := startChild(t, as)
	if err := p.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Error(err)
	}
	gone(t, p.pid, p.dir)
}

func TestRootRunsItAsAnotherUser(t *testing.T) {
	t.Parallel()
	if !asRoot() {
		_, err := pgserver.Start(t.Context(), pgserver.Options{RunAs: "nobody"})
		wantError(t, err, pgserver.ErrOptions, "root")
		return
	}
	s := start(t, pgserver.Options{RunAs: "nobody"})
	info, err := os.Stat("/proc/" + strconv.Itoa(s.PID()))
	if err != nil {
		t.Fatal(err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); !ok || st.Uid != credential(t, "nobody").Uid {
		t.Errorf("runs as %+v", info.Sys())
	}
	_, err = pgserver.Start(t.Context(), pgserver.Options{RunAs: "root"})
	wantError(t, err, pgserver.ErrOptions, "RunAs")
}

// A start that is called off leaves neither folder nor process.
func TestStartCalledOff(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(folder(t), "off")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s, err := pgserver.Start(ctx, pgserver.Options{Dir: dir}); err == nil {
		stop(t, s)
		t.Fatal("a cancelled start succeeds")
	}
	start(t, pgserver.Options{Dir: dir})
}

// BenchmarkStart measures a throw-away server, from its template to its first answer.
func BenchmarkStart(b *testing.B) {
	var stops time.Duration
	for b.Loop() {
		s, err := pgserver.Start(b.Context(), pgserver.Options{})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		began := time.Now()
		if err := s.Stop(b.Context()); err != nil {
			b.Fatal(err)
		}
		stops += time.Since(began)
		b.StartTimer()
	}
	b.ReportMetric(float64(stops.Milliseconds())/float64(b.N), "ms/stop")
}
