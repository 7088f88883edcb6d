package config_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// parts are what poison is made of: tokens of JSON, and what readers of JSON are known to disagree about.
func parts() []string {
	return []string{
		`{`, `}`, `[`, `]`, `:`, `,`, `"`, `\`, `null`, `true`, `0`, `-0`, `1e400`, `1e-400`, `9007199254740993`, `0.1`, `" "`, `"page"`, `"a"`, `"name"`,
		`"light"`, `"primary"`, `"#0a3d62"`, `"logo"`, `"domains"`, `"flags"`, `"targeting"`, `"fractional"`, `"$ref"`, `"$unset"`, `"x-lock"`, `"\u0000"`,
		`"\ud800"`, `"__proto__"`, "\"\u202e\"", "\x00", "\xff", "\ufeff", `{"a":1,"a":2}`, `{"":{}}`, `{"~1/":0}`,
		strings.Repeat(`{"a":`, 70) + `1` + strings.Repeat(`}`, 70), `"` + strings.Repeat("x", 2000) + `"`, strings.Repeat("[", 5000),
	}
}

// poison draws a document: a sound one with a few parts put in, taken out or doubled, or parts alone.
func poison(r *rand.Rand) string {
	sound := []string{
		`{"page":3}`, `{"page":3,"theme":{"dark":true,"sizes":[1,2,3]}}`, `{"name":"Acme","light":{"primary":"#0a3d62"}}`,
		`{"flags":{"f":{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"on","targeting":{"if":[true,"on","off"]}}}}`, `{}`,
	}
	text := sound[r.IntN(len(sound))]
	for range r.IntN(4) {
		at := r.IntN(len(text) + 1)
		switch part := parts()[r.IntN(len(parts()))]; r.IntN(3) {
		case 0:
			text = text[:at] + part + text[at:]
		case 1:
			text = text[:at] + part + text[min(len(text), at+r.IntN(5)):]
		default:
			text = text[:at] + text[min(len(text), at+1+r.IntN(5)):]
		}
	}
	return text
}

// TestPoisonFromWriteToReader writes fuzzed documents of one tenant. What the service takes, every follower and the
// service itself read alike and without a panic; what it refuses changes nothing; other tenants never see any of it.
func TestPoisonFromWriteToReader(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	a, ctx := r.as("owner"), t.Context()
	r.namespace(a, "notes", notesSchema)
	r.namespace(a, "free", `{}`)
	known := families(t)
	store := &settings.Store{Trust: known}
	f := r.follow(t, store)
	namespaces := []string{"notes", "free", settings.BrandNamespace, settings.FlagsNamespace}
	namespaces = slices.DeleteFunc(namespaces, func(n string) bool {
		_, err := a.GetNamespace(ctx, &configv1.GetNamespaceRequest{Name: "namespaces/" + n})
		return err != nil
	})
	for _, n := range namespaces[:2] {
		r.set(a, "tenants/globex/config/"+n, `{"page":7}`)
	}
	reader := func(id string) settings.Reader {
		return settings.Reader{UID: tenanttest.UID(id), Plan: plans()[id], Region: tenanttest.Region}
	}
	in := func(id string) context.Context {
		return r.issuer.In(ctx, t, id, func(c *tenant.Claims) { c.Plan = plans()[id] })
	}
	others := func() string {
		var all strings.Builder
		for _, n := range namespaces {
			e, _ := store.Holds(reader("globex"), n)
			fmt.Fprintln(&all, n, e.Version)
		}
		return all.String()
	}
	eventually(t, "globex", func() bool { e, _ := store.Holds(reader("globex"), "free"); return e.Object["page"] == 7.0 })
	before := others()
	data := apiOf(r.gateway())
	seed := rand.NewPCG(4, 37)
	taken, rounds := 0, 60
	if os.Getenv("ROWHOUSE_TEST_LONG") != "" {
		rounds = 5000
	}
	for i := range rounds {
		random := rand.New(seed)
		n, text := namespaces[random.IntN(len(namespaces))], poison(random)
		_, err := a.UpdateDocument(ctx, setting("tenants/acme/config/"+n, text))
		if !utf8.ValidString(text) {
			if err == nil {
				t.Fatalf("%q is no text and was taken", text)
			}
			continue // which gRPC refuses
		}
		if err != nil {
			if code := status.Code(err); code != codes.InvalidArgument {
				t.Fatalf("write %d, %q in %s: %v", i, text, n, err)
			}
			continue
		}
		taken++
		got, err := data.GetSettings(in("acme"), &configv1.GetSettingsRequest{Namespace: n})
		must(t, err)
		eventually(t, fmt.Sprintf("write %d", i), func() bool {
			e, ok := store.Holds(withID(t, reader("acme"), "acme"), n)
			return ok && e.Version == got.GetEffective().GetVersion() && string(settings.Canonical(e.Object)) == got.GetEffective().GetContent()
		})
		if _, err := settings.For[map[string]any](in("acme"), store, n); err != nil {
			t.Errorf("%q in %s cannot be read: %v", text, n, err)
		}
		if n == settings.BrandNamespace {
			if _, err := settings.BrandFor(in("acme"), store); err != nil {
				t.Errorf("the brand %q was taken and is not shown: %v", text, err)
			}
		}
	}
	if after := others(); after != before {
		t.Errorf("globex has\n%safter\n%s", after, before)
	}
	if s := f.Status(); len(s.Quarantined) > 0 || s.Err != "" {
		t.Errorf("the follower: %+v", s)
	}
	if taken < rounds/20 || taken == rounds {
		t.Errorf("%d of %d were taken", taken, rounds)
	}
	if strings.Contains(r.log.String(), "panic") {
		t.Error("something panicked")
	}
}

func withID(t *testing.T, r settings.Reader, id string) settings.Reader {
	t.Helper()
	var err error
	r.ID, err = tenant.ParseID(id)
	must(t, err)
	return r
}
