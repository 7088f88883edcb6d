package pgserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Server is a running PostgreSQL. Its methods may be called concurrently.
type Server struct {
	bin       Binaries
	home      *home
	tcp       TCP
	socketDir string
	port      int
	password  string
	maxConns  int
	proc      *process
	reaper    *reaper

	stopOnce sync.Once
	stopErr  error
}

// Start starts a server and returns when it answers a query. The context
// bounds the start alone: the server then runs until [Server.Stop] or until
// this process ends. On failure nothing is left running, and what a person
// can mend is told by an [*Error].
func Start(ctx context.Context, options Options) (*Server, error) {
	o, err := options.withDefaults()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, o.StartTimeout)
	defer cancel()
	who, err := chooseIdentity(o.RunAs)
	if err != nil {
		return nil, err
	}
	bin, err := findBinaries(ctx, o, who)
	if err != nil {
		return nil, err
	}
	h, err := openHome(ctx, o, who)
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, home: h, tcp: o.TCP, maxConns: o.MaxConnections}
	if err := s.start(ctx, o); err != nil {
		return nil, errors.Join(err, s.cleanUp(context.WithoutCancel(ctx)))
	}
	return s, nil
}

func findBinaries(ctx context.Context, o Options, who identity) (b Binaries, err error) {
	if o.BinDir == "" {
		b, err = discover(ctx, sources(), dataMajor(o.Dir))
	} else if b, err = inspect(ctx, o.BinDir); err != nil {
		err = &Error{ErrNoBinaries, o.BinDir + ": " + err.Error(), installMend}
	}
	if err != nil {
		return Binaries{}, err
	}
	return b, who.checkPassable(b.Dir)
}

func (s *Server) start(ctx context.Context, o Options) (err error) {
	if s.home.temp {
		s.reaper = startReaper(ctx, s.home)
	}
	if err = s.home.ensureData(ctx, s.bin, o); err != nil {
		return err
	}
	if s.socketDir, err = s.home.ensureSocketDir(o); err != nil {
		return err
	}
	if err = s.home.writeAccess(o); err != nil {
		return err
	}
	if err = s.readPassword(o); err != nil {
		return err
	}
	if err = s.run(ctx, o); err != nil {
		return err
	}
	return s.setTestPassword(ctx, o)
}

// run starts postgres. A free port may be taken by another process before
// postgres binds it, so that is tried again.
func (s *Server) run(ctx context.Context, o Options) (err error) {
	for range 3 {
		if s.port, err = choosePort(ctx, o.TCP); err != nil {
			return err
		}
		if s.proc, err = launch(ctx, s.bin, s.home, s.home.settings(o, s.socketDir, s.port), o.Logger); err != nil {
			return err
		}
		if err = s.ready(ctx); err == nil {
			return nil
		}
		err = errors.Join(err, s.proc.stop(context.WithoutCancel(ctx)))
		if o.TCP.Port != 0 || !s.proc.log.contains(bindFailure) {
			return err
		}
	}
	return err
}

const bindFailure = "could not bind"

// ready waits for the first answer to a query over the socket.
func (s *Server) ready(ctx context.Context) error {
	retry := time.NewTicker(5 * time.Millisecond)
	defer retry.Stop()
	for {
		err := s.ping(ctx)
		if err == nil {
			return nil
		}
		if denied := new(pgconn.PgError); errors.As(err, &denied) && strings.HasPrefix(denied.Code, "28") {
			return &Error{ErrBroken, "the superuser cannot log in: " + denied.Message,
				"restore " + s.home.password() + ", or remove " + s.home.dir + " to start afresh"}
		}
		select {
		case <-s.proc.done:
			return s.failure()
		case <-ctx.Done():
			return fmt.Errorf("pgserver: no answer from postgres (%w); its last words: %s", ctx.Err(), s.proc.log.tail(3))
		case <-retry.C:
		}
	}
}

func (s *Server) ping(ctx context.Context) error {
	return s.exec(ctx, "SELECT 1")
}

func (s *Server) exec(ctx context.Context, sql string) error {
	conn, err := pgx.Connect(ctx, s.DSN(Login{}))
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, sql)
	return errors.Join(err, conn.Close(ctx))
}

// failure turns the last words of a postgres that ended into one line.
func (s *Server) failure() error {
	words := s.proc.log.tail(3)
	switch log := s.proc.log; {
	case log.contains(bindFailure):
		return &Error{ErrStart, words, "free port " + strconv.Itoa(s.port) + ", or choose port 0"}
	case log.contains("PANIC:", "is not a valid data directory", "incorrect checksum in control file",
		"database files are incompatible", "could not open file \"global/"):
		return &Error{ErrBroken, s.home.data() + ": " + words, "restore it from a backup, or remove " + s.home.dir + " to start afresh"}
	case log.contains("private key", "certificate"):
		return &Error{ErrOptions, words, "give a matching certificate and key in PEM form"}
	case log.contains("unrecognized configuration parameter", "invalid value for parameter"):
		return &Error{ErrOptions, words, "correct Settings"}
	}
	return &Error{ErrStart, fmt.Sprintf("postgres ended (%v): %s", s.proc.err, words), "see its messages in full through Logger"}
}

func (s *Server) readPassword(o Options) error {
	if o.Profile != Dev {
		return nil
	}
	text, err := os.ReadFile(s.home.password())
	if err != nil {
		return fmt.Errorf("pgserver: %w", err)
	}
	s.password = strings.TrimSpace(string(text))
	return nil
}

// setTestPassword lets the superuser of a test server in over TCP.
func (s *Server) setTestPassword(ctx context.Context, o Options) error {
	if o.Profile != Test || !o.TCP.Enabled || o.Follow != nil { // a standby has its primary's
		return nil
	}
	password := newPassword()
	if err := s.exec(ctx, "ALTER ROLE "+Superuser+" PASSWORD '"+password+"'"); err != nil {
		return fmt.Errorf("pgserver: set the password: %w", err)
	}
	s.password = password
	return nil
}

// Stop ends the server with a fast shutdown, after 10 s with an immediate
// one, and removes a throw-away folder. Later calls return the first result.
func (s *Server) Stop(ctx context.Context) error {
	s.stopOnce.Do(func() { s.stopErr = s.cleanUp(ctx) })
	return s.stopErr
}

// cleanUp ends what a start has begun, in the reverse order.
func (s *Server) cleanUp(ctx context.Context) error {
	var err error
	if s.proc != nil {
		err = s.proc.stop(ctx)
	}
	if s.socketDir != "" {
		_ = os.Remove(s.socketDir) // it stays when the caller keeps more in it
	}
	err = errors.Join(err, s.home.close())
	s.reaper.stop()
	return err
}

// Done is closed when postgres has ended, for whatever reason.
func (s *Server) Done() <-chan struct{} { return s.proc.done }

// Version returns the version of PostgreSQL, as its binary says it.
func (s *Server) Version() string { return s.bin.Version }

// Major returns the major version of PostgreSQL.
func (s *Server) Major() int { return s.bin.Major }

// BinDir returns the folder of the binaries in use.
func (s *Server) BinDir() string { return s.bin.Dir }

// Dir returns the folder that holds the data folder.
func (s *Server) Dir() string { return s.home.dir }

// SocketDir returns the folder of the Unix socket.
func (s *Server) SocketDir() string { return s.socketDir }

// Port returns the TCP port, or the number in the socket's name without TCP.
func (s *Server) Port() int { return s.port }

// PID returns the process id of the postmaster.
func (s *Server) PID() int { return s.proc.cmd.Process.Pid }

// Password returns the superuser's password, or "" where none is needed.
func (s *Server) Password() string { return s.password }

// Login names a role and the database it logs in to. The zero value is the
// superuser, with its password, in database postgres.
type Login struct {
	User     string // default the superuser
	Password string // default the superuser's own, none for other roles
	Database string // default postgres
}

// DSN returns a connection URL over the Unix socket.
func (s *Server) DSN(l Login) string {
	q := url.Values{"host": {s.socketDir}, "port": {strconv.Itoa(s.port)}}
	return s.url(l, "", q)
}

// TCPDSN returns a connection URL over TCP. It returns "" when the server
// does not listen there. With TLS it asks for encryption; the caller, who
// knows the issuer, may raise sslmode to verify-full.
func (s *Server) TCPDSN(l Login) string {
	if !s.tcp.Enabled {
		return ""
	}
	q := url.Values{"sslmode": {"disable"}}
	if s.tcp.tls() {
		q.Set("sslmode", "require")
	}
	return s.url(l, net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)), q)
}

func (s *Server) url(l Login, host string, q url.Values) string {
	if l.User == "" {
		l.User = Superuser
	}
	if l.User == Superuser && l.Password == "" {
		l.Password = s.password
	}
	if l.Database == "" {
		l.Database = "postgres"
	}
	u := url.URL{Scheme: "postgres", User: url.User(l.User), Host: host, Path: "/" + l.Database, RawQuery: q.Encode()}
	if l.Password != "" {
		u.User = url.UserPassword(l.User, l.Password)
	}
	return u.String()
}
