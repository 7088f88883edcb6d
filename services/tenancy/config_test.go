package tenancy_test

import (
	"os"
	"strings"
	"testing"

	"github.com/rowhouse-platform/rowhouse/internal/serve"
	"github.com/rowhouse-platform/rowhouse/services/tenancy"
)

const sampleFile = `listen: 127.0.0.1:7101
ops: 127.0.0.1:7201
identity: {cert: id/cert.pem, key: id/key.pem, roots: id/roots.pem}
development: true
operators: operators.yaml
peers: peers.yaml
database: db.dsn
cell_secrets: cells
trust_root: trust.key
feed_key: feed.key
kek: kek
zones: [localhost]
minters:
  - {identity: spiffe://rowhouse.localhost/cell/cell-1/service/gateway, name: gateway, cells: ["*"]}
`

func TestConfig(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	load := func(content string) error {
		path := r.path("config.yaml")
		must(t, os.WriteFile(path, []byte(content), 0o600))
		c, err := serve.Load[tenancy.Config](path)
		if err != nil {
			return err
		}
		return c.Check(t.Context())
	}
	if err := load(sampleFile); err != nil {
		t.Errorf("the sample: %v", err)
	}
	for change, want := range map[[2]string]string{
		{"zones: [localhost]", "zone: [localhost]"}:                  "zones",
		{"zones: [localhost]", "zones: [a_b]"}:                       "a_b",
		{"kek: kek\n", ""}:                                           "kek",
		{"kek: kek", "kek: id/cert.pem"}:                             "kek",
		{"trust_root: trust.key", "trust_root: none.key"}:            "trust_root",
		{"name: gateway", "name: tenancy"}:                           "tenancy's own",
		{"database: db.dsn", "database: db.dsn\nconnections: -1"}:    "connections",
		{"database: db.dsn", "database: db.dsn\ntrial_time: 51s"}:    "trial_time",
		{"listen: 127.0.0.1:7101", "listen: nowhere"}:                "listen",
		{"spiffe://rowhouse.localhost/cell/cell-1/service/", "x://"}: "config.yaml",
	} {
		err := load(strings.Replace(sampleFile, change[0], change[1], 1))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q for %q: %v, want %q", change[1], change[0], err, want)
		}
	}
}
