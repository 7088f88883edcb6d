package pgserver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	socketLimit = 107 // of sockaddr_un.sun_path, without the closing zero
	plainPort   = 5432
)

// settings returns what postgres is told on its command line, the caller's
// own settings last, because the last one wins.
func (h *home) settings(o Options, socketDir string, port int) []string {
	all := []string{
		"unix_socket_directories=" + socketDir,
		"unix_socket_permissions=0700",
		"port=" + strconv.Itoa(port),
		"hba_file=" + filepath.Join(h.data(), hbaName),
		"max_connections=" + strconv.Itoa(o.MaxConnections),
		"max_prepared_transactions=0", // one outlives its session, with its locks
		"max_locks_per_transaction=256",
		"wal_level=logical",
		"timezone=UTC",
		"log_timezone=UTC",
		"password_encryption=scram-sha-256",
		"logging_collector=off",
		"log_line_prefix=",
	}
	all = append(all, h.listenSettings(o.TCP)...)
	if o.Profile == Test {
		all = append(all, h.testSettings()...)
	}
	for _, key := range slices.Sorted(maps.Keys(o.Settings)) {
		all = append(all, key+"="+o.Settings[key])
	}
	return all
}

func (h *home) listenSettings(tcp TCP) []string {
	if !tcp.Enabled {
		return []string{"listen_addresses=", "ssl=off"}
	}
	if !tcp.tls() {
		return []string{"listen_addresses=127.0.0.1", "ssl=off"}
	}
	return []string{
		"listen_addresses=127.0.0.1",
		"ssl=on",
		"ssl_min_protocol_version=TLSv1.3",
		"ssl_cert_file=" + filepath.Join(h.data(), certName),
		"ssl_key_file=" + filepath.Join(h.data(), keyName),
	}
}

// testSettings give durability away, and all that runs on its own clock.
func (h *home) testSettings() []string {
	s := []string{
		"fsync=off",
		"synchronous_commit=off",
		"full_page_writes=off",
		"autovacuum=off",
		"log_checkpoints=off",
		"max_wal_size=256MB",
		"min_wal_size=32MB",
		"max_wal_senders=32",
		"max_replication_slots=32",
	}
	if strings.HasPrefix(h.dir, shmDir) {
		// Shared memory segments as files of the data folder: they go when it
		// goes, even after postgres was killed, and lie in memory anyway.
		s = append(s, "dynamic_shared_memory_type=mmap")
	}
	return s
}

const (
	hbaName  = "rowhouse_hba.conf"
	certName = "rowhouse_tls.crt"
	keyName  = "rowhouse_tls.key"
)

// writeAccess writes who may log in, and the TLS files, for this run.
func (h *home) writeAccess(o Options) error {
	if err := h.who.writeFile(filepath.Join(h.data(), hbaName), []byte(hba(o))); err != nil {
		return fmt.Errorf("pgserver: %w", err)
	}
	if !o.TCP.tls() {
		return nil
	}
	for _, f := range []struct{ from, to string }{{o.TCP.CertFile, certName}, {o.TCP.KeyFile, keyName}} {
		content, err := os.ReadFile(f.from)
		if err != nil {
			return &Error{ErrOptions, "TLS: " + err.Error(), "give readable files in TCP.CertFile and TCP.KeyFile"}
		}
		if err := h.who.writeFile(filepath.Join(h.data(), f.to), content); err != nil {
			return fmt.Errorf("pgserver: %w", err)
		}
	}
	return nil
}

func hba(o Options) string {
	var lines strings.Builder
	local, host := "trust", "host"
	if o.Profile == Dev {
		local = "scram-sha-256"
	}
	if o.TCP.tls() {
		host = "hostssl"
	}
	for _, database := range []string{"all", "replication"} {
		fmt.Fprintf(&lines, "local %s all %s\n", database, local)
		if o.TCP.Enabled {
			fmt.Fprintf(&lines, "%s %s all 127.0.0.1/32 scram-sha-256\n", host, database)
		}
	}
	return lines.String()
}

// choosePort also names the socket, so there is one without TCP too.
func choosePort(ctx context.Context, tcp TCP) (int, error) {
	switch {
	case !tcp.Enabled:
		return plainPort, nil
	case tcp.Port != 0:
		return tcp.Port, nil
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("pgserver: %w", err)
	}
	port := netip.MustParseAddrPort(l.Addr().String()).Port()
	return int(port), l.Close()
}

// ensureSocketDir makes the private folder of the socket.
func (h *home) ensureSocketDir(o Options) (dir string, err error) {
	longest := ".s.PGSQL.65535.lock"
	if dir, err = filepath.Abs(o.SocketDir); err != nil {
		return "", fmt.Errorf("pgserver: %w", err)
	}
	if o.SocketDir == "" {
		dir = filepath.Join(h.dir, "s")
		if len(filepath.Join(dir, longest)) > socketLimit {
			sum := sha256.Sum256([]byte(h.dir))
			dir = filepath.Join(os.TempDir(), socketPrefix+hex.EncodeToString(sum[:6]))
		}
	}
	if path := filepath.Join(dir, longest); len(path) > socketLimit {
		return "", &Error{ErrPathTooLong, fmt.Sprintf("%s has %d bytes, and the kernel takes %d", path, len(path), socketLimit),
			"set SocketDir to a shorter folder"}
	}
	if strings.ContainsAny(dir, ",\"") { // they part the setting's list
		return "", &Error{ErrFolder, "the socket folder " + dir + " holds a comma or a quote", "set SocketDir to a plain name"}
	}
	if err := h.who.mkdir(dir); err != nil && !os.IsExist(err) {
		return "", &Error{ErrFolder, err.Error(), "make its parent first, or set SocketDir to another folder"}
	}
	return dir, h.checkSocketDir(dir)
}

// checkSocketDir makes sure that nobody else can enter: in the Test profile
// the folder is the only door.
func (h *home) checkSocketDir(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("pgserver: %w", err)
	}
	if !info.IsDir() || ownerOf(info) != h.who.uid || info.Mode().Perm() != 0o700 {
		return &Error{ErrFolder, fmt.Sprintf("the socket folder %s is not a 0700 folder of %s", dir, h.who.name),
			"remove it, so that it is made anew, or choose another one"}
	}
	return h.who.checkPassable(dir)
}
