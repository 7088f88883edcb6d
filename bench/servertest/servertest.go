// Package servertest gives benchmarks a PostgreSQL that tests do not have: one that listens
// on loopback, or that keeps its durability. Start at [Main].
package servertest

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
)

// Main is pgtest.Main, but when benchmarks were asked for they get a server with the options.
func Main(m *testing.M, options pgserver.Options) int {
	flag.Parse()
	if flag.Lookup("test.bench").Value.String() == "" {
		return pgtest.Main(m)
	}
	ctx := context.Background()
	server, err := pgserver.Start(ctx, options)
	if err == nil {
		err = os.Setenv(pgtest.EnvServer, server.DSN(pgserver.Login{}))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := pgtest.Main(m)
	if err := server.Stop(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// Durable are the settings by which a server loses nothing, which is the usual.
func Durable() map[string]string {
	return map[string]string{"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "max_wal_size": "1GB"}
}
