package redisalloc_test

import (
	"errors"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/limits/lease"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/alloc"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/alloc/alloctest"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/alloc/redisalloc"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/alloc/redisalloc/redistest"
)

func client(tb testing.TB, addresses ...string) rueidis.Client {
	tb.Helper()
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: addresses, DisableCache: true})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(c.Close)
	return c
}

func opener(c rueidis.Client, edit func(*redisalloc.Config)) alloctest.Open {
	return func(tb testing.TB, clock func() gcra.Ticks) alloc.Driver {
		tb.Helper()
		config := redisalloc.Config{Client: c, Clock: clock}
		edit(&config)
		d, err := redisalloc.New(tb.Context(), config)
		if err != nil {
			tb.Fatal(err)
		}
		return d
	}
}

func TestDriver(t *testing.T) {
	t.Parallel()
	alloctest.Run(t, opener(client(t, redistest.Start(t)), func(*redisalloc.Config) {}))
}

func TestDriverOnACluster(t *testing.T) {
	t.Parallel()
	addresses := redistest.Cluster(t)
	alloctest.Run(t, opener(client(t, addresses...), func(*redisalloc.Config) {}))
}

func TestDriverWaitsForReplicas(t *testing.T) {
	t.Parallel()
	primary := redistest.Start(t)
	redistest.Replica(t, primary)
	alloctest.Run(t, opener(client(t, primary), func(c *redisalloc.Config) { c.WaitReplicas, c.WaitTimeout = 1, 5*time.Second }))
}

// A charge that no replica has is not answered as granted.
func TestNoReplicaNoGrant(t *testing.T) {
	t.Parallel()
	open := opener(client(t, redistest.Start(t)), func(c *redisalloc.Config) { c.WaitReplicas, c.WaitTimeout = 1, time.Millisecond })
	got, err := open(t, nil).Charge(t.Context(), alloc.Batch{Charges: []alloc.Charge{alloc.ChargeOf(lease.Ask{
		Cells: []lease.CellAsk{{Policy: alloctest.Rate(t, 1, time.Second, 1, 1), Need: 1, Want: 1}},
	})}})
	if err != nil || !errors.Is(got[0].Err, redisalloc.ErrReplicas) || got[0].OK {
		t.Errorf("%+v %v", got, err)
	}
}

// A server that evicts keys is refused, with or without a bound of memory.
func TestEvictionIsRefused(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{"allkeys-lru", "volatile-ttl"} {
		_, err := redisalloc.New(t.Context(), redisalloc.Config{Client: client(t, redistest.Start(t, "--maxmemory-policy", policy))})
		if !errors.Is(err, redisalloc.ErrEvicts) {
			t.Errorf("%s: %v", policy, err)
		}
	}
}

// Scripts that a server has forgotten are sent again.
func TestForgottenScripts(t *testing.T) {
	t.Parallel()
	c := client(t, redistest.Start(t))
	driver := opener(c, func(*redisalloc.Config) {})(t, nil)
	ask := lease.Ask{Cells: []lease.CellAsk{{Policy: alloctest.Rate(t, 10, time.Hour, 10, 1), Need: 1, Want: 1}}}
	for i := range 3 {
		got, err := driver.Charge(t.Context(), alloc.Batch{Charges: []alloc.Charge{alloc.ChargeOf(ask), alloc.ChargeOf(ask)}})
		if err != nil || !got[0].OK || !got[1].OK {
			t.Fatalf("round %d: %+v %v", i, got, err)
		}
		if err := c.Do(t.Context(), c.B().ScriptFlush().Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
}

// A refused charge does not lengthen a key's life, and a cell outlives what it means.
func TestExpiry(t *testing.T) {
	t.Parallel()
	c := client(t, redistest.Start(t))
	driver := opener(c, func(*redisalloc.Config) {})(t, nil)
	ask := lease.Ask{Cells: []lease.CellAsk{{Policy: alloctest.Rate(t, 1, 10*time.Minute, 1, 1), Need: 1, Want: 1}}}
	var ends []int64
	for range 2 { // granted, and refused
		if _, err := driver.Charge(t.Context(), alloc.Batch{Charges: []alloc.Charge{alloc.ChargeOf(ask)}}); err != nil {
			t.Fatal(err)
		}
		keys, err := c.Do(t.Context(), c.B().Keys().Pattern("rowhouse:*").Build()).AsStrSlice()
		if err != nil || len(keys) != 1 {
			t.Fatal(keys, err)
		}
		end, err := c.Do(t.Context(), c.B().Pexpiretime().Key(keys[0]).Build()).AsInt64()
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, end)
	}
	if left := time.Until(time.UnixMilli(ends[0])); ends[0] != ends[1] || left < 10*time.Minute || left > 12*time.Minute {
		t.Errorf("the key ends in %v, and at %d after a refusal, before at %d", left, ends[1], ends[0])
	}
}
