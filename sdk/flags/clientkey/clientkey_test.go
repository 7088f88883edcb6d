package clientkey_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/clientkey"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

func TestNew(t *testing.T) {
	t.Parallel()
	key, digest, err := clientkey.New(bytes.NewReader(make([]byte, 32)))
	if err != nil || key != "rhc_"+strings.Repeat("A", 43) || digest != sha256.Sum256([]byte(key)) {
		t.Errorf("%s %x %v", key, digest, err)
	}
	if got, ok := clientkey.DigestOf(key); !ok || got != digest {
		t.Errorf("read back: %x %v", got, ok)
	}
	for _, text := range []string{"", "rhc_", key[1:], key + "A", "xhc_" + key[4:], key[:len(key)-1]} {
		if _, ok := clientkey.DigestOf(text); ok {
			t.Errorf("%q looks like a key", text)
		}
	}
	if _, _, err := clientkey.New(strings.NewReader("short")); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("without randomness: %v", err)
	}
}

// entry is a sound entry of the feed, after edits.
func entry(tb testing.TB, edit func(*configv1.ClientKeyEntry)) (clientkey.Digest, feed.Entry) {
	tb.Helper()
	_, digest, err := clientkey.New(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	uid := tenanttest.UID("acme")
	e := &configv1.ClientKeyEntry{
		Id: "k1", TenantUid: uid[:], Kind: configv1.ClientKeyKind_CLIENT_KEY_KIND_BROWSER, Environment: "test", Origins: []string{"https://a.example"},
	}
	edit(e)
	b, err := proto.Marshal(e)
	if err != nil {
		tb.Fatal(err)
	}
	return digest, feed.Entry{Key: clientkey.FeedKey(digest), Value: b}
}

func TestStoreTakesRevisionsWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	s, now := new(clientkey.Store), time.Now()
	if s.Loaded() {
		t.Error("an empty store is loaded")
	}
	digest, good := entry(t, func(*configv1.ClientKeyEntry) {})
	for what, edit := range map[string]func(*configv1.ClientKeyEntry){
		"no tenant":    func(e *configv1.ClientKeyEntry) { e.TenantUid = nil },
		"zero tenant":  func(e *configv1.ClientKeyEntry) { e.TenantUid = make([]byte, 16) },
		"short tenant": func(e *configv1.ClientKeyEntry) { e.TenantUid = e.GetTenantUid()[:15] },
		"no kind":      func(e *configv1.ClientKeyEntry) { e.Kind = 0 },
		"another kind": func(e *configv1.ClientKeyEntry) { e.Kind = 77 },
		"no id":        func(e *configv1.ClientKeyEntry) { e.Id = "" },
	} {
		_, bad := entry(t, edit)
		if err := s.Apply(feed.Change{Entries: []feed.Entry{good, bad}}); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
	for _, key := range []string{"", "key/", "key/zz", "x/" + good.Key, good.Key + "00"} {
		if err := s.Apply(feed.Change{Entries: []feed.Entry{{Key: key, Value: good.Value}}}); err == nil {
			t.Errorf("the feed's key %q is taken", key)
		}
	}
	if s.Find(digest, now) != nil || s.Loaded() {
		t.Fatal("half a revision was taken")
	}
	if err := s.Apply(feed.Change{Entries: []feed.Entry{good}}); err != nil {
		t.Fatal(err)
	}
	uid := tenanttest.UID("acme")
	k := s.Find(digest, now)
	if k == nil || s.Named(uid, "k1", now) != k || s.Named(tenanttest.UID("globex"), "k1", now) != nil || !s.Listed(uid, "https://a.example") ||
		s.Listed(uid, "https://b.example") || s.Listed(tenanttest.UID("globex"), "https://a.example") {
		t.Errorf("known: %+v", k)
	}
	if err := s.Apply(feed.Change{Reset: true}); err != nil {
		t.Fatal(err)
	}
	if s.Find(digest, now) != nil || s.Named(uid, "k1", now) != nil || !s.Loaded() {
		t.Error("a new state kept an old key")
	}
}

// An origin is listed as long as any key of the tenant lists it, and by no key that went.
func TestOriginsFollowKeys(t *testing.T) {
	t.Parallel()
	s, uid := new(clientkey.Store), tenanttest.UID("acme")
	list := func(id string, origins ...string) func(*configv1.ClientKeyEntry) {
		return func(e *configv1.ClientKeyEntry) { e.Id, e.Origins = id, origins }
	}
	_, first := entry(t, list("k1", "https://a.example", "https://b.example"))
	_, second := entry(t, list("k2", "https://b.example"))
	_, server := entry(t, func(e *configv1.ClientKeyEntry) {
		e.Id, e.Kind, e.Origins = "k3", configv1.ClientKeyKind_CLIENT_KEY_KIND_SERVER, []string{"https://c.example"}
	})
	_, narrowed := entry(t, list("k1", "https://b.example"))
	narrowed.Key = first.Key
	gone := func(e feed.Entry) feed.Entry { return feed.Entry{Key: e.Key, Deleted: true} }
	for i, step := range []struct {
		change feed.Change
		listed [3]bool
	}{
		{feed.Change{Entries: []feed.Entry{first, second, server}}, [3]bool{true, true, false}},
		{feed.Change{Entries: []feed.Entry{first}}, [3]bool{true, true, false}}, // the same again
		{feed.Change{Entries: []feed.Entry{narrowed}}, [3]bool{false, true, false}},
		{feed.Change{Entries: []feed.Entry{gone(narrowed), gone(server)}}, [3]bool{false, true, false}},
		{feed.Change{Entries: []feed.Entry{gone(second)}}, [3]bool{}},
		{feed.Change{Entries: []feed.Entry{first}}, [3]bool{true, true, false}},
		{feed.Change{Reset: true, Entries: []feed.Entry{second}}, [3]bool{false, true, false}},
	} {
		if err := s.Apply(step.change); err != nil {
			t.Fatal(err)
		}
		for j, origin := range []string{"https://a.example", "https://b.example", "https://c.example"} {
			if got := s.Listed(uid, origin); got != step.listed[j] {
				t.Errorf("step %d: %s is listed: %t", i, origin, got)
			}
		}
	}
}

// BenchmarkListed is what a page's request pays among 200,000 keys.
func BenchmarkListed(b *testing.B) {
	s := new(clientkey.Store)
	change := feed.Change{Reset: true}
	for i := range 200_000 {
		uid := tenanttest.UID(strconv.Itoa(i / 2))
		_, e := entry(b, func(e *configv1.ClientKeyEntry) { e.Id, e.TenantUid = strconv.Itoa(i), uid[:] })
		change.Entries = append(change.Entries, e)
	}
	if err := s.Apply(change); err != nil {
		b.Fatal(err)
	}
	uid := tenanttest.UID("7")
	for b.Loop() {
		if s.Listed(uid, "https://b.example") {
			b.Fatal("listed")
		}
	}
}
