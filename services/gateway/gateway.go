// Package gateway is the edge: the customer's own domain in, a tenant's signed
// context out.
//
// It keeps the whole routing table, every limit and every look in memory and on
// disk, so that the path of a request asks nobody and a restart without the control
// plane serves on. Its database holds the audit chain of its few admin calls and is
// not needed to serve. Start at [Run].
package gateway

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"

	"github.com/rowhouse-platform/rowhouse/internal/serve"
	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/fair"
)

// Config is the gateway's configuration file.
type Config struct {
	// Process is what every service configures.
	Process serve.Config `yaml:",inline"`
	// Replica names this process in feeds and leases, unique while it runs. Default: the host's name.
	Replica string `yaml:"replica,omitempty"`
	// HTTP and HTTPS are the addresses of the front door, "127.0.0.1:8080"; empty for none.
	HTTP  string `yaml:"http,omitempty"`
	HTTPS string `yaml:"https,omitempty"`
	// Certificates are shown on HTTPS; the one whose names cover the host is chosen.
	Certificates []Certificate `yaml:"certificates,omitempty"`
	// Tenancy, Settings and Quota are the services that the gateway follows.
	Tenancy  Peer `yaml:"tenancy"`
	Settings Peer `yaml:"config"`
	Quota    Peer `yaml:"quota"`
	// TrustRoots holds the public keys that certify context keys.
	TrustRoots yamlfile.Path `yaml:"trust_roots"`
	// State is the folder of the gateway's copies on disk.
	State yamlfile.Path `yaml:"state"`
	// KEK is the key-encryption key of what is sealed there.
	KEK yamlfile.Path `yaml:"kek"`
	// Database is a file with the connection string of the gateway's own database.
	Database yamlfile.Path `yaml:"database"`
	// Issuers sign the tokens of tenants' users. With none, tokens pass to the apps unread.
	Issuers []Issuer `yaml:"users,omitempty"`
	// SelectorHeader is a header that names a tenant on shared hosts; default none.
	SelectorHeader string `yaml:"selector_header,omitempty"`
	// Share says how requests share each app.
	Share Share `yaml:"share,omitempty"`
}

// Share says how the requests of all tenants share each app's processes in each cell, as far as this gateway sends them there.
type Share struct {
	// Width is how many requests an app has under way at a time, at most, until its answer begins. Default 1000.
	Width int `yaml:"width,omitempty"`
	// Least is the fewest that latency brings it down to. Default 64, and never more than the width; the same as the width for one
	// that latency does not change.
	Least int `yaml:"least,omitempty"`
	// Queue is how many requests of one tenant wait for their turn. Default 64.
	Queue int `yaml:"queue,omitempty"`
	// Wait is how long one waits before the tenant with the longest queue loses one. Default 1s.
	Wait time.Duration `yaml:"wait,omitempty"`
	// Hold is how long a request counts as under way whose answer does not begin: long polls go on without a place. Default 1s.
	Hold time.Duration `yaml:"hold,omitempty"`
}

// queue returns the configuration of the queues.
func (s Share) queue() *fair.Config {
	c := fair.Config{
		Width: cmp.Or(s.Width, defaultWidth), Least: s.Least, Queue: s.Queue, Wait: s.Wait, Hold: cmp.Or(s.Hold, time.Second),
	}
	c.Least = cmp.Or(c.Least, min(defaultLeast, c.Width))
	if c.Least == c.Width {
		c.Least = 0
	}
	return &c
}

const (
	defaultWidth = 1000
	defaultLeast = 64
)

// Certificate is a certificate of the front door.
type Certificate struct {
	// Cert and Key are PEM files; they are read again when they change.
	Cert yamlfile.Path `yaml:"cert"`
	Key  yamlfile.Path `yaml:"key"`
}

// Peer is a service that the gateway calls.
type Peer struct {
	// Address is a gRPC target, "127.0.0.1:7101".
	Address string `yaml:"address"`
	// Identity is the SPIFFE URI that it must show.
	Identity identity.ID `yaml:"identity"`
	// FeedKeys holds the public keys that sign its feed.
	FeedKeys yamlfile.Path `yaml:"feed_keys"`
}

// Issuer is who signs the tokens of tenants' users.
type Issuer struct {
	// Issuer is the exact "iss".
	Issuer string `yaml:"issuer"`
	// Audiences lists accepted values of "aud".
	Audiences []string `yaml:"audiences"`
	// Algorithms lists accepted algorithms: RS256, PS256, ES256, ES384, EdDSA.
	Algorithms []string `yaml:"algorithms"`
	// JWKS is a file with the issuer's public keys.
	JWKS yamlfile.Path `yaml:"jwks"`
	// TenantClaim names the tenant. Default "tenant".
	TenantClaim string `yaml:"tenant_claim,omitempty"`
	// Tenants, when set, lists the only tenants that the issuer may name.
	Tenants []string `yaml:"tenants,omitempty"`
}

// Validate says what is missing or contradictory.
func (c Config) Validate() error {
	switch {
	case serve.Replica(c.Replica) == "":
		return errors.New("replica: required on a host without a name")
	case c.HTTP == "" && c.HTTPS == "":
		return errors.New("http, https: at least one address is required")
	case c.HTTPS != "" && len(c.Certificates) == 0:
		return errors.New("certificates: required with https")
	case c.State == "" || c.KEK == "" || c.TrustRoots == "" || c.Database == "":
		return errors.New("state, kek, trust_roots and database are required")
	case c.Tenancy.Address == "" || c.Settings.Address == "" || c.Quota.Address == "":
		return errors.New("tenancy, config and quota need an address")
	}
	if err := c.Share.queue().Validate(); err != nil {
		return fmt.Errorf("share: %w", err)
	}
	return c.Process.Validate()
}

// Option changes how [Run] works; for tests and for rowhouse dev.
type Option func(*house)

// WithListening tells the addresses of the front door once they are open.
func WithListening(fn func(http, https string)) Option { return func(h *house) { h.listening = fn } }

// WithAPI tells the addresses of the gRPC port and the ops port once they are open.
func WithAPI(fn func(grpc, ops net.Addr)) Option { return func(h *house) { h.options.Listening = fn } }

// WithLog sends the log, a JSON object per line, elsewhere than to standard error.
func WithLog(w io.Writer) Option { return func(h *house) { h.options.LogTo = w } }

// Run serves until ctx ends, then drains. It returns nil after an orderly end.
func Run(ctx context.Context, c Config, options ...Option) error {
	if err := c.Validate(); err != nil {
		return fmt.Errorf("gateway configuration: %w", err)
	}
	c.Replica = serve.Replica(c.Replica)
	h := &house{c: c, random: rand.Reader, options: serve.Options{Name: "gateway", Config: c.Process, Clock: time.Now}}
	for _, o := range options {
		o(h)
	}
	return serve.Run(ctx, h.options, h.build)
}

// feedKeys reads the keys of a peer's feed.
func (p Peer) feedKeys() ([]ed25519.PublicKey, error) { return keyfile.Public(string(p.FeedKeys)) }

// in returns the path of a file in the state folder.
func (c Config) in(name string) string { return filepath.Join(string(c.State), name) }
