// Package proxy measures what a request costs the gateway: CPU time per request of 1 KB
// over HTTP/1.1 with kept connections.
//
// The gateway is a process of a whole house and does all that it does in production
// without a trace collector: it finds the tenant, makes and checks its context, spends
// from a lease of its limit, cleans the header fields both ways, and speaks mutual TLS to
// the upstream. Its peers do no tenant work. nginx, HAProxy and Go's
// httputil.ReverseProxy speak plain HTTP to the same upstream process; a second
// ReverseProxy speaks mutual TLS to it, as the gateway does.
//
// All run at once, each on the same one processor; the load and the upstream are on
// another where there is one. They are measured in turns, and what counts is the median
// of the ratios of neighbouring rounds. Start at [Benchmark].
package proxy

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/rowhouse-platform/rowhouse/bench/measure"
)

const (
	rounds      = 5
	seconds     = 2 // the first lease questions of a burst are a few percent of one second
	connections = 16
	goal        = 1.0
)

// What our gateway is compared with first, and with mutual TLS.
const (
	ours       = "rowhouse"
	reverse    = "httputil.ReverseProxy"
	reverseTLS = "httputil.ReverseProxy+mTLS"
)

// Benchmark returns the comparison.
func Benchmark() measure.Benchmark {
	return measure.Benchmark{
		Name: "proxy-http1",
		About: "CPU µs of the gateway per request of 1 KB, divided by those of Go's httputil.ReverseProxy that does no tenant work " +
			"and speaks plain HTTP upstream; the goal bounds the ratio, and no request is refused",
		Run: run,
	}
}

// target is a proxy under load.
type target struct {
	name    string
	address string
	// process is ours to stop; pid says which process to measure where it is not.
	process *process
	pid     int
}

func (t target) measured() int {
	if t.process != nil {
		return t.process.pid()
	}
	return t.pid
}

// street is everything that runs.
type street struct {
	house    *house
	upstream upstream
	targets  []target
}

func run(ctx context.Context, env measure.Env) (_ measure.Result, err error) {
	s := &street{}
	defer func() { err = errors.Join(err, s.stop()) }()
	if err := s.open(ctx, env); err != nil {
		return measure.Result{}, err
	}
	costs, failed, err := s.measure(ctx, env)
	if err != nil {
		return measure.Result{}, err
	}
	return conclude(costs, failed), nil
}

// open builds and starts everything.
func (s *street) open(ctx context.Context, env measure.Env) error {
	env.Sayf("building the house")
	if err := build(ctx, env); err != nil {
		return err
	}
	env.Sayf("starting a house, nginx, HAProxy and two Go reverse proxies")
	var err error
	if s.house, err = startHouse(ctx, env.Scratch, filepath.Join(env.Scratch, "rowhouse")); err != nil {
		return err
	}
	folder, id, err := s.house.issue(env.Scratch)
	if err != nil {
		return err
	}
	peer := filepath.Join(env.Scratch, "peer")
	if s.upstream, err = startUpstream(ctx, env.Scratch, peer, folder); err != nil {
		return err
	}
	if err := s.house.lead(ctx, s.upstream.tls, id); err != nil {
		return err
	}
	for _, begin := range []func() (target, error){
		s.house.target,
		func() (target, error) {
			return startReverseProxy(ctx, env.Scratch, peer, reverse, "-to", s.upstream.plain)
		},
		func() (target, error) {
			return startReverseProxy(ctx, env.Scratch, peer, reverseTLS,
				"-to", s.upstream.tls, "-identity", folder, "-peer", id.String())
		},
		func() (target, error) { return startNginx(ctx, env.Scratch, s.upstream.plain) },
		func() (target, error) { return startHAProxy(ctx, env.Scratch, s.upstream.plain) },
	} {
		t, err := begin()
		if err != nil {
			return err
		}
		s.targets = append(s.targets, t)
	}
	return s.pin()
}

// build compiles what is run, so that it is the code of this tree.
func build(ctx context.Context, env measure.Env) error {
	for binary, pkg := range map[string]string{
		"rowhouse": "./cmd/rowhouse", "notes": "./examples/notes/cmd/notes", "peer": "./bench/cmd/peer",
	} {
		cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", filepath.Join(env.Scratch, binary), pkg)
		cmd.Dir = env.Root
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
		}
	}
	return nil
}

// The processors that proxies and load are bound to.
const (
	proxyCPU = 0
	loadCPU  = 1
)

// spare returns the processor for the load, or -1 where there is only one.
func spare() int {
	if runtime.NumCPU() <= loadCPU {
		return -1
	}
	return loadCPU
}

// pin gives each proxy the same processor, and the upstream another.
func (s *street) pin() error {
	if spare() < 0 {
		return nil
	}
	err := pin(s.upstream.process.pid(), loadCPU)
	for _, t := range s.targets {
		err = errors.Join(err, pin(t.measured(), proxyCPU))
	}
	return err
}

// measure loads the proxies in turns and returns each one's µs per request by round, and
// how many requests of ours failed. The first round only warms.
func (s *street) measure(ctx context.Context, env measure.Env) (costs map[string][]float64, failed int, err error) {
	costs = map[string][]float64{}
	for round := range env.RoundsOr(rounds) + 1 {
		for _, t := range s.targets {
			cost, a, err := t.load(ctx, env.SecondsOr(seconds))
			if err != nil {
				return nil, 0, fmt.Errorf("%s: %w", t.name, err)
			}
			if t.name != ours && a.refused+a.broken > 0 {
				return nil, 0, fmt.Errorf("%s: %d of %d requests failed", t.name, a.refused+a.broken, a.requests)
			}
			failed += a.refused + a.broken
			if round > 0 {
				costs[t.name] = append(costs[t.name], cost)
			}
		}
	}
	return costs, failed, nil
}

// load loads one proxy and returns its CPU time per request in µs.
func (t target) load(ctx context.Context, seconds int) (float64, answers, error) {
	l := load{url: "http://" + t.address + "/", host: host, connections: connections, seconds: seconds, cpu: spare()}
	before, err := cpuTime(t.measured())
	if err != nil {
		return 0, answers{}, err
	}
	a, err := l.run(ctx)
	if err != nil {
		return 0, a, err
	}
	after, err := cpuTime(t.measured())
	if err == nil && a.requests == 0 {
		err = errors.New("no request was answered")
	}
	if err != nil {
		return 0, a, err
	}
	return float64((after - before).Microseconds()) / float64(a.requests), a, nil
}

// stop stops everything in the order in which it depends on each other.
func (s *street) stop() error {
	var err error
	for _, t := range slices.Backward(s.targets) {
		if t.process != nil {
			err = errors.Join(err, t.process.stop())
		}
	}
	if s.upstream.process != nil {
		err = errors.Join(err, s.upstream.process.stop())
	}
	if s.house != nil {
		err = errors.Join(err, s.house.process.stop())
	}
	return err
}

// conclude makes the result of all rounds.
func conclude(costs map[string][]float64, failed int) measure.Result {
	ratio := func(peer string) float64 { return measure.Median(measure.Ratios(costs[ours], costs[peer])) }
	r := measure.Result{
		Name: "proxy-http1", Value: measure.Median(costs[ours]), Unit: "µs/request",
		Peer: reverse, Ratio: ratio(reverse), Goal: goal, OK: ratio(reverse) <= goal && failed == 0,
	}
	for _, peer := range []string{ours, reverse, reverseTLS, "nginx", "haproxy"} {
		line := fmt.Sprintf("%s: median %.1f µs, %.1f to %.1f", peer,
			measure.Median(costs[peer]), slices.Min(costs[peer]), slices.Max(costs[peer]))
		if peer != ours {
			line += fmt.Sprintf("; ours divided by it %.2f", ratio(peer))
		}
		r.Beside = append(r.Beside, line)
	}
	r.Beside = append(r.Beside,
		"ours does the tenant work and mutual TLS upstream; nginx, haproxy and "+reverse+" do no tenant work and speak plain HTTP upstream",
		fmt.Sprintf("%d rounds, %d connections; %d of our requests failed",
			len(costs[ours]), connections, failed))
	return r
}
