// Package redistest starts Debian's redis-server for tests: one, one with a replica, or a
// cluster of three masters. Nothing is left of it afterwards. Start at [Start].
package redistest

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

// Start starts a server with more arguments and returns its address.
func Start(tb testing.TB, args ...string) string {
	tb.Helper()
	address, _ := start(tb, args...)
	return address
}

// Replica starts a replica of a server, and waits until it has what that has.
func Replica(tb testing.TB, primary string) string {
	tb.Helper()
	host, port, err := net.SplitHostPort(primary)
	need(tb, err)
	address := Start(tb, "--replicaof", host+" "+port)
	c := connect(tb, address)
	eventually(tb, "the replica is in step", func() bool {
		info, err := c.Do(tb.Context(), c.B().Info().Section("replication").Build()).ToString()
		return err == nil && strings.Contains(info, "master_link_status:up")
	})
	return address
}

// Cluster starts three masters and returns their addresses once all slots are served.
func Cluster(tb testing.TB) []string {
	tb.Helper()
	const masters, slots = 3, 16384
	var addresses, buses []string
	var clients []rueidis.Client
	for i := range masters {
		address, bus := start(tb, "--cluster-enabled", "yes", "--cluster-config-file", fmt.Sprint("nodes-", i, ".conf"))
		c := connect(tb, address)
		need(tb, c.Do(tb.Context(), c.B().ClusterAddslotsrange().StartSlotEndSlot().
			StartSlotEndSlot(int64(i*slots/masters), int64((i+1)*slots/masters-1)).Build()).Error())
		addresses, buses, clients = append(addresses, address), append(buses, bus), append(clients, c)
	}
	for i, address := range addresses {
		host, port, err := net.SplitHostPort(address)
		need(tb, err)
		need(tb, clients[0].Do(tb.Context(), clients[0].B().Arbitrary("CLUSTER", "MEET", host, port, buses[i]).Build()).Error())
	}
	for _, c := range clients {
		eventually(tb, "the cluster serves all slots", func() bool {
			info, err := c.Do(tb.Context(), c.B().ClusterInfo().Build()).ToString()
			return err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3")
		})
	}
	return addresses
}

// start starts a server on a free port, and says where a cluster's others reach it. Somebody
// else may take the port first, so it is tried again.
func start(tb testing.TB, args ...string) (address, bus string) {
	tb.Helper()
	const tries = 20
	for range tries {
		port := freePort(tb)
		bus := strconv.Itoa(freePort(tb))
		cmd := exec.CommandContext(context.WithoutCancel(tb.Context()), "redis-server", append([]string{
			"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", tb.TempDir(), "--save", "", "--appendonly", "no", "--daemonize", "no",
			"--cluster-port", bus,
		}, args...)...)
		need(tb, cmd.Start())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = cmd.Wait()
		}()
		tb.Cleanup(func() {
			_ = cmd.Process.Kill()
			<-ended
		})
		address := fmt.Sprint("127.0.0.1:", port)
		if answers(tb, address, ended) {
			return address, bus
		}
	}
	tb.Fatal("redistest: no server came up; is redis-server installed? scripts/install.sh test does that")
	return "", ""
}

// answers waits until the server answers, or has ended.
func answers(tb testing.TB, address string, ended <-chan struct{}) (ok bool) {
	tb.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	for {
		if conn, err := new(net.Dialer).DialContext(tb.Context(), "tcp", address); err == nil {
			_ = conn.Close()
			return true
		}
		select {
		case <-ended:
			return false
		case <-deadline.C:
			return false
		case <-tick.C:
		}
	}
}

func freePort(tb testing.TB) int {
	tb.Helper()
	l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	need(tb, err)
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // of a TCP listener
}

func connect(tb testing.TB, address string) rueidis.Client {
	tb.Helper()
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{address}, DisableCache: true, ForceSingleClient: true})
	need(tb, err)
	tb.Cleanup(c.Close)
	return c
}

func eventually(tb testing.TB, what string, is func() bool) {
	tb.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-deadline.C:
			tb.Fatal("redistest: never came: " + what)
		}
	}
}

func need(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal("redistest: ", err)
	}
}
