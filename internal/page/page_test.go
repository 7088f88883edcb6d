package page_test

import (
	"crypto/rand"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/rowhouse-platform/rowhouse/internal/page"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

func newKey() []byte {
	key := make([]byte, page.KeySize)
	_, _ = rand.Read(key) // never fails
	return key
}

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestSizes(t *testing.T) {
	t.Parallel()
	for asked, want := range map[int32]int{0: 50, 1: 1, 1000: 1000, 1001: 1000, 1 << 30: 1000} {
		p, err := page.Open(newKey(), start, page.Query{Size: asked})
		if err != nil || p.Size != want || p.Limit() != want+1 {
			t.Errorf("size %d: %d, limit %d, %v; want %d", asked, p.Size, p.Limit(), err, want)
		}
	}
	if _, err := page.Open(newKey(), start, page.Query{Size: -1}); fault.ReasonOf(err) != fault.ReasonInvalidField {
		t.Errorf("negative size: %v", err)
	}
	if _, err := page.Open(make([]byte, 16), start, page.Query{}); err == nil {
		t.Error("a short key was taken")
	}
}

func TestTokenOpensForItsQueryOnly(t *testing.T) {
	t.Parallel()
	key := newKey()
	q := page.Query{Method: "/s/List", Parent: "tenants/a", Filter: "x=1", Order: "name"}
	first, err := page.Open(key, start, q)
	if err != nil {
		t.Fatal(err)
	}
	q.Token, err = first.Next("k", "ü\x00")
	if err != nil {
		t.Fatal(err)
	}
	second, err := page.Open(key, start.Add(24*time.Hour-time.Second), q)
	if err != nil || !slices.Equal(second.After, []string{"k", "ü\x00"}) {
		t.Fatalf("after = %q, %v", second.After, err)
	}
	if strings.Contains(q.Token, "k") && len(q.Token) < 20 {
		t.Error("the token shows its key")
	}
	refused := func(name string, key []byte, at time.Time, q page.Query) {
		t.Helper()
		if _, err := page.Open(key, at, q); fault.ReasonOf(err) != fault.ReasonPageTokenInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	refused("expired", key, start.Add(24*time.Hour), q)
	refused("other key", newKey(), start, q)
	for i, change := range []func(*page.Query){
		func(q *page.Query) { q.Method = "/s/Other" },
		func(q *page.Query) { q.Parent = "tenants/b" },
		func(q *page.Query) { q.Filter = "x=2" },
		func(q *page.Query) { q.Order = "time" },
		func(q *page.Query) { q.Parent, q.Filter = "tenants/ax", "=1" },
		func(q *page.Query) { q.Token += "AAAA" },
		func(q *page.Query) { q.Token = q.Token[:8] },
		func(q *page.Query) { q.Token = "*" },
	} {
		other := q
		change(&other)
		refused("change "+strconv.Itoa(i), key, start, other)
	}
	for i := range q.Token {
		other := q
		flipped := []byte(q.Token)
		flipped[i] ^= 1
		other.Token = string(flipped)
		refused("flipped byte "+strconv.Itoa(i), key, start, other)
	}
}

// pages lists all rows page by page and returns how many each held.
func pages(t *testing.T, all []*wrapperspb.StringValue, asked int32) (sizes []int) {
	t.Helper()
	key := newKey()
	at := make(map[*wrapperspb.StringValue]int)
	for i, row := range all {
		at[row] = i
	}
	keyOf := func(row *wrapperspb.StringValue) []string { return []string{strconv.Itoa(at[row] + 1)} }
	q := page.Query{Method: "/s/List", Size: asked}
	for seen := 0; ; {
		p, err := page.Open(key, start, q)
		if err != nil {
			t.Fatal(err)
		}
		from := 0
		if p.After != nil {
			if from, err = strconv.Atoi(p.After[0]); err != nil {
				t.Fatal(err)
			}
		}
		rows, token, err := page.Cut(p, all[from:min(from+p.Limit(), len(all))], keyOf)
		if err != nil || from != seen {
			t.Fatalf("page %d begins at %d, want %d: %v", len(sizes), from, seen, err)
		}
		seen += len(rows)
		sizes = append(sizes, len(rows))
		if q.Token = token; token == "" {
			if seen != len(all) {
				t.Errorf("%d of %d rows seen", seen, len(all))
			}
			return sizes
		}
	}
}

func TestCut(t *testing.T) {
	t.Parallel()
	rows := func(sizes ...int) (all []*wrapperspb.StringValue) {
		for _, n := range sizes {
			all = append(all, wrapperspb.String(strings.Repeat("x", n)))
		}
		return all
	}
	const half = page.MaxBytes/2 - 100
	for _, tt := range []struct {
		name  string
		all   []*wrapperspb.StringValue
		asked int32
		want  []int
	}{
		{"none", nil, 2, []int{0}},
		{"by number", rows(1, 1, 1, 1, 1), 2, []int{2, 2, 1}},
		{"whole pages", rows(1, 1, 1, 1), 2, []int{2, 2}},
		{"by size", rows(half, half, half, 1, half), 1000, []int{2, 3}},
		{"larger than a page", rows(page.MaxBytes, 1, page.MaxBytes+1), 1000, []int{1, 1, 1}},
	} {
		if got := pages(t, tt.all, tt.asked); !slices.Equal(got, tt.want) {
			t.Errorf("%s: pages of %v, want %v", tt.name, got, tt.want)
		}
	}
}
