package serve

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/rowhouse-platform/rowhouse/internal/operator"
	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
)

const issuerTimeout = 5 * time.Second

// Config is what every service's configuration holds about its process. A service embeds it in its own struct with
// the yaml option inline, or under a key of its own.
type Config struct {
	// Listen is the address of the mTLS gRPC port, "127.0.0.1:7101".
	Listen string `yaml:"listen"`
	// Ops is the address of the plain port for probes and metrics, "127.0.0.1:7201".
	Ops string `yaml:"ops"`
	// Identity is the process's own certificate.
	Identity IdentityFiles `yaml:"identity"`
	// Development lets the process trust roots that were made for development, and static tokens of operators that do
	// not end.
	Development bool `yaml:"development,omitempty"`
	// Operators is operators.yaml; without it no operator may call.
	Operators yamlfile.Path `yaml:"operators,omitempty"`
	// Peers is peers.yaml; without it no workload may call.
	Peers yamlfile.Path `yaml:"peers,omitempty"`
	// Issuers are the OIDC issuers whose tokens operators may show.
	Issuers []operator.Issuer `yaml:"issuers,omitempty"`
	// IssuerRoots are PEM roots for the issuers' TLS. Default: the system's.
	IssuerRoots yamlfile.Path `yaml:"issuer_roots,omitempty"`
	// Drain says how the process ends.
	Drain Drain `yaml:"drain,omitempty"`
	// Telemetry says where traces, metrics and logs go.
	Telemetry Telemetry `yaml:"telemetry,omitempty"`
}

// IdentityFiles are the PEM files of a process's identity. They are followed: replace them and the next handshake has
// the new ones.
type IdentityFiles struct {
	// Cert is the certificate with one SPIFFE URI.
	Cert yamlfile.Path `yaml:"cert"`
	// Key is its private key.
	Key yamlfile.Path `yaml:"key"`
	// Roots vouch for peers.
	Roots yamlfile.Path `yaml:"roots"`
}

// Drain says how a process ends: first it is not ready, then, Delay later, it takes no more calls and gives those in
// flight Timeout to finish.
type Drain struct {
	// Delay lets balancers notice. Default 0, for where something else waits before the signal.
	Delay time.Duration `yaml:"delay,omitempty"`
	// Timeout is how long calls may take to finish. Default 30 s.
	Timeout time.Duration `yaml:"timeout,omitempty"`
}

// Telemetry says where traces, metrics and logs go.
type Telemetry struct {
	// Endpoint is the host:port of an OTLP gRPC collector on this host, "127.0.0.1:4317". Empty: the variables
	// OTEL_EXPORTER_OTLP_* decide, and without them nothing is exported; /metrics is always served.
	Endpoint string `yaml:"endpoint,omitempty"`
	// LogLevel is debug, info, warn or error. Default info.
	LogLevel string `yaml:"log_level,omitempty"`
}

// Load reads the YAML file at path over a zero T. Unknown keys, bad durations and values of the wrong type are errors
// that name file, line and the nearest known key. A *T that is a yamlfile.Validator has the last word. Relative
// yamlfile.Path values are meant from the file's folder.
func Load[T any](path string) (T, error) {
	var config T
	if err := yamlfile.Load(path, &config); err != nil {
		var zero T
		return zero, err
	}
	return config, nil
}

// Check does all that a start does short of listening: it reads the identity, the policies and the roots.
func (c Config) Check(ctx context.Context) error {
	if err := c.Validate(); err != nil {
		return err
	}
	_, sourceErr := c.identity(time.Now)
	_, callersErr := c.callers(ctx, time.Now, nil)
	return errors.Join(sourceErr, callersErr)
}

// Validate says what is missing or contradictory.
func (c Config) Validate() error {
	var faults []error
	for _, address := range []struct{ key, value string }{{"listen", c.Listen}, {"ops", c.Ops}} {
		if _, _, err := net.SplitHostPort(address.value); err != nil {
			faults = append(faults, fmt.Errorf("%s: %q is not host:port", address.key, address.value))
		}
	}
	for _, file := range []struct {
		key   string
		value yamlfile.Path
	}{{"cert", c.Identity.Cert}, {"key", c.Identity.Key}, {"roots", c.Identity.Roots}} {
		if file.value == "" {
			faults = append(faults, fmt.Errorf("identity.%s is missing", file.key))
		}
	}
	if c.Drain.Delay < 0 || c.Drain.Timeout < 0 {
		faults = append(faults, errors.New("drain: durations must not be negative"))
	}
	if _, err := c.Telemetry.level(); err != nil {
		faults = append(faults, err)
	}
	return errors.Join(faults...)
}

func (c Config) identity(clock func() time.Time) (*identity.Source, error) {
	files := c.Identity
	source, err := identity.Files(string(files.Cert), string(files.Key), string(files.Roots),
		identity.Options{Clock: clock})
	if err != nil {
		return nil, fmt.Errorf("identity: %w", err)
	}
	if source.TrustsDevRoot() && !c.Development {
		return nil, fmt.Errorf("%s holds a root made for development; replace it, or set development: true", files.Roots)
	}
	return source, nil
}

func (c Config) callers(
	ctx context.Context, clock func() time.Time, onReload func(error),
) (*operator.Authenticator, error) {
	client, err := c.issuerClient()
	if err != nil {
		return nil, err
	}
	return operator.New(ctx, operator.Config{
		OperatorsFile: string(c.Operators), PeersFile: string(c.Peers), Issuers: c.Issuers,
		Development: c.Development, HTTPClient: client, Clock: clock, OnReload: onReload,
	})
}

// issuerClient is nil where the default will do.
func (c Config) issuerClient() (*http.Client, error) {
	if c.IssuerRoots == "" {
		return nil, nil //nolint:nilnil // nil is the default client
	}
	b, err := c.IssuerRoots.Read()
	if err != nil {
		return nil, fmt.Errorf("issuer_roots: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("issuer_roots: %s holds no certificate", c.IssuerRoots)
	}
	transport := &http.Transport{
		Proxy:           http.ProxyFromEnvironment,
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}
	return &http.Client{Transport: transport, Timeout: issuerTimeout}, nil
}

func (t Telemetry) level() (slog.Level, error) {
	level := slog.LevelInfo
	if t.LogLevel == "" {
		return level, nil
	}
	if err := level.UnmarshalText([]byte(t.LogLevel)); err != nil {
		return level, fmt.Errorf("telemetry.log_level: %q is not debug, info, warn or error", t.LogLevel)
	}
	return level, nil
}
