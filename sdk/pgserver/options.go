package pgserver

import (
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// Superuser is the name of the role that every server starts with.
const Superuser = "postgres"

// Profile says what a server is for, and so what it may lose.
type Profile int

const (
	// Test is fast and forgets: fsync, synchronous_commit, full_page_writes
	// and autovacuum are off, the socket trusts whoever can enter its 0700
	// folder, and without a Dir the data lives in memory where /dev/shm has
	// 1 GiB free.
	Test Profile = iota
	// Dev is durable: every login needs a password (scram-sha-256), and the
	// superuser's is generated and kept in Dir/superuser.password, mode 0600.
	Dev
)

// TCP describes the loopback listener. The zero value listens on nothing.
type TCP struct {
	// Enabled makes the server listen on 127.0.0.1. Logins over TCP always
	// need a password, in both profiles.
	Enabled bool
	// Port is the port to listen on; 0 picks a free one at every start.
	Port int
	// CertFile and KeyFile, given together, make TLS (1.3) compulsory on
	// TCP. They are copied at every start; the caller keeps the originals.
	CertFile, KeyFile string
}

func (t TCP) tls() bool { return t.CertFile != "" }

// Options describe one server. The zero value is a throw-away test server.
type Options struct {
	// Dir is the folder that holds all that outlives a run: the data folder
	// Dir/data, the lock and the password. It is made when missing. Empty
	// (Test only) means a fresh folder that Stop removes.
	Dir string
	// SocketDir is the folder of the Unix socket, private to the server's
	// user. Empty means a folder below Dir or, when that path would be too
	// long for a socket, one below the system's temporary folder.
	SocketDir string
	// Profile is Test or Dev.
	Profile Profile
	// TCP asks for a listener on the loopback address as well.
	TCP TCP
	// Follow (Test only, without a Dir) makes the server a streaming standby of that one,
	// which must run as the same user: it begins as a copy of it. The copy, like all
	// replication, keeps the roles and databases of the other.
	Follow *Server
	// MaxConnections defaults to 200, or to as many as Follow has: a standby needs as many.
	MaxConnections int
	// Settings are further PostgreSQL settings; they win over the profile's.
	// Where the server listens, and who may log in, cannot be set here.
	Settings map[string]string
	// BinDir is the folder of postgres and initdb. Empty means [Discover].
	BinDir string
	// CacheDir keeps the template folders. Empty means the system's cache
	// for root, and the user's own cache otherwise.
	CacheDir string
	// RunAs is the user that root drops to. Empty means postgres, else
	// nobody. It is refused when the caller is not root.
	RunAs string
	// StartTimeout bounds the wait for the first answer; default 60 s.
	StartTimeout time.Duration
	// Logger gets the server's own messages. Nil discards them.
	Logger *slog.Logger
}

func (o Options) withDefaults() (Options, error) {
	if o.MaxConnections == 0 {
		o.MaxConnections = 200
		if o.Follow != nil {
			o.MaxConnections = o.Follow.maxConns
		}
	}
	if o.StartTimeout == 0 {
		o.StartTimeout = 60 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, o.validate()
}

func (o Options) validate() error {
	bad := func(what, mend string) error { return &Error{ErrOptions, what, mend} }
	switch {
	case o.Profile != Test && o.Profile != Dev:
		return bad("Profile "+strconv.Itoa(int(o.Profile))+" is unknown", "use Test or Dev")
	case o.Profile == Dev && o.Dir == "":
		return bad("the Dev profile needs a folder to keep its data", "set Dir")
	case o.Follow != nil && (o.Profile != Test || o.Dir != ""):
		return bad("a standby is for one test run", "leave Profile and Dir as they are")
	case (o.TCP.CertFile == "") != (o.TCP.KeyFile == ""):
		return bad("a certificate and its key belong together", "set both TCP.CertFile and TCP.KeyFile")
	case !o.TCP.Enabled && o.TCP != (TCP{}):
		return bad("TCP is described but not enabled", "set TCP.Enabled")
	case o.TCP.Port < 0 || o.TCP.Port > 65535:
		return bad("port "+strconv.Itoa(o.TCP.Port)+" does not exist", "choose one below 65536, or 0")
	}
	return validateSettings(o.Settings)
}

// validateSettings refuses what would open the server to others, or make its
// files lie where Start and Stop do not look.
func validateSettings(settings map[string]string) error {
	name := regexp.MustCompile(`^[a-z_][a-z0-9_.]*$`)
	reserved := []string{"config_file", "data_directory", "external_pid_file", "hba_file", "ident_file",
		"listen_addresses", "logging_collector", "max_connections", "port", "ssl", "ssl_cert_file",
		"ssl_key_file", "unix_socket_directories", "unix_socket_group", "unix_socket_permissions"}
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		if !name.MatchString(key) || slices.Contains(reserved, key) {
			return &Error{ErrOptions, "setting " + strconv.Quote(key) + " is not the caller's to make", "use the field of Options"}
		}
	}
	return nil
}
