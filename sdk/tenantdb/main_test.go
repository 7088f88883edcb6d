package tenantdb_test

import (
	"os"
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
)

func TestMain(m *testing.M) { os.Exit(pgtest.Main(m)) }
