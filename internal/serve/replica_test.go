package serve_test

import (
	"os"
	"testing"

	"github.com/rowhouse-platform/rowhouse/internal/serve"
)

func TestReplica(t *testing.T) {
	t.Parallel()
	if got := serve.Replica("quota-1"); got != "quota-1" {
		t.Errorf("Replica(quota-1) = %q, want what is configured", got)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if got := serve.Replica(""); got != host {
		t.Errorf("Replica() = %q, want the host's name %q", got, host)
	}
}
