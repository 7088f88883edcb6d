package pgserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// EnvBouncer names the environment variable that holds the path of the pgbouncer to
	// use. When set, nothing else is looked at.
	EnvBouncer = "PGBOUNCER_BIN"

	bouncerMend = "run `apt-get install -y pgbouncer` and stop the service that it starts"

	// namedSince is the first version, 1.21, that keeps named statements in transaction mode.
	namedSince = 121
)

// BouncerOptions describe a PgBouncer. Server and Backends are compulsory.
type BouncerOptions struct {
	// Server is the connection URL of the PostgreSQL, of a role that may use the pooler. It
	// names a host or a socket's folder; the database in it does not matter.
	Server string
	// Logins are further roles that may use it, with their passwords if they need one.
	Logins []Login
	// Backends bounds the connections to each database, of all roles together.
	Backends int
	// Statements is how many named statements a backend keeps; 0 keeps none, and clients
	// must then send unnamed ones. It wants PgBouncer 1.21: see [Bouncer.Named].
	Statements int
	// Reset has it make a backend as new after each transaction (server_reset_query_always).
	Reset bool
	// Logger gets PgBouncer's own messages. Nil discards them.
	Logger *slog.Logger
}

// Bouncer is a running PgBouncer in transaction mode, reached by a private Unix socket,
// which trusts whoever can enter its folder. It ends with this process at the latest.
type Bouncer struct {
	dir     string
	version string
	named   bool
	process *process
	reaper  *reaper

	stopOnce sync.Once
	stopErr  error
}

// StartBouncer starts a PgBouncer and returns when it serves. The context bounds the start
// alone. Root runs it as the user that PostgreSQL runs as. A version that is too old for the
// options is an [*Error] of kind ErrVersion.
func StartBouncer(ctx context.Context, o BouncerOptions) (*Bouncer, error) {
	server, err := pgx.ParseConfig(o.Server)
	if err != nil || o.Server == "" || o.Backends < 1 {
		return nil, &Error{ErrOptions, "a pooler needs the URL of its server, and at least one backend", "set Server and Backends"}
	}
	who, err := chooseIdentity("")
	if err != nil {
		return nil, err
	}
	b := &Bouncer{}
	bin, err := b.discover(ctx)
	if err != nil {
		return nil, err
	}
	if o.Statements > 0 && !b.named {
		return nil, &Error{ErrVersion, "PgBouncer " + b.version + " keeps no named statements", "set Statements to 0, or " + EnvBouncer}
	}
	if err := b.start(ctx, bin, who, o, server); err != nil {
		return nil, errors.Join(err, b.Stop())
	}
	return b, nil
}

// discover finds the program and asks it for its version.
func (b *Bouncer) discover(ctx context.Context) (bin string, err error) {
	bin = os.Getenv(EnvBouncer)
	if bin == "" {
		if bin, err = exec.LookPath("pgbouncer"); err != nil {
			bin = "/usr/sbin/pgbouncer" // not on everyone's PATH
		}
	}
	out, err := exec.CommandContext(ctx, bin, "--version").Output()
	if err != nil {
		return "", &Error{ErrNoBinaries, "PgBouncer: " + err.Error(), bouncerMend}
	}
	m := regexp.MustCompile(`^PgBouncer ((\d+)\.(\d+)\S*)`).FindStringSubmatch(string(out))
	if m == nil {
		return "", &Error{ErrNoBinaries, fmt.Sprintf("%s says %q", bin, out), bouncerMend}
	}
	b.version = m[1]
	major, _ := strconv.Atoi(m[2])
	minor, _ := strconv.Atoi(m[3])
	b.named = major*100+minor >= namedSince
	return bin, nil
}

func (b *Bouncer) start(ctx context.Context, bin string, who identity, o BouncerOptions, server *pgx.ConnConfig) (err error) {
	if b.dir, err = os.MkdirTemp("", "rowhouse-pgbouncer-"); err != nil {
		return fmt.Errorf("pgserver: %w", err)
	}
	b.reaper = startRemover(ctx, b.dir)
	logins := append([]Login{{User: server.User, Password: server.Password}}, o.Logins...)
	for name, content := range map[string]string{"pgbouncer.ini": b.settings(o, server), "users": users(logins)} {
		if err := who.writeFile(filepath.Join(b.dir, name), []byte(content)); err != nil {
			return fmt.Errorf("pgserver: %w", err)
		}
	}
	if err := who.own(b.dir); err != nil {
		return fmt.Errorf("pgserver: %w", err)
	}
	if err := who.checkPassable(b.dir); err != nil {
		return err
	}
	logger := o.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), bin, filepath.Join(b.dir, "pgbouncer.ini"))
	cmd.Env, cmd.Dir = serverEnv(), "/"
	cmd.SysProcAttr = processAttributes(who, syscall.SIGKILL)
	if b.process, err = begin(cmd, logger); err != nil {
		return err
	}
	return b.ready(ctx)
}

// settings are the whole of pgbouncer.ini. Clients are trusted, because only those who
// can enter the folder reach the socket.
func (b *Bouncer) settings(o BouncerOptions, server *pgx.ConnConfig) string {
	backends := strconv.Itoa(o.Backends)
	lines := []string{
		"[databases]",
		"* = host=" + server.Host + " port=" + strconv.Itoa(int(server.Port)),
		"[pgbouncer]",
		"listen_addr =",
		"listen_port = " + strconv.Itoa(plainPort),
		"unix_socket_dir = " + b.dir,
		"unix_socket_mode = 0700",
		"auth_type = trust",
		"auth_file = " + filepath.Join(b.dir, "users"),
		"pool_mode = transaction",
		"default_pool_size = " + backends,
		"max_db_connections = " + backends,
		"max_client_conn = 1000",
		"ignore_startup_parameters = extra_float_digits",
	}
	if o.Reset {
		lines = append(lines, "server_reset_query = DISCARD ALL", "server_reset_query_always = 1")
	}
	if o.Statements > 0 {
		lines = append(lines, "max_prepared_statements = "+strconv.Itoa(o.Statements))
	}
	return strings.Join(lines, "\n") + "\n"
}

// users is the file of those who may log in, and of their passwords at the server.
func users(logins []Login) string {
	quote := func(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
	var lines []string
	for _, l := range logins {
		lines = append(lines, quote(l.User)+" "+quote(l.Password))
	}
	slices.Sort(lines)
	return strings.Join(slices.Compact(lines), "\n") + "\n"
}

func (b *Bouncer) socket() string { return filepath.Join(b.dir, ".s.PGSQL."+strconv.Itoa(plainPort)) }

// ready waits until the socket takes connections.
func (b *Bouncer) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	retry := time.NewTicker(5 * time.Millisecond)
	defer retry.Stop()
	var dial net.Dialer
	for {
		if conn, err := dial.DialContext(ctx, "unix", b.socket()); err == nil {
			return conn.Close()
		}
		select {
		case <-b.process.done:
			return &Error{ErrStart, "PgBouncer ended: " + b.process.log.tail(3), "see its messages in full through Logger"}
		case <-ctx.Done():
			return fmt.Errorf("pgserver: PgBouncer did not start (%w): %s", ctx.Err(), b.process.log.tail(3))
		case <-retry.C:
		}
	}
}

// Version returns the version, such as "1.18.0".
func (b *Bouncer) Version() string { return b.version }

// Named reports whether this version can keep named statements in transaction mode.
func (b *Bouncer) Named() bool { return b.named }

// DSN returns the URL that reaches the database of the URL through the pooler, as the
// same role. The role must be one that the pooler knows.
func (b *Bouncer) DSN(direct string) (string, error) {
	c, err := pgx.ParseConfig(direct)
	if err != nil {
		return "", &Error{ErrOptions, "the URL does not parse", "give a connection URL"} // err may show parts of it
	}
	q := url.Values{"host": {b.dir}, "port": {strconv.Itoa(plainPort)}, "sslmode": {"disable"}}
	u := url.URL{Scheme: "postgres", User: url.User(c.User), Path: "/" + c.Database, RawQuery: q.Encode()}
	return u.String(), nil
}

// Stop ends it, and with it all connections through it, and removes its folder. Later
// calls return the first result.
func (b *Bouncer) Stop() error {
	b.stopOnce.Do(func() {
		if b.process != nil {
			// It keeps nothing, and its polite signals changed their meaning in 1.23.
			if err := b.process.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				b.stopErr = err
			}
			<-b.process.done
		}
		if b.dir != "" {
			b.stopErr = errors.Join(b.stopErr, os.RemoveAll(b.dir))
		}
		b.reaper.stop()
	})
	return b.stopErr
}
