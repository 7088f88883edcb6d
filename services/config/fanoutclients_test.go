package config_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// envClients is what a process of clients is to do, as JSON.
const envClients = "ROWHOUSE_TEST_CLIENTS"

// clients are many clients of one service in a process apart from it, each with a stream, a feed and a store of its own.
type clients struct {
	N        int    // how many
	Share    int    // how many have a connection together
	Address  string // of the service
	Service  string // its identity
	Identity string // the directory of theirs
	FeedKeys string

	conns  []*grpc.ClientConn
	stores []*settings.Store
	feeds  []*feed.Feed

	waiting atomic.Int64
	at      []int64       // when each had applied the newest write, in ns since 1970
	all     chan struct{} // closed by the last one
}

// answer is what a process of clients says when all have done what they were to do.
type answer struct {
	At   []int64 // when each had, in ns since 1970
	Read float64 // what one of them reads
	CPU  time.Duration
}

// TestClients is a process of clients: it follows, and answers each line that it gets. "await" is for a write, "again" has each
// client get everything anew.
func TestClients(t *testing.T) {
	task := os.Getenv(envClients)
	if task == "" {
		return // this process is a test
	}
	// A thousand heaps in one would be collected at once, and keep all clients waiting. Each for itself has next to nothing to
	// collect.
	debug.SetGCPercent(-1)
	c := new(clients)
	must(t, json.Unmarshal([]byte(task), c))
	c.follow(t)
	say := json.NewEncoder(os.Stdout)
	must(t, say.Encode(answer{}))
	lines := bufio.NewScanner(os.Stdin)
	for n := 0; lines.Scan(); n++ {
		if lines.Text() == "again" {
			c.again(t)
		} else {
			c.await(t, say)
		}
		must(t, say.Encode(answer{At: c.at, Read: c.read(n % c.N), CPU: cpu(t)}))
	}
	for _, f := range c.feeds {
		f.Close()
	}
}

// follow connects the clients, and returns when all have a first state.
func (c *clients) follow(t *testing.T) {
	t.Helper()
	source, err := identity.Files(c.Identity+"/"+identity.CertFile, c.Identity+"/"+identity.KeyFile, c.Identity+"/"+identity.RootsFile,
		identity.Options{})
	must(t, err)
	peer, err := identity.Parse(c.Service)
	must(t, err)
	keys, err := keyfile.Public(c.FeedKeys)
	must(t, err)
	options := append(tenantgrpc.Client(tenantgrpc.ClientConfig{}), grpc.WithTransportCredentials(credentials.NewTLS(source.ClientTLS(peer))))
	known := families(t)
	for i := range c.N {
		if i%c.Share == 0 {
			conn, err := grpc.NewClient("passthrough:///"+c.Address, append(options, grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))...)
			must(t, err)
			c.conns = append(c.conns, conn)
		}
		conn := c.conns[len(c.conns)-1]
		store := &settings.Store{Trust: known}
		f, err := settings.Follow(t.Context(), settings.FollowConfig{
			Config: conn, FeedKeys: keys, Replica: fmt.Sprintf("client-%d", i), Store: store, Log: slog.New(slog.DiscardHandler),
		})
		must(t, err)
		c.stores, c.feeds = append(c.stores, store), append(c.feeds, f)
	}
	c.at = make([]int64, c.N)
	for i, f := range c.feeds {
		<-f.Ready()
		c.stores[i].OnChange(func() {
			c.at[i] = time.Now().UnixNano()
			if c.waiting.Add(-1) == 0 {
				close(c.all)
			}
		})
	}
}

// await says that it waits, and returns when all have applied one write.
func (c *clients) await(t *testing.T, say *json.Encoder) {
	t.Helper()
	c.all = make(chan struct{})
	c.waiting.Store(int64(c.N))
	must(t, say.Encode(answer{}))
	select {
	case <-c.all:
	case <-time.After(time.Minute):
		t.Fatalf("%d clients never apply a write", c.waiting.Load())
	}
}

// read is what a client reads of the document that is written.
func (c *clients) read(client int) float64 {
	e, _ := c.stores[client].Effective(tenanttest.UID("acme"), plans()["acme"], tenant.ID{}, "notes")
	n, _ := e.Object["n"].(float64)
	return n
}

// again opens a stream for each client, beside the one that it has, and reads a snapshot into a new store.
func (c *clients) again(t *testing.T) {
	t.Helper()
	var readers errgroup.Group
	for i := range c.N {
		readers.Go(func() error {
			change, err := snapshot(t.Context(), c.conns[i/c.Share])
			if err != nil {
				return err
			}
			err = new(settings.Store).Apply(change)
			c.at[i] = time.Now().UnixNano()
			return err
		})
	}
	must(t, readers.Wait())
}

// snapshot reads everything.
func snapshot(ctx context.Context, conn *grpc.ClientConn) (feed.Change, error) {
	change := feed.Change{Reset: true}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := configv1.NewSettingsServiceClient(conn).WatchSettings(ctx, &configv1.WatchSettingsRequest{Replica: "again"})
	if err != nil {
		return change, err
	}
	for {
		res, err := stream.Recv()
		if err != nil || res.GetFrame().GetBookmark() != nil {
			return change, err
		}
		for _, e := range res.GetFrame().GetChunk().GetEntries() {
			if err := settings.Check(e.GetKey(), e.GetValue()); err != nil {
				return change, err
			}
			change.Entries = append(change.Entries, feed.Entry{Key: e.GetKey(), Value: e.GetValue()})
		}
	}
}
