package dev

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/rowhouse-platform/rowhouse/internal/follower"
	"github.com/rowhouse-platform/rowhouse/internal/operator"
	"github.com/rowhouse-platform/rowhouse/internal/serve"
	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/services/config"
	"github.com/rowhouse-platform/rowhouse/services/gateway"
	"github.com/rowhouse-platform/rowhouse/services/quota"
	"github.com/rowhouse-platform/rowhouse/services/tenancy"
)

// writer writes the configuration files of one house.
type writer struct {
	l     Layout
	p     Ports
	otlp  string
	users []gateway.Issuer
	ids   map[string]identity.ID
}

// configure writes every service's configuration, and who may do what.
func (l Layout) configure(p Ports, o Options) error {
	users, err := loadUsers(o.Users)
	if err != nil {
		return err
	}
	w := writer{l: l, p: p, otlp: o.OTLP, users: users, ids: map[string]identity.ID{}}
	for _, s := range identities() {
		id, err := serviceID(s)
		if err != nil {
			return err
		}
		w.ids[s] = id
	}
	peersFile := l.path("operator", "peers.yaml")
	peers, err := keepPeers(peersFile, w.ids, w.peers())
	if err != nil {
		return err
	}
	settings, err := keepEgress(l.Config("config"), w.config())
	if err != nil {
		return err
	}
	files := map[string]any{
		peersFile:           peers,
		l.Config("tenancy"): w.tenancy(),
		l.Config("config"):  settings,
		l.Config("quota"):   w.quota(),
		l.Config("gateway"): w.gateway(),
		l.Config(appName):   w.app(),
	}
	for path, v := range files {
		if err := writeYAML(path, v); err != nil {
			return err
		}
	}
	return nil
}

// peers says what each workload may do.
func (w writer) peers() operator.PeersFile {
	roles := map[string]string{
		"tenancy": operator.RoleTenancy, "config": operator.RoleConfig, "quota": operator.RoleQuota,
		"gateway": operator.RoleGateway, appName: operator.RoleApp,
	}
	var f operator.PeersFile
	for _, s := range services() {
		entry := operator.PeerEntry{Identity: w.ids[s], Roles: []string{roles[s]}, MayPresent: s == "gateway" || s == appName}
		if s == appName {
			entry.Secrets = []string{appName} // of the namespace that it has for itself
		}
		f.Peers = append(f.Peers, entry)
	}
	return f
}

func (w writer) process(service string) serve.Config {
	return serve.Config{
		Listen: loopback(w.p.GRPC[service]), Ops: loopback(w.p.Ops[service]), Development: true,
		Identity: serve.IdentityFiles{
			Cert: w.l.file(service, identity.CertFile), Key: w.l.file(service, identity.KeyFile), Roots: w.l.file("ca", identity.RootsFile),
		},
		Operators: w.l.file("operator", "operators.yaml"), Peers: w.l.file("operator", "peers.yaml"),
		Telemetry: serve.Telemetry{Endpoint: strings.TrimPrefix(w.otlp, "http://")},
	}
}

func (w writer) tenancy() tenancy.Config {
	return tenancy.Config{
		Process: w.process("tenancy"), Replica: "tenancy-1", Database: w.l.file("secrets", "tenancy.dsn"), CellSecrets: w.l.file("cells"),
		TrustRoot: w.l.file("keys", "trust-root.key"), FeedKey: w.l.file("keys", "feed-tenancy.key"),
		KEK: w.l.file("keys", "tenancy.kek"), Zones: []string{zone},
		Hooks: &tenancy.Hooks{
			Address: loopback(w.p.GRPC["config"]), Identity: w.ids["config"], FeedKeys: w.l.file("keys", "feed-config.pub"),
			State: w.l.file("tenancy", "hooks"),
		},
	}
}

func (w writer) config() config.Config {
	return config.Config{
		KEK: w.l.file("keys", "config.kek"), HTTPSPort: w.p.HTTPS,
		Quota: &follower.Tenancy{
			Address: loopback(w.p.GRPC["quota"]), Identity: w.ids["quota"], FeedKeys: w.l.file("keys", "feed-quota.pub"),
		},
		Config: follower.Config{
			Process: w.process("config"), Replica: "config-1", Database: w.l.file("secrets", "config.dsn"),
			FeedKey: w.l.file("keys", "feed-config.key"), TrustRoots: w.l.file("keys", "trust-root.pub"), State: w.l.file("config", "copy"),
			Tenancy: follower.Tenancy{
				Address: loopback(w.p.GRPC["tenancy"]), Identity: w.ids["tenancy"], FeedKeys: w.l.file("keys", "feed-tenancy.pub"),
			},
		},
	}
}

func (w writer) quota() quota.Config {
	return quota.Config{
		Config: follower.Config{
			Process: w.process("quota"), Replica: "quota-1", Database: w.l.file("secrets", "quota.dsn"),
			FeedKey: w.l.file("keys", "feed-quota.key"), TrustRoots: w.l.file("keys", "trust-root.pub"), State: w.l.file("quota", "copy"),
			Tenancy: follower.Tenancy{
				Address: loopback(w.p.GRPC["tenancy"]), Identity: w.ids["tenancy"], FeedKeys: w.l.file("keys", "feed-tenancy.pub"),
			},
		},
		RateLimit: &quota.RateLimit{
			GRPC: loopback(w.p.Envoy), HTTP: loopback(w.p.EnvoyHTTP),
			Peers: quota.EnvoyPeers{{Identity: w.ids[envoyName], Domains: []string{"*"}, NamesTenant: "tenant"}},
		},
	}
}

func (w writer) gateway() gateway.Config {
	peer := func(service string) gateway.Peer {
		return gateway.Peer{
			Address: loopback(w.p.GRPC[service]), Identity: w.ids[service], FeedKeys: w.l.file("keys", fmt.Sprintf("feed-%s.pub", service)),
		}
	}
	return gateway.Config{
		Process: w.process("gateway"), Replica: "gateway-1", HTTP: loopback(w.p.HTTP), HTTPS: loopback(w.p.HTTPS),
		Certificates: []gateway.Certificate{{
			Cert: w.l.file("gateway", "front", identity.CertFile), Key: w.l.file("gateway", "front", identity.KeyFile),
		}},
		Tenancy: peer("tenancy"), Settings: peer("config"), Quota: peer("quota"),
		TrustRoots: w.l.file("keys", "trust-root.pub"), State: w.l.file("gateway", "copy"), KEK: w.l.file("keys", "gateway.kek"),
		Database: w.l.file("secrets", "gateway.dsn"), Issuers: w.users,
	}
}

// loadUsers reads the issuers of users' tokens: the part "users" of a gateway's
// configuration, in a file of its own.
func loadUsers(path string) ([]gateway.Issuer, error) {
	if path == "" {
		return nil, nil
	}
	path, err := filepath.Abs(path) // the gateway's configuration lies in another folder
	if err != nil {
		return nil, fmt.Errorf("--users: %w", err)
	}
	var f struct {
		Users []gateway.Issuer `yaml:"users"`
	}
	if err := yamlfile.Load(path, &f); err != nil {
		return nil, fmt.Errorf("--users: %w", err)
	}
	return f.Users, nil
}

// app is the example app's configuration. The app imports nothing of ours but the
// SDK, so its file is written by hand here, as its own operators would.
func (w writer) app() map[string]any {
	file := func(elem ...string) string { return w.l.path(elem...) }
	follow := func(service string) map[string]any {
		return map[string]any{
			"address": loopback(w.p.GRPC[service]), "identity": w.ids[service].String(),
			"feed_keys": file("keys", "feed-"+service+".pub"),
		}
	}
	return map[string]any{
		"grpc": loopback(w.p.GRPC[appName]), "http": loopback(w.p.AppHTTP), "ops": loopback(w.p.Ops[appName]),
		"identity": map[string]any{
			"cert": file(appName, identity.CertFile), "key": file(appName, identity.KeyFile), "roots": file("ca", identity.RootsFile),
		},
		"database": file("secrets", appName+".dsn"),
		"cell":     cellName, "audience_bit": 16, "replica": appName + "-1", "state": file(appName, "copy"),
		"trust_roots": file("keys", "trust-root.pub"), "gateways": []string{w.ids["gateway"].String()},
		"tenancy": follow("tenancy"), "config": follow("config"), "otlp": w.otlp,
		"quota":   map[string]any{"address": loopback(w.p.GRPC["quota"]), "identity": w.ids["quota"].String()},
		"jobs":    map[string]any{"database": file("secrets", jobsName+".dsn")},
		"renewal": []map[string]any{{"address": loopback(w.p.GRPC["gateway"]), "identity": w.ids["gateway"].String()}},
	}
}
