package identity

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestParseIsExact(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		goodURI, "spiffe://rowhouse.localhost/cell/cell-1/service/tenancy",
		"spiffe://rowhouse.localhost/operator/alice", "spiffe://x/cell/1/app/2",
	} {
		id, err := Parse(s)
		if err != nil || id.String() != s || id.IsZero() {
			t.Errorf("Parse(%q) = %v, %v", s, id, err)
		}
		text, err := id.MarshalText()
		var back ID
		if err = errors.Join(err, back.UnmarshalText(text)); err != nil || back != id {
			t.Errorf("%q comes back as %v, %v", s, back, err)
		}
	}
	for _, s := range []string{
		"", "spiffe://", "spiffe:///cell/c/app/a", "spiffe://d/operator/", "spiffe://d/operator/a/b",
		"spiffe://d/cell/c/operator/a", "spiffe://d/cell//app/a", "spiffe://d/Cell/c/app/a",
		"spiffe://d..e/cell/c/app/a", "spiffe://d/cell/-c/app/a", "spiffe://d/cell/c-/app/a",
		"spiffe://d/cell/c/app/a b", "spiffe://d/cell/c/app/é", " " + goodURI, goodURI + "\n",
	} {
		if id, err := Parse(s); err == nil {
			t.Errorf("Parse(%q) = %v", s, id)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(goodURI)
	f.Add("spiffe://d/operator/a")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := Parse(s); err == nil && id.String() != s {
			t.Errorf("Parse(%q) prints %q", s, id)
		}
	})
}

func TestKindsDoNotCollide(t *testing.T) {
	t.Parallel()
	seen := map[ID]bool{}
	for _, create := range []func() (ID, error){
		func() (ID, error) { return Service("d", "c", "n") },
		func() (ID, error) { return App("d", "c", "n") },
		func() (ID, error) { return Operator("d", "n") },
		func() (ID, error) { return Service("d", "c2", "n") },
		func() (ID, error) { return Service("d2", "c", "n") },
	} {
		id, err := create()
		if err != nil {
			t.Fatal(err)
		}
		seen[id] = true
	}
	if len(seen) != 5 || seen[ID{}] {
		t.Errorf("identities collide: %v", seen)
	}
}

func mustService(t *testing.T, name string) ID {
	t.Helper()
	id, err := Service(testDomain, "cell-1", name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func newTestAuthority(t *testing.T, clock func() time.Time) *Authority {
	t.Helper()
	a, err := NewAuthority(AuthorityConfig{TrustDomain: testDomain, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t *testing.T, a *Authority, l Leaf) Pair {
	t.Helper()
	pair, err := a.Issue(l)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func TestAuthorityIssuesUsableCertificates(t *testing.T) {
	t.Parallel()
	a := newTestAuthority(t, testTime)
	sources := map[string]*Source{}
	for _, name := range []string{"tenancy", "config"} {
		pair := issue(t, a, Leaf{
			ID: mustService(t, name), DNSNames: []string{"acme.localhost", "rowhouse.localhost"},
			IPs: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		})
		source, err := FromPair(pair, Options{Clock: testTime})
		if err != nil {
			t.Fatal(err)
		}
		sources[name] = source
	}
	state, serverErr, clientErr := shake(t, sources["tenancy"].ServerTLS(), sources["config"].ClientTLS(sources["tenancy"].ID()))
	if err := errors.Join(serverErr, clientErr); err != nil {
		t.Fatal(err)
	}
	if id, _ := FromTLS(&state); id != sources["config"].ID() {
		t.Errorf("caller is %q", id)
	}
	if !sources["tenancy"].TrustsDevRoot() {
		t.Error("a development root is not recognised")
	}
	if newHouse(t).source.TrustsDevRoot() {
		t.Error("another root is taken for a development root")
	}
}

// The root's key may leak from a laptop; then it must open nothing else.
func TestAuthorityIsConstrained(t *testing.T) {
	t.Parallel()
	a := newTestAuthority(t, testTime)
	foreign, err := Service("example.org", "cell-1", "tenancy")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Issue(Leaf{ID: foreign}); err == nil {
		t.Error("issued for a foreign trust domain")
	}
	for name, l := range map[string]Leaf{
		"foreign host":    {ID: mustService(t, "tenancy"), DNSNames: []string{"bank.example"}},
		"foreign address": {ID: mustService(t, "tenancy"), IPs: []net.IP{net.IPv4(192, 0, 2, 1)}},
	} {
		if _, err := FromPair(issue(t, a, l), Options{Clock: testTime}); err == nil {
			t.Errorf("%s: the certificate is valid", name)
		}
	}
	rogue := *a
	rogue.cfg.TrustDomain = "example.org"
	if _, err := FromPair(issue(t, &rogue, Leaf{ID: foreign}), Options{Clock: testTime}); err == nil {
		t.Error("the root vouches for a foreign trust domain")
	}
	early := issue(t, a, Leaf{ID: mustService(t, "tenancy"), Life: 365 * 24 * time.Hour})
	cert, err := parseCertificate(early.Cert)
	if err != nil || cert.NotAfter.After(a.NotAfter()) {
		t.Errorf("a leaf outlives the root: %v, %v", cert.NotAfter, err)
	}
}

func TestAuthoritySurvivesItsFiles(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "ca")
	cfg := AuthorityConfig{TrustDomain: testDomain, Clock: testTime}
	if _, err := OpenAuthority(dir, cfg); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("no root yet: %v", err)
	}
	a := newTestAuthority(t, testTime)
	if err := a.Write(dir); err != nil {
		t.Fatal(err)
	}
	again, err := OpenAuthority(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	pair := issue(t, again, Leaf{ID: mustService(t, "quota")})
	pair.Roots = a.RootsPEM()
	if _, err := FromPair(pair, Options{Clock: testTime}); err != nil {
		t.Errorf("the reopened authority is another one: %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Fatalf("files %v, %v", entries, err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", e.Name(), info.Mode(), err)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder has mode %v, %v", info.Mode(), err)
	}
}

// hand is a clock that a test moves.
type hand struct{ now time.Time }

func (h *hand) read() time.Time { return h.now }

// Not parallel inside: the clock has no lock, one goroutine at a time uses it.
func TestSourceFollowsItsFiles(t *testing.T) {
	t.Parallel()
	clock := &hand{now: testTime()}
	a := newTestAuthority(t, clock.read)
	dir, id := t.TempDir(), mustService(t, "tenancy")
	path := func(name string) string { return filepath.Join(dir, name) }
	write := func(p Pair) {
		t.Helper()
		if err := p.Write(dir); err != nil {
			t.Fatal(err)
		}
	}
	first := issue(t, a, Leaf{ID: id})
	write(first)
	var reports []error
	source, err := Files(path(CertFile), path(KeyFile), path(RootsFile),
		Options{Clock: clock.read, OnReload: func(err error) { reports = append(reports, err) }})
	if err != nil {
		t.Fatal(err)
	}
	shown := func() string {
		t.Helper()
		cfg, err := source.ServerTLS().GetConfigForClient(nil)
		if err != nil {
			t.Fatal(err)
		}
		return string(encodePEM("CERTIFICATE", cfg.Certificates[0].Certificate[0]))
	}
	second := issue(t, a, Leaf{ID: id})
	write(second)
	if shown() != string(first.Cert) {
		t.Error("the files are read on every handshake")
	}
	clock.now = clock.now.Add(time.Second)
	if shown() != string(second.Cert) || len(reports) != 1 || reports[0] != nil {
		t.Errorf("new files not taken after a second; reports %v", reports)
	}
	other := issue(t, a, Leaf{ID: mustService(t, "config")})
	stranger := issue(t, newTestAuthority(t, clock.read), Leaf{ID: id})
	stranger.Roots = first.Roots
	mixed := second
	mixed.Key = first.Key
	for name, bad := range map[string]Pair{
		"another identity": other, "a foreign root": stranger, "another's key": mixed,
		"an empty file": {Key: second.Key, Roots: second.Roots},
	} {
		write(bad)
		reports = nil
		clock.now = clock.now.Add(time.Second)
		if shown() != string(second.Cert) || len(reports) != 1 || reports[0] == nil {
			t.Errorf("%s: taken, or not reported: %v", name, reports)
		}
	}
	if err := os.Remove(path(CertFile)); err != nil {
		t.Fatal(err)
	}
	clock.now = clock.now.Add(time.Second)
	if shown() != string(second.Cert) {
		t.Error("a missing file took the certificate away")
	}
}

// A process asks once whether it trusts a development root, at its start. The
// answer must hold.
func TestDevelopmentRootCannotComeLater(t *testing.T) {
	t.Parallel()
	clock := &hand{now: testTime()}
	house := newHouse(t)
	now := house.source.pair
	var report error
	source, err := newSource(Options{Clock: clock.read, OnReload: func(err error) { report = err }},
		func() (Pair, error) { return now, nil })
	if err != nil {
		t.Fatal(err)
	}
	now.Roots = append(slices.Clone(now.Roots), newTestAuthority(t, clock.read).RootsPEM()...)
	clock.now = clock.now.Add(time.Second)
	if source.TrustsDevRoot() || report == nil || !strings.Contains(report.Error(), "development") {
		t.Errorf("taken: %v, reported as %v", source.TrustsDevRoot(), report)
	}
}

// One handshake waits for the files; the others do not wait for it.
func TestSlowFilesHoldUpOneHandshake(t *testing.T) {
	t.Parallel()
	var late atomic.Bool
	pair := newHouse(t).source.pair
	reading, release := make(chan struct{}), make(chan struct{})
	source, err := newSource(Options{Clock: func() time.Time {
		if late.Load() {
			return testTime().Add(time.Minute)
		}
		return testTime()
	}}, func() (Pair, error) {
		if late.Load() {
			close(reading)
			<-release
		}
		return pair, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	late.Store(true)
	looked, other := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(looked)
		source.now()
	}()
	<-reading
	go func() {
		defer close(other)
		source.now()
	}()
	select {
	case <-other:
	case <-time.After(10 * time.Second):
		t.Error("a second handshake waits for the files that the first one reads")
	}
	close(release)
	<-looked
	<-other
}

// A root that is taken out stops vouching at the next handshake.
func TestWithdrawnRootRefusesClients(t *testing.T) {
	t.Parallel()
	clock := &hand{now: testTime()}
	old, fresh := newTestAuthority(t, clock.read), newTestAuthority(t, clock.read)
	dir, id := t.TempDir(), mustService(t, "tenancy")
	pair := issue(t, fresh, Leaf{ID: id})
	pair.Roots = append(old.RootsPEM(), fresh.RootsPEM()...)
	if err := pair.Write(dir); err != nil {
		t.Fatal(err)
	}
	source, err := Files(filepath.Join(dir, CertFile), filepath.Join(dir, KeyFile), filepath.Join(dir, RootsFile),
		Options{Clock: clock.read})
	if err != nil {
		t.Fatal(err)
	}
	caller := issue(t, old, Leaf{ID: mustService(t, "config")})
	caller.Roots = fresh.RootsPEM()
	both := caller
	both.Roots = append(old.RootsPEM(), fresh.RootsPEM()...)
	client, err := FromPair(both, Options{Clock: clock.read})
	if err != nil {
		t.Fatal(err)
	}
	server := source.ServerTLS()
	if _, serverErr, clientErr := shake(t, server, client.ClientTLS(id)); serverErr != nil || clientErr != nil {
		t.Fatalf("before: %v, %v", serverErr, clientErr)
	}
	pair.Roots = fresh.RootsPEM()
	if err := pair.Write(dir); err != nil {
		t.Fatal(err)
	}
	clock.now = clock.now.Add(time.Second)
	_, serverErr, _ := shake(t, server, client.ClientTLS(id))
	if serverErr == nil || !strings.Contains(serverErr.Error(), "unknown authority") {
		t.Errorf("after: %v", serverErr)
	}
}

func TestFilesRefusesBadStarts(t *testing.T) {
	t.Parallel()
	a := newTestAuthority(t, testTime)
	good := issue(t, a, Leaf{ID: mustService(t, "tenancy")})
	for name, p := range map[string]Pair{
		"no roots":     {Cert: good.Cert, Key: good.Key},
		"key as roots": {Cert: good.Cert, Key: good.Key, Roots: good.Key},
		"no key":       {Cert: good.Cert, Roots: good.Roots},
		"root as leaf": {Cert: a.RootsPEM(), Key: good.Key, Roots: good.Roots},
	} {
		if _, err := FromPair(p, Options{Clock: testTime}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	late := func() time.Time { return testTime().Add(25 * time.Hour) }
	if _, err := FromPair(good, Options{Clock: late}); err == nil {
		t.Error("expired certificate: accepted")
	}
	if _, err := Files("/nowhere/cert", "/nowhere/key", "/nowhere/roots", Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing files: %v", err)
	}
}
