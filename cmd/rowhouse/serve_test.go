package main

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
)

const processYAML = `
listen: 127.0.0.1:0
ops: 127.0.0.1:0
identity: {cert: cert.pem, key: key.pem, roots: roots.pem}
development: true
operators: operators.yaml
peers: peers.yaml
issuer_roots: roots-of-issuers.pem
database: dsn
`

const followYAML = `
feed_key: feed.key
trust_roots: trust.pub
state: state
tenancy: {address: "127.0.0.1:1", identity: "spiffe://test.example/cell/c/service/tenancy", feed_keys: feed.pub}
`

const gatewayYAML = `
http: 127.0.0.1:0
https: 127.0.0.1:0
certificates: [{cert: front.pem, key: front-key.pem}]
tenancy: {address: "127.0.0.1:1", identity: "spiffe://test.example/cell/c/service/tenancy", feed_keys: feed.pub}
config: {address: "127.0.0.1:1", identity: "spiffe://test.example/cell/c/service/config", feed_keys: config.pub}
quota: {address: "127.0.0.1:1", identity: "spiffe://test.example/cell/c/service/quota", feed_keys: quota.pub}
trust_roots: trust.pub
state: state
kek: kek
users: [{issuer: "https://id.example", audiences: [x], algorithms: [ES256], jwks: jwks.json}]
`

const tenancyYAML = `
cell_secrets: cells
trust_root: trust.key
feed_key: feed.key
kek: kek
`

// jwks holds the public key of RFC 7517, appendix A.1.
const jwks = `{"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "kid": "1", "alg": "ES256",
	"x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}`

// checkFolder makes all files that the configurations of all services name.
func checkFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ca, err := identity.NewAuthority(identity.AuthorityConfig{TrustDomain: "test.example"})
	must(err)
	id, err := identity.Service("test.example", "c", "tenancy")
	must(err)
	pair, err := ca.Issue(identity.Leaf{ID: id})
	must(err)
	must(pair.Write(dir))
	for from, to := range map[string]string{"cert.pem": "front.pem", "key.pem": "front-key.pem", "roots.pem": "roots-of-issuers.pem"} {
		b, err := os.ReadFile(in(from))
		must(err)
		must(os.WriteFile(in(to), b, 0o600))
	}
	for _, name := range []string{"feed", "trust", "config", "quota"} {
		must(keyfile.NewPair(in(name), rand.Reader))
	}
	must(keyfile.NewSecret(in("kek"), rand.Reader))
	must(os.Mkdir(in("cells"), 0o700))
	for name, content := range map[string]string{
		"dsn": "postgres://u@127.0.0.1:1/d", "jwks.json": jwks, "operators.yaml": "operators: []\n", "peers.yaml": "peers: []\n",
		"config.yaml": processYAML + followYAML, "quota.yaml": processYAML + followYAML,
		"gateway.yaml": processYAML + gatewayYAML, "tenancy.yaml": processYAML + tenancyYAML,
	} {
		must(os.WriteFile(in(name), []byte(content), 0o600))
	}
	return dir
}

// serve --check reads every file that a configuration names, so it finds each that is missing and each that is junk.
func TestServeCheckReadsEveryFile(t *testing.T) {
	t.Parallel()
	process := []string{"cert.pem", "key.pem", "roots.pem", "operators.yaml", "peers.yaml", "roots-of-issuers.pem", "dsn"}
	for service, files := range map[string][]string{
		"tenancy": {"cells", "trust.key", "feed.key", "kek"},
		"config":  {"feed.key", "trust.pub", "feed.pub"},
		"quota":   {"feed.key", "trust.pub", "feed.pub"},
		"gateway": {"front.pem", "front-key.pem", "feed.pub", "config.pub", "quota.pub", "trust.pub", "kek", "jwks.json"},
	} {
		t.Run(service, func(t *testing.T) {
			t.Parallel()
			dir := checkFolder(t)
			check := func() (int, string) {
				return rowhouse(t, "serve", service, "--check", "--config", filepath.Join(dir, service+".yaml"))
			}
			if code, said := check(); code != 0 || said != "ok\n" {
				t.Fatalf("all files are there: %d, %s", code, said)
			}
			if _, err := os.Stat(filepath.Join(dir, "state")); err == nil {
				t.Error("the check made the folder of state")
			}
			for _, name := range append(files, process...) {
				path := filepath.Join(dir, name)
				if err := os.Rename(path, path+".away"); err != nil {
					t.Fatal(err)
				}
				if code, said := check(); code != exitFailed || !strings.Contains(said, name) {
					t.Errorf("without %s: %d, %s", name, code, said)
				}
				if err := os.WriteFile(path, []byte("junk: ["), 0o600); err != nil {
					t.Fatal(err)
				}
				if code, said := check(); code != exitFailed || strings.Contains(said, "junk") {
					t.Errorf("with junk for %s: %d, %s", name, code, said)
				}
				if err := errors.Join(os.Remove(path), os.Rename(path+".away", path)); err != nil {
					t.Fatal(err)
				}
			}
			if service == "tenancy" {
				return
			}
			if err := os.WriteFile(filepath.Join(dir, "state"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if code, said := check(); code != exitFailed || !strings.Contains(said, "state") {
				t.Errorf("with a file where the state shall be: %d, %s", code, said)
			}
		})
	}
}
