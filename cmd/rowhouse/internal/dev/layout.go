// Package dev runs a whole Rowhouse on one machine: a private PostgreSQL, the four
// services and the example app, each as a process of its own with its own database
// role and identity, and three sample tenants.
//
// It is for trying out, developing and testing. What it writes are the same
// configuration files that `rowhouse serve` reads in production. Start at [Run].
package dev

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
)

// What a development house is called.
const (
	trustDomain = "rowhouse.localhost"
	cellName    = "cell-1"
	region      = "local"
	zone        = "localhost"
	appName     = "notes"
	platform    = "rowhouse.localhost"
	// envoyName is an identity without a process: an Envoy that its owner starts may show it to quota.
	envoyName = "envoy"
)

// markerName is the file that says that a folder is ours and of which format.
const (
	markerName   = "rowhouse-dev"
	markerFormat = "2\n"
	private      = 0o700
	secretMode   = 0o600
)

// services are the processes in the order in which they start.
func services() []string { return []string{"tenancy", "config", "quota", "gateway", appName} }

// identities are those that the house issues certificates to.
func identities() []string { return append(services(), envoyName) }

// Layout is where everything is below the state folder.
type Layout struct{ Dir string }

func (l Layout) path(elem ...string) string {
	return filepath.Join(append([]string{l.Dir}, elem...)...)
}

// Path is path as configurations hold it.
func (l Layout) file(elem ...string) yamlfile.Path { return yamlfile.Path(l.path(elem...)) }

// Config returns a service's configuration file.
func (l Layout) Config(service string) string { return l.path(service, "config.yaml") }

// Log returns a service's log file.
func (l Layout) Log(service string) string { return l.path("log", service+".log") }

// Token returns the file with the operator's token.
func (l Layout) Token() string { return l.path("operator", "token") }

// secondToken is the file with the token of the second operator.
func (l Layout) secondToken() string { return l.path("operator", secondName+".token") }

// Roots returns the file with the root certificate that clients should trust.
func (l Layout) Roots() string { return l.path("ca", identity.RootsFile) }

// open makes the folder ready, or says in one line why it cannot be used.
func (l Layout) open() error {
	entries, err := os.ReadDir(l.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the state folder %s cannot be read: %w; pass --state with another one", l.Dir, err)
	}
	if len(entries) > 0 {
		marker, err := os.ReadFile(l.path(markerName))
		if err != nil {
			return fmt.Errorf("the folder %s holds something else; pass --state with an empty or new one", l.Dir)
		}
		if string(marker) != markerFormat {
			return fmt.Errorf("the state in %s was made by another version; start over with: rowhouse dev --reset", l.Dir)
		}
	}
	// Everyone may pass, because PostgreSQL runs as another user; what is secret lies in folders of its own.
	const passable = 0o711
	if err := os.MkdirAll(l.Dir, passable); err != nil {
		return fmt.Errorf("the state folder: %w; pass --state with one that can be written", err)
	}
	for _, name := range append(identities(), "ca", "keys", "secrets", "cells", "operator", "log") {
		if err := os.MkdirAll(l.path(name), private); err != nil {
			return fmt.Errorf("the state folder: %w", err)
		}
	}
	return os.WriteFile(l.path(markerName), []byte(markerFormat), secretMode)
}

// Reset removes the state. It refuses a folder that is not ours.
func Reset(dir string) error {
	l := Layout{dir}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, err := os.Stat(l.path(markerName)); err != nil {
		return fmt.Errorf("%s is not a state folder of rowhouse dev; nothing was removed", dir)
	}
	unlock, err := l.lock() // not under the feet of a house that runs
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the state: %w", err)
	}
	return nil
}

// DefaultDir is where the state is kept unless --state says otherwise: for root below
// /var/lib, because PostgreSQL's user must be able to pass.
func DefaultDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/rowhouse-dev"
	}
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "rowhouse-dev")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "rowhouse-dev"
	}
	return filepath.Join(home, ".local", "state", "rowhouse-dev")
}

// Ports are the loopback ports of all processes.
type Ports struct {
	HTTP, HTTPS int
	// GRPC and Ops are by service.
	GRPC, Ops map[string]int
	// AppHTTP is the example app's HTTP port behind the gateway.
	AppHTTP int
	// Envoy and EnvoyHTTP are the ports at which quota answers Envoys.
	Envoy, EnvoyHTTP int
}

const (
	// opsOffset is how far a service's port for operations is above its port for gRPC.
	opsOffset   = 100
	highestPort = 65535
	baseFlag    = "--base-port"
)

// portsAbove is how far the highest port is above the base.
func portsAbove() int { return opsOffset + len(services()) }

// fixedPorts returns the ports above base.
func fixedPorts(base, http, https int) Ports {
	p := Ports{HTTP: http, HTTPS: https, GRPC: map[string]int{}, Ops: map[string]int{}}
	for i, s := range services() {
		p.GRPC[s], p.Ops[s] = base+1+i, base+opsOffset+1+i
	}
	p.AppHTTP = base + 1 + len(services())
	p.Envoy, p.EnvoyHTTP = p.AppHTTP+1, p.AppHTTP+2
	return p
}

// flagged is a port and the flag that moves it.
type flagged struct {
	port int
	flag string
}

// all lists every port, the front door's first.
func (p Ports) all() []flagged {
	out := []flagged{{p.HTTP, "--http-port"}, {p.HTTPS, "--https-port"}, {p.AppHTTP, baseFlag}, {p.Envoy, baseFlag}, {p.EnvoyHTTP, baseFlag}}
	for _, s := range services() {
		out = append(out, flagged{p.GRPC[s], baseFlag}, flagged{p.Ops[s], baseFlag})
	}
	return out
}

// choosePorts returns the ports of this start. With a base of 0 free ones are picked
// at the first start and kept for the next.
func (l Layout) choosePorts(ctx context.Context, base, http, https int) (Ports, error) {
	if base != 0 {
		return fixedPorts(base, http, https), nil
	}
	kept := l.path("ports.json")
	var p Ports
	if b, err := os.ReadFile(kept); err == nil {
		if err := json.Unmarshal(b, &p); err != nil {
			return p, fmt.Errorf("%s is damaged; start over with: rowhouse dev --reset", kept)
		}
		if p.Envoy == 0 { // kept by an earlier release
			free, err := freePorts(ctx, 2)
			if err != nil {
				return p, err
			}
			p.Envoy, p.EnvoyHTTP = free[0], free[1]
			return p, l.keepPorts(p)
		}
		return p, nil
	}
	const others = 5
	free, err := freePorts(ctx, 2*len(services())+others)
	if err != nil {
		return p, err
	}
	p = Ports{
		HTTP: free[0], HTTPS: free[1], AppHTTP: free[2], Envoy: free[3], EnvoyHTTP: free[4], GRPC: map[string]int{}, Ops: map[string]int{},
	}
	for i, s := range services() {
		p.GRPC[s], p.Ops[s] = free[others+2*i], free[others+1+2*i]
	}
	return p, l.keepPorts(p)
}

// keepPorts has the next start take the same ports.
func (l Layout) keepPorts(p Ports) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return os.WriteFile(l.path("ports.json"), b, secretMode)
}

// freePorts finds ports that nobody has. They are kept for later starts, so they are below those that systems give
// to connections: while a house is down, one of its own would be somebody's.
func freePorts(ctx context.Context, n int) ([]int, error) {
	const lowest, highest, tries = 10_000, 32_767, 1000
	var ports []int
	for range tries {
		if len(ports) == n {
			return ports, nil
		}
		port := lowest + rand.IntN(highest-lowest+1) //nolint:gosec // a guess, no secret
		listener, err := listen(ctx, loopback(port))
		if err != nil {
			continue
		}
		defer func() { _ = listener.Close() }() // all are held until the last is found
		ports = append(ports, port)
	}
	return nil, fmt.Errorf("found only %d free ports from %d to %d", len(ports), lowest, highest)
}

// checkPorts says which port cannot be had, why, and what to do.
func checkPorts(ctx context.Context, p Ports) error {
	if err := p.apart(); err != nil {
		return err
	}
	for _, f := range p.all() {
		listener, err := listen(ctx, loopback(f.port))
		switch {
		case err == nil:
			_ = listener.Close()
		case errors.Is(err, syscall.EADDRINUSE):
			return fmt.Errorf("port %d is in use%s; stop it or pass %s", f.port, holder(f.port), f.flag)
		case errors.Is(err, syscall.EACCES):
			return fmt.Errorf("port %d is not for this user; pass %s with one from 1024 on", f.port, f.flag)
		default:
			return fmt.Errorf("port %d: %w; pass another %s", f.port, err, f.flag)
		}
	}
	return nil
}

// apart wants ports that exist, each once.
func (p Ports) apart() error {
	taken := map[int]string{}
	for _, f := range p.all() {
		if f.port < 1 || f.port > highestPort {
			if f.flag == baseFlag {
				return fmt.Errorf("%s makes a port %d, which does not exist; pass one from 1 to %d, or 0", baseFlag, f.port, highestPort-portsAbove())
			}
			return fmt.Errorf("%s %d is no port; pass one from 1 to %d", f.flag, f.port, highestPort)
		}
		if other, twice := taken[f.port]; twice {
			return fmt.Errorf("%s and %s both take port %d; pass another %s", other, f.flag, f.port, other)
		}
		taken[f.port] = f.flag
	}
	return nil
}

// listen opens a port for a moment.
func listen(ctx context.Context, address string) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "tcp", address)
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
