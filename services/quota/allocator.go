package quota

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/rueidis"

	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/alloc"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/alloc/pgalloc"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/alloc/redisalloc"
)

// Allocator is where rates and slots are counted. All replicas must say the same.
type Allocator struct {
	// Redis counts in a server or a cluster that speaks Redis's protocol. Default: quota's database counts.
	Redis *Redis `yaml:"redis,omitempty"`
}

// Redis is a server or a cluster. Its maxmemory-policy must be noeviction.
type Redis struct {
	// Addresses are the server, or some of the cluster's nodes: "10.0.0.7:6379".
	Addresses []string `yaml:"addresses"`
	// Username is the user of its access list. Default: its default user.
	Username string `yaml:"username,omitempty"`
	// Password is a file with the password.
	Password yamlfile.Path `yaml:"password,omitempty"`
	// TLS encrypts connections, and verifies the server.
	TLS bool `yaml:"tls,omitempty"`
	// Roots holds the certificates that verify the server, PEM. Default: those of the system.
	Roots yamlfile.Path `yaml:"roots,omitempty"`
	// Prefix begins every key, for those who share a server. Default "rowhouse:".
	Prefix string `yaml:"prefix,omitempty"`
	// WaitReplicas is how many replicas must have a charge before it is answered. Default 0: a failover may forget one burst of
	// each limit.
	WaitReplicas int `yaml:"wait_replicas,omitempty"`
}

const maxWaitReplicas = 8

// check reads the files that are named.
func (a Allocator) check() error {
	if a.Redis == nil {
		return nil
	}
	_, err := a.Redis.client()
	if a.Redis.WaitReplicas < 0 || a.Redis.WaitReplicas > maxWaitReplicas {
		err = errors.Join(err, fmt.Errorf("wait_replicas: 0 to %d", maxWaitReplicas))
	}
	if err != nil {
		return fmt.Errorf("allocator.redis: %w", err)
	}
	return nil
}

// client is how to connect.
func (r *Redis) client() (rueidis.ClientOption, error) {
	o := rueidis.ClientOption{InitAddress: r.Addresses, Username: r.Username, ClientName: "rowhouse-quota", DisableCache: true}
	if len(r.Addresses) == 0 {
		return o, errors.New("addresses: at least one is needed")
	}
	if r.Password != "" {
		b, err := os.ReadFile(string(r.Password))
		if err != nil {
			return o, fmt.Errorf("password: %w", err)
		}
		o.Password = strings.TrimSpace(string(b))
	}
	if r.TLS {
		o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if r.Roots != "" {
		b, err := os.ReadFile(string(r.Roots))
		if err != nil {
			return o, fmt.Errorf("roots: %w", err)
		}
		pool := x509.NewCertPool()
		if !r.TLS || !pool.AppendCertsFromPEM(b) {
			return o, errors.New("roots: without tls, or without a certificate")
		}
		o.TLSConfig.RootCAs = pool
	}
	return o, nil
}

// drivers makes the driver, once the database is there.
type drivers func(*pgxpool.Pool) alloc.Driver

// open connects to the store. What it returns last is called when the service has ended.
func (a Allocator) open(ctx context.Context) (drivers, func(), error) {
	if a.Redis == nil {
		return func(pool *pgxpool.Pool) alloc.Driver { return pgalloc.New(pgalloc.Config{Pool: pool}) }, func() {}, nil
	}
	option, err := a.Redis.client()
	if err != nil {
		return nil, nil, fmt.Errorf("allocator.redis: %w", err)
	}
	client, err := rueidis.NewClient(option)
	if err != nil {
		return nil, nil, fmt.Errorf("allocator.redis: connect: %w", err)
	}
	driver, err := redisalloc.New(ctx, redisalloc.Config{Client: client, Prefix: a.Redis.Prefix, WaitReplicas: a.Redis.WaitReplicas})
	if err != nil {
		client.Close()
		return nil, nil, fmt.Errorf("allocator.redis: %w", err)
	}
	return func(*pgxpool.Pool) alloc.Driver { return driver }, client.Close, nil
}
