package jobs_test

import (
	"os"
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
)

func TestMain(m *testing.M) {
	if os.Getenv(childDSN) != "" {
		os.Exit(child())
	}
	os.Exit(pgtest.Main(m))
}
