package defects

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
)

// long asks for every row of the tables.
func long() bool { return os.Getenv("ROWHOUSE_TEST_LONG") != "" }

func TestMain(m *testing.M) { os.Exit(run(m)) }

// run gives the long test a server of its own: some defences are rights on the whole server,
// and other packages' tests would miss them.
func run(m *testing.M) (code int) {
	if !long() {
		return pgtest.Main(m)
	}
	ctx := context.Background()
	server, err := pgtest.Start(ctx)
	if err == nil {
		err = os.Setenv(pgtest.EnvServer, server.DSN(pgserver.Login{}))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "defects:", err)
		return 1
	}
	defer func() {
		if err := server.Stop(ctx); err != nil {
			fmt.Fprintln(os.Stderr, "defects:", err)
			code = 1
		}
	}()
	return pgtest.Main(m)
}
