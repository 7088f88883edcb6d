package notes

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/rowhouse-platform/rowhouse/sdk/identity"
)

// Config is the app's configuration file. All paths are absolute.
type Config struct {
	// GRPC, HTTP and Ops are the addresses of the two APIs and of probes and metrics.
	GRPC string `yaml:"grpc"`
	HTTP string `yaml:"http"`
	Ops  string `yaml:"ops"`
	// Identity is the process's certificate.
	Identity Identity `yaml:"identity"`
	// Database is a file with the connection string of the app's role in the cell. That of the
	// role that migrates is not for a process that serves: `notes migrate` is told its file.
	Database string `yaml:"database"`
	// Cell is the cell whose tenants this process serves.
	Cell string `yaml:"cell"`
	// AudienceBit is the app's bit in tenant contexts, as tenancy gave it.
	AudienceBit int `yaml:"audience_bit"`
	// Replica names this process, unique while it runs.
	Replica string `yaml:"replica"`
	// State is the folder of the copies of the feeds.
	State string `yaml:"state"`
	// TrustRoots holds the public keys that certify context keys.
	TrustRoots string `yaml:"trust_roots"`
	// Gateways may present tenant contexts here.
	Gateways []identity.ID `yaml:"gateways"`
	// Tenancy and Config are the services that the app follows.
	Tenancy Peer `yaml:"tenancy"`
	Config  Peer `yaml:"config"`
	// Quota is told what tenants take of the database. Default: nobody is.
	Quota Peer `yaml:"quota,omitempty"`
	// Renewal are gateways' gRPC APIs, the nearest first, that renew the contexts of streams; tenancy is asked when
	// none of them answers. With none, streams end within a minute when tenancy is lost. Default: none.
	Renewal []Peer `yaml:"renewal,omitempty"`
	// Jobs is how imports run; without it there are none. Default: none.
	Jobs *Jobs `yaml:"jobs,omitempty"`
	// OTLP is where telemetry goes, empty for nowhere.
	OTLP string `yaml:"otlp,omitempty"`
}

// Identity are the PEM files of a process's identity.
type Identity struct {
	Cert  string `yaml:"cert"`
	Key   string `yaml:"key"`
	Roots string `yaml:"roots"`
}

// Peer is a service that the app calls.
type Peer struct {
	// Address is a gRPC target; Identity is whom it must be.
	Address  string      `yaml:"address"`
	Identity identity.ID `yaml:"identity"`
	// FeedKeys holds the public keys that sign its feed; of services that the app follows.
	FeedKeys string `yaml:"feed_keys,omitempty"`
}

// Jobs is how this process runs imports.
type Jobs struct {
	// Database is a file with the connection string of the queue's own database. See: notes migrate-jobs.
	Database string `yaml:"database"`
	// Workers is how many imports this process works at a time. Default 1.
	Workers int `yaml:"workers,omitempty"`
	// Share is the part of its time in which a worker works, above 0 and up to 1. Default 0.25.
	Share float64 `yaml:"share,omitempty"`
}

// Load reads a configuration file; unknown keys are errors.
func Load(path string) (Config, error) {
	var c Config
	b, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("configuration: %w", err)
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	if c.GRPC == "" || c.HTTP == "" || c.Ops == "" || c.Database == "" || c.Cell == "" || len(c.Gateways) == 0 {
		return c, errors.New("configuration: grpc, http, ops, database, cell and gateways are required")
	}
	return c, nil
}

// secret reads a file that holds one line.
func secret(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("secret: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
