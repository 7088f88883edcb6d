package settings_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

func seeds(f *testing.F, add func(text string)) {
	f.Helper()
	for _, text := range []string{
		`{}`, `{"a":1}`, `{"a":{"b":[1,2,{"c":null}]}}`, `{"a":1e20}`, `{"a":1,"a":2}`, `{"\ud83d\ude00":"\ud83d"}`, `{"a":-0}`,
		`{"a":"\u0000"}`, `[]`, `{"a":5e-324}`, `{"a":9007199254740993}`, "{\"\u007f\":\"\ufb33\"}", settings.BrandSchema(),
	} {
		add(text)
	}
}

func FuzzParse(f *testing.F) {
	seeds(f, func(text string) { f.Add([]byte(text)) })
	f.Fuzz(func(t *testing.T, text []byte) {
		o, err := settings.Parse(text)
		if err != nil {
			return
		}
		var plain any
		if err := json.Unmarshal(text, &plain); err != nil {
			t.Fatalf("accepted what encoding/json refuses: %v", err)
		}
		if diff := cmp.Diff(plain, any(o)); diff != "" {
			t.Fatalf("read as something else (-encoding/json +ours)\n%s", diff)
		}
		canonical := settings.Canonical(o)
		back, err := settings.Parse(canonical)
		if err != nil {
			if len(canonical) > settings.MaxBytes {
				return // short numbers became long ones
			}
			t.Fatalf("the canonical form of %s is refused: %v", text, err)
		}
		if again := settings.Canonical(back); string(again) != string(canonical) {
			t.Fatalf("%s, and then %s", canonical, again)
		}
	})
}

func FuzzMerge(f *testing.F) {
	seeds(f, func(text string) { f.Add([]byte(text), []byte(`{"a":{"b":2}}`), []byte(text)) })
	f.Fuzz(func(t *testing.T, platform, plan, own []byte) {
		var layers []settings.Layer
		var want any = settings.Object{}
		for i, text := range [][]byte{platform, plan, own} {
			o, err := settings.Parse(text)
			if err != nil {
				return
			}
			layers = append(layers, settings.Layer{Name: string(rune('A' + i)), Revision: int64(i), Object: o})
			want = overlay(want, o)
		}
		before := settings.Canonical(layers[0].Object)
		e := settings.Merge(layers...)
		if diff := cmp.Diff(want, any(e.Object)); diff != "" {
			t.Fatalf("(-want +got)\n%s", diff)
		}
		found := make(map[string]any)
		leaves("", e.Object, found)
		if len(found) != len(e.Origins) {
			t.Fatalf("%d leaves, %d origins", len(found), len(e.Origins))
		}
		if string(before) != string(settings.Canonical(layers[0].Object)) {
			t.Fatal("a layer changed")
		}
		settings.Patch(layers[0].Object, layers[1].Object)
		settings.NewSchema(layers[0].Object).Defaults()
		settings.CheckBrand(e.Object)
	})
}

// FuzzPoison hands any bytes to a reader as one tenant's document. What the check refuses is never applied, and what it
// lets pass is read as anything without a panic; the other tenant reads on.
func FuzzPoison(f *testing.F) {
	seeds(f, func(text string) {
		value, err := proto.Marshal(&configv1.SettingsEntry{Content: text, Schema: text, Revision: 2})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(value, "tenant")
		f.Add([]byte(text), "environment")
		f.Add(value, "plan")
		f.Add(value, "namespace")
	})
	f.Fuzz(func(t *testing.T, value []byte, layer string) {
		acme, globex := settings.Reader{UID: uidOf("acme"), Plan: "p", Environment: "e"}, settings.Reader{UID: uidOf("globex")}
		for _, namespace := range []string{"n", settings.BrandNamespace} {
			var s settings.Store
			apply(t, &s, feed.Change{Reset: true, Entries: []feed.Entry{
				schemaEntry(t, namespace, `{}`), docEntry(t, settings.TenantKey(namespace, acme.UID.String()), `{"name":"good"}`, 1),
				docEntry(t, settings.TenantKey(namespace, globex.UID.String()), `{"name":"other"}`, 1),
			}})
			key := map[string]string{
				"tenant": settings.TenantKey(namespace, acme.UID.String()), "environment": settings.EnvironmentKey(namespace, acme.UID.String(), "e"),
				"plan": settings.PlanKey(namespace, "p"), "namespace": settings.NamespaceKey(namespace),
			}[layer]
			if key == "" {
				key = layer // any key at all
			}
			if err := settings.Check(key, value); err == nil {
				apply(t, &s, feed.Change{Entries: []feed.Entry{{Key: key, Value: value}}})
			} else if e, ok := s.Holds(acme, namespace); !ok || e.Object["name"] != "good" {
				t.Fatalf("the last good value is gone: %v", e)
			}
			if _, ok := s.Holds(acme, namespace); !ok && layer != "namespace" {
				t.Fatalf("%q was let pass and cannot be read", value)
			}
			_, _ = s.Brand(acme.UID, acme.Plan)
			_, _ = settings.Read(&s, acme, namespace, asPreset)
			if e, ok := s.Holds(globex, namespace); layer != "namespace" && (!ok || e.Object["name"] != "other") {
				t.Fatalf("another tenant reads %v", e)
			}
		}
	})
}
