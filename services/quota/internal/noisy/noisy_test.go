package noisy_test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/noisy"
)

const (
	gateway = "spiffe://rowhouse.test/cell/cell-1/service/gateway"
	notes   = "spiffe://rowhouse.test/cell/cell-1/app/notes"
)

func uid(n int) tenant.UID { return tenant.UID{byte(n)} }

// window has as many tenants with the same weight, of which the first is loud.
func window(t *testing.T, tenants int, loud noisy.Tenant, lines ...noisy.Line) noisy.Window {
	t.Helper()
	w := noisy.Window{Length: 5 * time.Minute, Totals: map[noisy.Source]int64{}, Tenants: map[tenant.UID]noisy.Tenant{}}
	for i := range tenants {
		id, err := tenant.ParseID(fmt.Sprintf("tenant-%c", 'a'+i))
		if err != nil {
			t.Fatal(err)
		}
		w.Tenants[uid(i)] = noisy.Tenant{ID: id, Plan: "free", Model: tenant.ModelShared, Weight: 100}
	}
	loud.ID = w.Tenants[uid(0)].ID
	if loud.Weight == 0 {
		loud.Weight = 100
	}
	w.Tenants[uid(0)] = loud
	w.Lines = lines
	for _, l := range lines {
		w.Totals[noisy.Source{Reporter: l.Reporter, Resource: l.Resource}] += l.Amount
	}
	return w
}

// took are lines of a resource, tenant by tenant.
func took(reporter string, of noisy.Resource, amounts ...int64) (lines []noisy.Line) {
	for i, n := range amounts {
		lines = append(lines, noisy.Line{Tenant: uid(i), Reporter: reporter, Resource: of, Amount: n})
	}
	return lines
}

func TestAdvice(t *testing.T) {
	t.Parallel()
	busy := append(took(gateway, noisy.InFlight, 9000, 100, 100, 100), took(gateway, noisy.Requests, 3000, 100, 100, 100)...)
	delayed := took(gateway, noisy.Delay, 5_000_000)
	for name, tc := range map[string]struct {
		loud  noisy.Tenant
		lines []noisy.Line
		want  noisy.Action
		says  []string
		does  string
	}{
		"within its share":  {noisy.Tenant{}, took(gateway, noisy.InFlight, 110, 100, 100, 100), noisy.Nothing, []string{"within its share"}, ""},
		"alone":             {noisy.Tenant{}, took(gateway, noisy.InFlight, 5000), noisy.Nothing, []string{"within its share", "100 %"}, ""},
		"nobody waits":      {noisy.Tenant{}, busy, noisy.Nothing, []string{"nobody's way"}, ""},
		"no limit":          {noisy.Tenant{}, append(delayed, busy...), noisy.Limit, []string{"97 %", "25.0 %", "3.9 times", "waited 5s", "no limit"}, "rowhouse limits set tenant-a requests --tokens 5 --period 1s"},
		"a limit too high":  {noisy.Tenant{Limited: true}, append(delayed, busy...), noisy.Limit, []string{"higher than"}, "rowhouse limits set tenant-a requests --tokens 5 --period 1s"},
		"pressing":          {noisy.Tenant{Limited: true}, append(took(gateway, noisy.Refusals, 500), append(delayed, busy...)...), noisy.Plan, []string{"more weight"}, ""},
		"a heavier plan":    {noisy.Tenant{Weight: 1000}, append(took(gateway, noisy.Delay, 10), took(gateway, noisy.InFlight, 600, 100, 100, 100)...), noisy.Nothing, []string{"within its share"}, ""},
		"tables":            {noisy.Tenant{Model: tenant.ModelShared}, took(notes, noisy.DBTime, 200, 150, 100, 10), noisy.Nothing, nil, ""},
		"tables of all":     {noisy.Tenant{Model: tenant.ModelShared}, took(notes, noisy.DBTime, 900, 100, 100, 10), noisy.MoveToSchema, []string{"database time", "app/notes", "schema of its own"}, ""},
		"far more than all": {noisy.Tenant{Model: tenant.ModelShared, Weight: 5}, took(notes, noisy.DBRows, 90000, 100, 100, 10), noisy.MoveToDatabase, []string{"rows", "database of its own"}, ""},
		"a schema":          {noisy.Tenant{Model: tenant.ModelSchema}, took(notes, noisy.DBTime, 900, 100, 100, 10), noisy.MoveToDatabase, []string{"database of its own"}, ""},
		"a database":        {noisy.Tenant{Model: tenant.ModelDatabase}, took(notes, noisy.DBTime, 900, 100, 100, 10), noisy.Limit, []string{"no limit"}, ""},
	} {
		ranked := noisy.Rank(window(t, 4, tc.loud, tc.lines...))
		at := slices.IndexFunc(ranked, func(r noisy.Ranked) bool { return r.UID == uid(0) })
		if at < 0 || tc.want != noisy.Nothing && at > 0 {
			t.Errorf("%s: %+v", name, ranked)
			continue
		}
		a := ranked[at].Advice
		if a.Action != tc.want || a.Command != tc.does {
			t.Errorf("%s: %+v, want %d and %q", name, a, tc.want, tc.does)
		}
		for _, says := range tc.says {
			if !strings.Contains(a.Reason, says) {
				t.Errorf("%s: %q does not say %q", name, a.Reason, says)
			}
		}
	}
}

// What may be another tenant's convicts nobody.
func TestErrorsConvictNobody(t *testing.T) {
	t.Parallel()
	lines := append(took(notes, noisy.DBTime, 1000, 100, 100, 100), took(gateway, noisy.Delay, 10)...)
	lines[0].Uncertain = 900
	ranked := noisy.Rank(window(t, 4, noisy.Tenant{Model: tenant.ModelShared}, lines...))
	for _, r := range ranked {
		if r.UID == uid(0) && r.Advice.Action != noisy.Nothing {
			t.Errorf("%+v", r.Advice)
		}
	}
}

// A reporter that says what it likes distorts its own lines and nobody else's.
func TestReportersAreApart(t *testing.T) {
	t.Parallel()
	honest := took(notes, noisy.DBTime, 900, 100, 100)
	liar := took("spiffe://rowhouse.test/cell/cell-1/app/liar", noisy.DBTime, 0, 1<<49, 1)
	before := noisy.Rank(window(t, 3, noisy.Tenant{Model: tenant.ModelShared}, honest...))
	after := noisy.Rank(window(t, 3, noisy.Tenant{Model: tenant.ModelShared}, append(liar, honest...)...))
	of := func(ranked []noisy.Ranked) noisy.Use {
		for _, r := range ranked {
			for _, u := range r.Uses {
				if r.UID == uid(0) && u.Reporter == notes {
					return u
				}
			}
		}
		t.Fatal("it is not there")
		return noisy.Use{}
	}
	if of(before) != of(after) {
		t.Errorf("%+v became %+v", of(before), of(after))
	}
}

func TestTrend(t *testing.T) {
	t.Parallel()
	lines := took(gateway, noisy.Requests, 30, 10)
	lines[0].Before = 10
	ranked := noisy.Rank(window(t, 2, noisy.Tenant{}, lines...))
	if ranked[0].Uses[0].Trend != 3 || ranked[1].Uses[0].Trend != 0 {
		t.Errorf("%+v", ranked)
	}
}

// Shares are parts of one whole, ratios their quotients, and the order is that of what was taken beyond the share.
func TestRankProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := noisy.Window{Length: time.Minute, Totals: map[noisy.Source]int64{}, Tenants: map[tenant.UID]noisy.Tenant{}}
		for i := range rapid.IntRange(0, 6).Draw(t, "tenants") {
			w.Tenants[uid(i)] = noisy.Tenant{Weight: rapid.Int64Range(1, 1000).Draw(t, "weight"), Model: tenant.ModelShared}
			for of := noisy.Requests; of <= noisy.DBRows; of++ {
				n := rapid.Int64Range(0, 1<<50).Draw(t, "amount")
				w.Lines = append(w.Lines, noisy.Line{Tenant: uid(i), Reporter: notes, Resource: of, Amount: n, Uncertain: rapid.Int64Range(0, n).Draw(t, "error")})
				w.Totals[noisy.Source{Reporter: notes, Resource: of}] += n
			}
		}
		w.Lines = append(w.Lines, noisy.Line{Tenant: uid(77), Reporter: notes, Resource: noisy.Requests, Amount: 1 << 49}) // gone since
		costs, weights := map[noisy.Resource]float64{}, map[noisy.Resource]float64{}
		ranked := noisy.Rank(w)
		for _, r := range ranked {
			for _, u := range r.Uses {
				costs[u.Resource] += u.ShareOfCost
				weights[u.Resource] += u.ShareOfWeight
				if math.Abs(u.Ratio*u.ShareOfWeight-u.ShareOfCost) > 1e-9 || u.Amount == 0 {
					t.Fatalf("%+v", u)
				}
			}
			if r.Advice.Action == 0 || r.Advice.Reason == "" || r.UID == uid(77) {
				t.Fatalf("%+v", r)
			}
		}
		for of, sum := range costs {
			if math.Abs(sum-1) > 1e-6 || math.Abs(weights[of]-1) > 1e-6 {
				t.Fatalf("%d: the shares add up to %f and %f", of, sum, weights[of])
			}
		}
	})
}
