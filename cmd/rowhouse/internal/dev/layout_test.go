package dev

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/identity"
)

// Each start with ports that cannot be has a line of its own that names the flag.
func TestPortsApart(t *testing.T) {
	t.Parallel()
	const usualHTTP, usualHTTPS, usualBase = 8080, 8443, 7100
	for _, c := range []struct {
		base, http, https int
		want              []string // in the line; none for no error
	}{
		{base: usualBase, http: usualHTTP, https: usualHTTPS},
		{base: 65430, http: usualHTTP, https: usualHTTPS},
		{base: usualBase, http: 70000, https: usualHTTPS, want: []string{"--http-port 70000", "1 to 65535"}},
		{base: usualBase, http: 0, https: usualHTTPS, want: []string{"--http-port 0"}},
		{base: usualBase, http: usualHTTP, https: -1, want: []string{"--https-port -1"}},
		{base: -7, http: usualHTTP, https: usualHTTPS, want: []string{"--base-port", "1 to 65430"}},
		{base: 65500, http: usualHTTP, https: usualHTTPS, want: []string{"--base-port", "1 to 65430"}},
		{base: usualBase, http: usualHTTPS, https: usualHTTPS, want: []string{"--http-port", "--https-port", "8443"}},
		{base: 8079, http: usualHTTP, https: usualHTTPS, want: []string{"--http-port", "--base-port", "8080"}},
	} {
		err := fixedPorts(c.base, c.http, c.https).apart()
		if len(c.want) == 0 {
			if err != nil {
				t.Errorf("%d %d %d: %v", c.base, c.http, c.https, err)
			}
			continue
		}
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%d %d %d: %v does not say %q", c.base, c.http, c.https, err, want)
			}
		}
	}
}

// What the app serves with names no connection string of a role that may change tables.
func TestAppIsNotToldItsMigrator(t *testing.T) {
	t.Parallel()
	l := Layout{filepath.Join(t.TempDir(), "state")}
	if err := l.open(); err != nil {
		t.Fatal(err)
	}
	if err := l.configure(fixedPorts(7100, 8080, 8443), Options{}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(l.Config(appName))
	if err != nil || !strings.Contains(string(text), appName+".dsn") || strings.Contains(string(text), "migrat") {
		t.Errorf("%v, the app's configuration is\n%s", err, text)
	}
}

// A part of the state that cannot be used is named, with the way out; what follows from
// another part is made anew.
func TestDamagedState(t *testing.T) {
	t.Parallel()
	prepare := func(l Layout) error {
		if err := l.prepareIdentities(); err != nil {
			return err
		}
		return l.prepareKeys()
	}
	for _, name := range []string{"ca/key.pem", "keys/trust-root.key", "keys/feed-config.pub", "keys/gateway.kek"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := Layout{filepath.Join(t.TempDir(), "state")}
			if err := l.open(); err != nil {
				t.Fatal(err)
			}
			if err := prepare(l); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(l.path(name), 0); err != nil {
				t.Fatal(err)
			}
			err := prepare(l)
			if err == nil || !strings.Contains(err.Error(), l.path(filepath.Dir(name))) || !strings.Contains(err.Error(), "--reset") {
				t.Errorf("the line is: %v", err)
			}
		})
	}
	for _, name := range []string{"trust-root.pub", "feed-config.key"} {
		t.Run(name+" is missing", func(t *testing.T) {
			t.Parallel()
			l := Layout{filepath.Join(t.TempDir(), "state")}
			if err := l.open(); err != nil {
				t.Fatal(err)
			}
			if err := prepare(l); err != nil {
				t.Fatal(err)
			}
			before, err := os.ReadFile(l.path("keys", name))
			if err := errors.Join(err, os.Remove(l.path("keys", name))); err != nil {
				t.Fatal(err)
			}
			err = prepare(l)
			if filepath.Ext(name) == ".key" { // nobody can make it again
				if err == nil || !strings.Contains(err.Error(), l.path("keys", name)) || !strings.Contains(err.Error(), "--reset") {
					t.Errorf("the line is: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if after, err := os.ReadFile(l.path("keys", name)); err != nil || string(after) != string(before) {
				t.Errorf("the public key is now %q, %v", after, err)
			}
		})
	}
	t.Run("roots", func(t *testing.T) {
		t.Parallel()
		l := Layout{filepath.Join(t.TempDir(), "state")}
		if err := l.open(); err != nil {
			t.Fatal(err)
		}
		if err := prepare(l); err != nil {
			t.Fatal(err)
		}
		before, err := os.ReadFile(l.Roots())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(l.Roots(), []byte("junk"), secretMode); err != nil {
			t.Fatal(err)
		}
		if err := prepare(l); err != nil {
			t.Fatal(err)
		}
		if after, err := os.ReadFile(l.Roots()); err != nil || string(after) != string(before) {
			t.Errorf("the roots are now %q, %v", after, err)
		}
	})
}

func TestLastWord(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	const earlier = "of an earlier start\n"
	for text, want := range map[string]string{
		"one\ntwo\n": "two", "": "it said nothing", "x" + strings.Repeat("ü", longestWord): "x" + strings.Repeat("ü", longestWord/2-1) + " …",
	} {
		if err := os.WriteFile(path, []byte(earlier+text), secretMode); err != nil {
			t.Fatal(err)
		}
		if got := lastWord(path, int64(len(earlier))); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// A house that runs for days has certificates that are valid now.
func TestCertificatesOfALongRun(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "state")
	synctest.Test(t, func(t *testing.T) {
		l := Layout{dir}
		if err := errors.Join(l.open(), l.prepareIdentities()); err != nil {
			t.Fatal(err)
		}
		var said strings.Builder
		ctx, cancel := context.WithTimeout(t.Context(), 3*24*time.Hour)
		defer cancel()
		(&house{l: l, o: Options{Out: &said}}).renew(ctx)
		for _, folder := range append(services(), "gateway/front") {
			pem := func(name string) string { return l.path(folder, name) }
			if _, err := identity.Files(pem(identity.CertFile), pem(identity.KeyFile), l.Roots(), identity.Options{}); err != nil {
				t.Errorf("%s after three days: %v", folder, err)
			}
		}
		if said.Len() > 0 {
			t.Errorf("it said: %s", &said)
		}
	})
}

// A step that an interrupt ends has not failed.
func TestInterruptedStep(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	var said strings.Builder
	h := &house{o: Options{Out: &said}}
	broken := func(context.Context) error { return errors.New("broken") }
	if err := h.step(ctx, "one", broken); err == nil || !strings.HasSuffix(said.String(), "failed\n") {
		t.Errorf("%v, %q", err, said.String())
	}
	cancel()
	if err := h.step(ctx, "two", broken); err == nil || !strings.HasSuffix(said.String(), "stopped\n") {
		t.Errorf("interrupted: %v, %q", err, said.String())
	}
}

// Whoever sees that a service ended learns how, and can paste what brings it back.
func TestLostService(t *testing.T) {
	t.Parallel()
	l := Layout{filepath.Join(t.TempDir(), "state of mine")}
	if err := l.open(); err != nil {
		t.Fatal(err)
	}
	lost := make(chan string, 1)
	h := &house{l: l}
	h.family = &family{l: l, lost: func(c *child) {
		var said strings.Builder
		h.o.Out = &said
		h.lost(c)
		lost <- said.String()
	}}
	if err := h.family.start("gateway", "sh", "-c", "exit 0", "--config", l.Config("gateway")); err != nil {
		t.Fatal(err)
	}
	line := <-lost
	for _, want := range []string{"gateway ended (exit status 0)", l.Log("gateway"), "bring it back with: sh -c 'exit 0' --config '" + l.Config("gateway") + "'"} {
		if !strings.Contains(line, want) {
			t.Errorf("%q does not say %q", line, want)
		}
	}
}
