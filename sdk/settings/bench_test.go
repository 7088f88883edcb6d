package settings_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// overrides is a tenant's document: 20 values, a third of them each true or false, a number and a short text.
func overrides(n int) string {
	b := []byte{'{'}
	for i := range 20 {
		if i > 0 {
			b = append(b, ',')
		}
		switch i % 3 {
		case 0:
			b = fmt.Appendf(b, `"feature_%02d":%t`, i, (n+i)%2 == 0)
		case 1:
			b = fmt.Appendf(b, `"limit_%02d":%d`, i, (n*31+i*17)%10_000)
		default:
			b = fmt.Appendf(b, `"label_%02d":"text %d"`, i, (n+i)%1000)
		}
	}
	return string(append(b, '}'))
}

// preset is what overrides sets, as a program would read it.
type preset struct {
	Feature0  bool    `json:"feature_00"`
	Limit1    float64 `json:"limit_01"`
	Label2    string  `json:"label_02"`
	Feature3  bool    `json:"feature_03"`
	Limit4    float64 `json:"limit_04"`
	Label5    string  `json:"label_05"`
	Feature6  bool    `json:"feature_06"`
	Limit7    float64 `json:"limit_07"`
	Label8    string  `json:"label_08"`
	Feature9  bool    `json:"feature_09"`
	Limit10   float64 `json:"limit_10"`
	Label11   string  `json:"label_11"`
	Feature12 bool    `json:"feature_12"`
	Limit13   float64 `json:"limit_13"`
	Label14   string  `json:"label_14"`
	Feature15 bool    `json:"feature_15"`
	Limit16   float64 `json:"limit_16"`
	Label17   string  `json:"label_17"`
	Feature18 bool    `json:"feature_18"`
	Limit19   float64 `json:"limit_19"`
}

// BenchmarkRead reads the settings of a thousand tenants in turn, each with a document of its own.
func BenchmarkRead(b *testing.B) {
	const tenants = 1000
	issuer := tenanttest.NewIssuer(b, nil)
	s := &settings.Store{Trust: issuer.Trust()}
	change := feed.Change{Reset: true, Entries: []feed.Entry{
		schemaEntry(b, "n", `{"properties":{"feature_00":{"default":true}}}`), docEntry(b, settings.PlatformKey("n"), overrides(-1), 1),
	}}
	in, texts, table := make([]context.Context, tenants), make(map[tenant.UID][]byte), make(map[tenant.UID]preset)
	for i := range in {
		name := fmt.Sprintf("tenant-%d", i)
		change.Entries = append(change.Entries, docEntry(b, settings.TenantKey("n", uidOf(name).String()), overrides(i), int64(i+2)))
		in[i] = issuer.In(b.Context(), b, name) //nolint:fatcontext // beside each other
	}
	apply(b, s, change)
	for i := range in {
		v, err := settings.For[preset](in[i], s, "n")
		if err != nil {
			b.Fatal(err)
		}
		uid := uidOf(fmt.Sprintf("tenant-%d", i))
		texts[uid], table[uid] = []byte(overrides(i)), v
	}
	uidIn := func(ctx context.Context) tenant.UID {
		tc, err := tenant.FromContext(ctx)
		if err != nil {
			b.Fatal(err)
		}
		return tc.UID()
	}
	order := rand.New(rand.NewPCG(1, 2)).Perm(tenants)
	b.Run("Ours", func(b *testing.B) {
		measured(b, func(i int) {
			if _, err := settings.For[preset](in[order[i%tenants]], s, "n"); err != nil {
				b.Fatal(err)
			}
		})
	})
	b.Run("Decode", func(b *testing.B) {
		measured(b, func(i int) {
			var v preset
			if err := json.Unmarshal(texts[uidIn(in[order[i%tenants]])], &v); err != nil {
				b.Fatal(err)
			}
		})
	})
	b.Run("LockedMap", func(b *testing.B) {
		var mu sync.RWMutex
		measured(b, func(i int) {
			uid := uidIn(in[order[i%tenants]])
			mu.RLock()
			v, ok := table[uid]
			mu.RUnlock()
			if !ok || v.Limit4 < 0 {
				b.Fatal("no such tenant")
			}
		})
	})
}

// measured reports CPU time, which other work on the machine disturbs less than the clock on the wall.
func measured(b *testing.B, read func(i int)) {
	b.Helper()
	b.ReportAllocs()
	i, start := 0, used(b)
	for b.Loop() {
		read(i)
		i++
	}
	b.ReportMetric(float64(used(b)-start)/float64(b.N), "cpu-ns/op")
}

// used is the CPU time of this process.
func used(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// many serves a snapshot of so many tenants, made while it is sent: the process must hold what its follower holds alone.
type many struct {
	configv1.UnimplementedSettingsServiceServer

	private ed25519.PrivateKey
	tenants int
	root    [32]byte
}

// uidAt is the uid of the n-th tenant, as random as those that tenancy makes.
func uidAt(n int) tenant.UID {
	var seed [32]byte
	seed[0], seed[1], seed[2] = byte(n), byte(n>>8), byte(n>>16)
	uid, err := tenant.NewUID(time.UnixMilli(int64(n)), rand.NewChaCha8(seed))
	if err != nil {
		panic(err)
	}
	return uid
}

func (s *many) WatchSettings(
	req *configv1.WatchSettingsRequest, stream grpc.ServerStreamingServer[configv1.WatchSettingsResponse],
) error {
	send := func(f *apiv1.FeedFrame) error { return stream.Send(&configv1.WatchSettingsResponse{Frame: f}) }
	if len(req.GetResumeToken()) > 0 { // to take the snapshot in took longer than the stream may be silent
		return s.mark(stream.Context(), send)
	}
	digest := feed.NewDigest()
	chunk := &apiv1.FeedChunk{Revision: 1}
	add := func(key string, e *configv1.SettingsEntry) {
		value, err := proto.Marshal(e)
		if err != nil {
			panic(err)
		}
		digest.Set(key, value)
		chunk.Entries = append(chunk.Entries, &apiv1.FeedEntry{Key: key, Value: value})
	}
	add(settings.NamespaceKey("n"), &configv1.SettingsEntry{Schema: `{}`})
	add(settings.PlatformKey("n"), &configv1.SettingsEntry{Content: overrides(-1), Revision: 1})
	for i := range s.tenants {
		add(settings.TenantKey("n", uidAt(i).String()), &configv1.SettingsEntry{Content: overrides(i), Revision: int64(i)})
		if len(chunk.GetEntries()) < 1000 && i < s.tenants-1 {
			continue
		}
		chunk.Last = i == s.tenants-1
		if err := send(&apiv1.FeedFrame{Kind: &apiv1.FeedFrame_Chunk{Chunk: chunk}}); err != nil {
			return err
		}
		chunk = &apiv1.FeedChunk{Revision: 1, Index: chunk.GetIndex() + 1}
	}
	s.root = digest.Root()
	return s.mark(stream.Context(), send)
}

// mark sends bookmarks. The publisher's own state is not to be counted: the root is all that is left of it.
func (s *many) mark(ctx context.Context, send func(*apiv1.FeedFrame) error) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		bookmark := &apiv1.FeedBookmark{Revision: 1, Root: s.root[:], ServerTime: timestamppb.Now(), ResumeToken: "x"}
		feed.Sign(s.private, settings.FeedName, bookmark)
		if err := send(&apiv1.FeedFrame{Kind: &apiv1.FeedFrame_Bookmark{Bookmark: bookmark}}); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// BenchmarkMemory counts what a follower holds for each of 100,000 tenants with 20 overrides, more of them read than
// what was read is kept of: the feed's state, its digest, the store and what it keeps of reads. The peer holds nothing but parsed documents.
// Run it once: -benchtime=1x.
func BenchmarkMemory(b *testing.B) {
	const tenants, read = 100_000, 20_000
	b.Run("Ours", func(b *testing.B) {
		before := held()
		began := time.Now()
		store, f := follow(b, tenants)
		b.ReportMetric(time.Since(began).Seconds(), "s-load")
		for i := range read {
			v, err := settings.Read(store, settings.Reader{UID: uidAt(i), Plan: "p", Region: "r"}, "n", asPreset)
			if err != nil || v.Limit1 != float64((i*31+17)%10_000) {
				b.Fatalf("tenant %d reads %v, %v", i, v.Limit1, err)
			}
		}
		b.ReportMetric(float64(held()-before)/tenants, "B/tenant")
		runtime.KeepAlive(store)
		runtime.KeepAlive(f)
	})
	b.Run("Maps", func(b *testing.B) {
		before := held()
		all := make(map[tenant.UID]settings.Object)
		for i := range tenants {
			o, err := settings.Parse([]byte(overrides(i)))
			if err != nil {
				b.Fatal(err)
			}
			all[uidAt(i)] = o
		}
		b.ReportMetric(float64(held()-before)/tenants, "B/tenant")
		runtime.KeepAlive(all)
	})
}

func asPreset(e settings.Effective) (v preset, err error) {
	return v, json.Unmarshal(settings.Canonical(e.Object), &v)
}

// held is the heap that is reachable.
func held() int64 {
	runtime.GC()
	runtime.GC() // what pools hold takes two
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// follow follows a service of so many tenants until the benchmark ends. The stream is open, as in life.
func follow(b *testing.B, tenants int) (*settings.Store, *feed.Feed) {
	b.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		b.Fatal(err)
	}
	listen, server := bufconn.Listen(1<<20), grpc.NewServer()
	configv1.RegisterSettingsServiceServer(server, &many{private: private, tenants: tenants})
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listen) }()
	conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listen.DialContext(ctx) }))
	if err != nil {
		b.Fatal(err)
	}
	store := &settings.Store{Trust: tenant.NewTrust(time.Now)}
	f, err := settings.Follow(b.Context(), settings.FollowConfig{
		Config: conn, FeedKeys: []ed25519.PublicKey{public}, Replica: "r", Store: store, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		f.Close()
		_ = conn.Close()
		server.Stop()
		<-served
	})
	<-f.Ready()
	return store, f
}

// TestBenchmarksRead keeps the comparison honest and compiled: each way of reading gives the same.
func TestBenchmarksRead(t *testing.T) {
	t.Parallel()
	var s settings.Store
	apply(t, &s, feed.Change{Reset: true, Entries: []feed.Entry{
		schemaEntry(t, "n", `{}`), docEntry(t, settings.TenantKey("n", uidOf("acme").String()), overrides(7), 1),
	}})
	got, err := settings.Read(&s, settings.Reader{UID: uidOf("acme")}, "n", asPreset)
	var want preset
	if err := json.Unmarshal([]byte(overrides(7)), &want); err != nil {
		t.Fatal(err)
	}
	if err != nil || got != want || got.Label17 == "" || got.Limit19 == 0 {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
}
