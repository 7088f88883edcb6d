package registry_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/registry"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func compareTenants() cmp.Option { return cmp.AllowUnexported(tenant.ID{}) }

// TestLifecycle walks random events beside a model that keeps nothing but sets.
func TestLifecycle(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		got := registry.Tenant{State: registry.StateCreating, Generation: 1, DeleteProtection: rapid.Bool().Draw(t, "protected")}
		causes, deleted, created, failed := map[registry.Cause]bool{}, false, false, false
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			event := drawEvent(t)
			before := got
			next, effects, err := registry.Next(got, event)
			if diff := cmp.Diff(before, got, compareTenants()); diff != "" {
				t.Fatalf("%T changed its argument:\n%s", event, diff)
			}
			live := created && !deleted && !failed
			var allowed bool
			switch e := event.(type) {
			case registry.Activated:
				allowed = !created && !failed
				created = created || allowed
			case registry.Failed:
				allowed = !created && !failed
				failed = failed || allowed
			case registry.Suspend:
				allowed = live
				if allowed {
					causes[e.Cause] = true
				}
			case registry.Resume:
				allowed = live && causes[e.Cause]
				if allowed {
					delete(causes, e.Cause)
				}
			case registry.Delete:
				allowed = live && !got.DeleteProtection || failed
				deleted = deleted || allowed && live
			case registry.Undelete:
				allowed = deleted
				deleted = deleted && !allowed
			}
			if allowed != (err == nil) {
				t.Fatalf("%T in %s: %v, but the model says %v", event, got.State, err, allowed)
			}
			if err != nil && effects != (registry.Effects{}) {
				t.Fatalf("%T was refused with effects %+v", event, effects)
			}
			if effects.Remove {
				return
			}
			check(t, before, next, effects)
			if want := expect(created, failed, deleted, causes); next.State != want {
				t.Fatalf("%T: state %s, want %s", event, next.State, want)
			}
			for c := registry.CauseBilling; c <= registry.CauseOperator; c++ {
				if next.Suspended(c) != causes[c] {
					t.Fatalf("%T: cause %s in force is %v", event, c, next.Suspended(c))
				}
			}
			got = next
		}
	})
}

func drawEvent(t *rapid.T) registry.Event {
	cause := registry.Cause(rapid.Int32Range(1, 4).Draw(t, "cause"))
	switch rapid.IntRange(0, 6).Draw(t, "event") {
	case 0:
		return registry.Failed{}
	case 1, 2:
		return registry.Activated{}
	case 3:
		return registry.Suspend{Suspension: registry.Suspension{Cause: cause, Actor: "a", Time: now}}
	case 4:
		return registry.Resume{Cause: cause}
	case 5:
		return registry.Delete{Time: now, Retention: time.Hour}
	default:
		return registry.Undelete{}
	}
}

func expect(created, failed, deleted bool, causes map[registry.Cause]bool) registry.State {
	switch {
	case failed:
		return registry.StateFailed
	case !created:
		return registry.StateCreating
	case deleted:
		return registry.StateDeleted
	case len(causes) > 0:
		return registry.StateSuspended
	default:
		return registry.StateActive
	}
}

// check holds what is true of every step.
func check(t *rapid.T, before, after registry.Tenant, effects registry.Effects) {
	if after.Generation < before.Generation || after.Generation > before.Generation+1 {
		t.Fatalf("generation went from %d to %d", before.Generation, after.Generation)
	}
	if before.State.Served() && before.State != after.State && after.Generation == before.Generation {
		t.Fatalf("%s to %s without a new generation", before.State, after.State)
	}
	if before.CellState() != after.CellState() && !effects.WriteCells {
		t.Fatalf("%s to %s: the cells are not told", before.State, after.State)
	}
	if cmp.Equal(before, after, compareTenants()) == effects.Changed {
		t.Fatalf("changed is %v, before %+v after %+v", effects.Changed, before, after)
	}
	if (after.State == registry.StateDeleted) == after.PurgeTime.IsZero() {
		t.Fatalf("%s with purge time %v", after.State, after.PurgeTime)
	}
	if (after.State == registry.StateSuspended) && len(after.Suspensions) == 0 {
		t.Fatal("suspended without a cause")
	}
}

func TestReasons(t *testing.T) {
	t.Parallel()
	active := registry.Tenant{State: registry.StateActive}
	protected := registry.Tenant{State: registry.StateActive, DeleteProtection: true}
	for _, c := range []struct {
		tenant registry.Tenant
		event  registry.Event
		reason string
	}{
		{active, registry.Undelete{}, "NOT_DELETED"},
		{registry.Tenant{State: registry.StateDeleted, PurgeTime: now}, registry.Undelete{Time: now}, "WRONG_STATE"},
		{active, registry.Resume{Cause: registry.CauseAbuse}, "WRONG_STATE"},
		{active, registry.Activated{}, "WRONG_STATE"},
		{protected, registry.Delete{}, "DELETE_PROTECTED"},
		{registry.Tenant{State: registry.StateCreating}, registry.Delete{}, "WRONG_STATE"},
		{registry.Tenant{State: registry.StateDeleted}, registry.Suspend{}, "WRONG_STATE"},
	} {
		if _, _, err := registry.Next(c.tenant, c.event); fault.ReasonOf(err) != c.reason {
			t.Errorf("%T in %s: %v, want %s", c.event, c.tenant.State, err, c.reason)
		}
	}
}

func TestParseID(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{
		"acme": "", "a1-b2": "", "abc": "", strings.Repeat("a", 63): "",
		"ab": "INVALID_FIELD", "": "INVALID_FIELD", "Acme": "INVALID_FIELD", "a--b": "INVALID_FIELD", "1ab": "INVALID_FIELD",
		"xn--abc": "INVALID_FIELD", "a_b": "INVALID_FIELD", "acme-": "INVALID_FIELD", strings.Repeat("a", 64): "INVALID_FIELD",
		"www": "TENANT_ID_RESERVED", "api": "TENANT_ID_RESERVED", "mta-sts": "TENANT_ID_RESERVED",
	} {
		if _, err := registry.ParseID(id); fault.ReasonOf(err) != want {
			t.Errorf("ParseID(%q) = %v, want %q", id, err, want)
		}
	}
}

func TestClaim(t *testing.T) {
	t.Parallel()
	zones, err := registry.ParseZones([]string{"localhost", "rowhouse.example", "edge.rowhouse.com"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"notes.acme.localhost": "vouched", "acme.rowhouse.example": "vouched", "Acme.Rowhouse.Example.": "vouched",
		"notes.acme.com": "notes.acme.com", "bücher.de": "xn--bcher-kva.de", "acme.co.uk": "acme.co.uk",
		"localhost": "platform_zone", "rowhouse.example": "platform_zone", "rowhouse.com": "platform_zone",
		"www.localhost": "reserved", "a.www.localhost": "reserved", "acme.api.rowhouse.example": "reserved",
		"com": "single_label", "co.uk": "public_suffix", "github.io": "public_suffix", "a.example": "special_use",
		"a.internal": "special_use", "1.0.0.127.in-addr.arpa": "special_use", "x.onion": "special_use",
		"127.0.0.1": "address", "a_b.com": "character", "a..com": "label", "a.com:80": "port", "": "empty",
		"*.acme.com": "character", "[::1]": "address", strings.Repeat("a.", 127) + "com": "length",
	} {
		host, vouched, err := zones.Claim(name)
		got := host.String()
		if vouched {
			got = "vouched"
		}
		if f, ok := fault.As(err); ok {
			got = f.Metadata["rule"]
			if f.Reason != registry.ReasonDomainInvalid || f.Domain != registry.Domain || !host.IsZero() || len(f.Fields) != 1 {
				t.Errorf("Claim(%q) = %q, %+v", name, host, f)
			}
		}
		if got != want {
			t.Errorf("Claim(%q) = %q, want %q", name, got, want)
		}
	}
	for _, bad := range [][]string{{"a b"}, {"a.com", "A.com."}, {""}} {
		if _, err := registry.ParseZones(bad); err == nil {
			t.Errorf("zones %q were accepted", bad)
		}
	}
}

func TestPlace(t *testing.T) {
	t.Parallel()
	shared := []tenant.Model{tenant.ModelShared}
	cells := []registry.Cell{
		{ID: "full", Open: true, Models: shared, Capacity: 5, Used: 5},
		{ID: "closed", Models: shared, Capacity: 5},
		{ID: "database", Open: true, Models: []tenant.Model{tenant.ModelDatabase}, Capacity: 5},
		{ID: "busy", Open: true, Models: shared, Capacity: 10, Used: 9},
		{ID: "free", Open: true, Models: shared, Capacity: 10, Used: 1},
	}
	pickBoth := func() func(int) int {
		n := 0
		return func(size int) int { n++; return (n - 1) % size }
	}
	got, err := registry.Place(cells, tenant.ModelShared, registry.Wish{}, pickBoth())
	if err != nil || ids(got) != "free busy" {
		t.Errorf("Place = %v, %v", ids(got), err)
	}
	got, err = registry.Place(cells, tenant.ModelShared, registry.Wish{Cell: "busy"}, pickBoth())
	if err != nil || ids(got) != "busy" {
		t.Errorf("Place at a wish = %v, %v", ids(got), err)
	}
	_, err = registry.Place(cells[:3], tenant.ModelShared, registry.Wish{}, pickBoth())
	f, _ := fault.As(err)
	want := map[string]string{"full": "1", "closed": "1", "model": "1", "other": "0"}
	if f == nil || f.Reason != registry.ReasonNoCellCapacity || !cmp.Equal(f.Metadata, want) {
		t.Errorf("Place without room = %+v", f)
	}
	_, err = registry.Place(cells, tenant.ModelShared, registry.Wish{Cell: "database"}, pickBoth())
	if fault.ReasonOf(err) != registry.ReasonModelNotAllowed {
		t.Errorf("a cell of another model: %v", err)
	}
	plan := registry.PlanModels{Allowed: shared, Default: tenant.ModelShared}
	if m, err := registry.ModelFor(registry.Wish{}, plan); m != tenant.ModelShared || err != nil {
		t.Errorf("ModelFor = %v, %v", m, err)
	}
	if _, err := registry.ModelFor(registry.Wish{Model: tenant.ModelSchema}, plan); fault.ReasonOf(err) != registry.ReasonModelNotAllowed {
		t.Errorf("a model that the plan does not allow: %v", err)
	}
}

func ids(cells []registry.Cell) string {
	var b []string
	for _, c := range cells {
		b = append(b, c.ID)
	}
	return strings.Join(b, " ")
}

func TestNames(t *testing.T) {
	t.Parallel()
	for s := registry.State(-1); s < 7; s++ {
		if fmt.Sprint(s) == "" {
			t.Errorf("state %d has no name", int(s))
		}
	}
	if registry.Cause(9).String() != "UNSPECIFIED" || registry.CauseAbuse.String() != "ABUSE" {
		t.Error("causes are named wrongly")
	}
}

// Whoever resumes a tenant that is not suspended for that cause is told what it is.
func TestResumeSaysWhatTheTenantIs(t *testing.T) {
	t.Parallel()
	suspended := registry.Tenant{State: registry.StateSuspended, Suspensions: []registry.Suspension{
		{Cause: registry.CauseBilling}, {Cause: registry.CauseSecurity},
	}}
	for want, tenant := range map[string]registry.Tenant{
		"the tenant is not suspended for ABUSE, but ACTIVE":                {State: registry.StateActive},
		"the tenant is not suspended for ABUSE, but for BILLING, SECURITY": suspended,
	} {
		if _, _, err := registry.Next(tenant, registry.Resume{Cause: registry.CauseAbuse}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}
