package settings_test

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// A secret shows in nothing that makes text of it, by itself or within what holds it.
func TestSecretShowsNothing(t *testing.T) {
	t.Parallel()
	const value = "hunter2"
	s := settings.NewSecret([]byte(value))
	type holder struct {
		Exported settings.Secret
		hidden   settings.Secret
		Pointer  *settings.Secret
		Map      map[string]settings.Secret
	}
	h := holder{s, s, &s, map[string]settings.Secret{"k": s}}
	var shown bytes.Buffer
	for _, v := range []any{s, &s, h, &h, []settings.Secret{s}, []any{s}} {
		for _, verb := range "vsqxXdboOcUeEfFgGtTp" {
			for _, flags := range []string{"", "+", "#", "010."} {
				if verb == 'T' {
					continue
				}
				fmt.Fprintf(&shown, "%"+flags+string(verb)+"\n", v)
			}
		}
		fmt.Fprintln(&shown, v)
		for _, handler := range []slog.Handler{slog.NewTextHandler(&shown, nil), slog.NewJSONHandler(&shown, nil)} {
			slog.New(handler).Info("it", "v", v, slog.Group("g", "v", v))
		}
		if b, err := json.Marshal(v); err == nil {
			shown.Write(b)
		}
		if b, err := xml.Marshal(v); err == nil {
			shown.Write(b)
		}
		_ = gob.NewEncoder(&shown).Encode(v) // an error shows nothing
	}
	for how, needle := range map[string]string{"text": value, "hex": "68756e74", "HEX": "68756E74", "decimal": "104 117 110", "octal": "150 165 156"} {
		if strings.Contains(shown.String(), needle) {
			i := strings.Index(shown.String(), needle)
			t.Errorf("it shows as %s: %q", how, shown.String()[max(0, i-100):i+40])
		}
	}
	if n := strings.Count(shown.String(), "[redacted]"); n < 100 {
		t.Errorf("only %d times it was asked for", n)
	}
	if string(s.Reveal()) != value || s.IsZero() || !(settings.Secret{}).IsZero() || (settings.Secret{}).Reveal() != nil || h.hidden.IsZero() {
		t.Error("the value is not what it was")
	}
	s.Reveal()[0] = 'X'
	if string(s.Reveal()) != value {
		t.Error("who reads it can change it")
	}
}

func secretive(t *testing.T) (settings.Object, *settings.Schema) {
	t.Helper()
	o, err := settings.Parse([]byte(`{"properties":{"key":{"type":"string","x-secret":true},
		"below":{"properties":{"key":{"type":"string","x-secret":true,"x-lock":"plan"},"host":{"type":"string"}}},
		"many":{"additionalProperties":{"type":"string","x-secret":true}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if found := settings.CheckKeywords(o); len(found) > 0 {
		t.Fatal(found)
	}
	return o, settings.NewSchema(o)
}

func object(t *testing.T, text string) settings.Object {
	t.Helper()
	o, err := settings.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// A reference is one value: layers do not mix its members, and what is none does not hold.
func TestReferencesAreReplacedAsAWhole(t *testing.T) {
	t.Parallel()
	_, schema := secretive(t)
	stack := settings.Stack{
		Schema:   schema,
		Platform: &settings.Layer{Name: "platform", Revision: 1, Object: object(t, `{"key":{"$secret":"a","version":7},"many":{"x":{"$secret":"a","version":1}}}`)},
		Plan:     &settings.Layer{Name: "plans/free", Revision: 2, Object: object(t, `{"key":{"$secret":"b","version":1},"many":{"x":"in clear"}}`)},
		Tenant:   &settings.Layer{Name: "tenants/acme", Revision: 3, Object: object(t, `{"key":{"version":9},"below":{"key":{"$secret":"c","version":1},"host":"h"}}`)},
	}
	e := stack.Effective()
	want := `{"below":{"host":"h"},"key":{"$secret":"b","version":1},"many":{"x":{"$secret":"a","version":1}}}`
	if got := string(settings.Canonical(e.Object)); got != want {
		t.Errorf("the effective value is %s, want %s", got, want)
	}
	if got := string(settings.Canonical(schema.Explained(e.Object))); got != `{"below":{"host":"h"},"key":{"secret":true,"version":1},"many":{"x":{"secret":true,"version":1}}}` {
		t.Errorf("explained is %s", got)
	}
	i := slices.IndexFunc(e.Origins, func(o settings.Origin) bool { return o.Pointer == "/key" })
	if i < 0 || e.Origins[i].Layer != "plans/free" || !slices.Equal(e.Origins[i].Shadowed, []string{"tenants/acme", "platform"}) {
		t.Errorf("its origin is %v", e.Origins)
	}
	wantRefs := map[string]settings.Reference{"/key": {Name: "b", Version: 1}, "/many/x": {Name: "a", Version: 1}}
	if diff := cmp.Diff(wantRefs, schema.References(e.Object)); diff != "" {
		t.Errorf("references (-want +got)\n%s", diff)
	}
	for pointer, secret := range map[string]bool{"/key": true, "/below/key": true, "/many/any": true, "/below": false, "/below/host": false, "/key/$secret": false, "/none": false, "": false} {
		if schema.Secret(pointer) != secret {
			t.Errorf("Secret(%q) = %t", pointer, !secret)
		}
	}
}

func TestRefusedSecrets(t *testing.T) {
	t.Parallel()
	_, schema := secretive(t)
	for document, want := range map[string]string{
		`{"key":"in clear"}`:                                        "/key x-secret",
		`{"key":{"$secret":"a","version":1}}`:                       "",
		`{"key":{"$unset":true}}`:                                   "",
		`{"key":{"$secret":"a-","version":1}}`:                      "/key x-secret",
		`{"key":{"$secret":"a--b","version":1}}`:                    "/key x-secret",
		`{"key":{"$secret":"1a","version":1}}`:                      "/key x-secret",
		`{"key":{"$secret":"a","version":2147483648}}`:              "/key x-secret",
		`{"key":{"$secret":"a"}}`:                                   "/key x-secret",
		`{"key":null}`:                                              "/key x-secret",
		`{"below":{"key":"in clear"}}`:                              "/below/key x-secret",
		`{"below":{"key":{"$secret":"a","version":1}}}`:             "/below/key x-lock",
		`{"many":{"a":"x","b":{"$secret":"a","version":1},"c":[]}}`: "/many/a x-secret,/many/c x-secret",
		`{"many":{"` + strings.Repeat("n", 9) + `":{"$secret":"` + strings.Repeat("a", 64) + `","version":1}}}`: "/many/nnnnnnnnn x-secret",
	} {
		var got []string
		for _, p := range schema.Refused(settings.LevelTenant, object(t, document)) {
			if got = append(got, p.Pointer+" "+p.Rule); strings.Contains(p.Text, "clear") && strings.Contains(document, p.Text) {
				t.Errorf("%s: %s", document, p.Text)
			}
		}
		if strings.Join(got, ",") != want {
			t.Errorf("%s: refused is %v, want %s", document, got, want)
		}
	}
}

func TestWithReferences(t *testing.T) {
	t.Parallel()
	schema, _ := secretive(t)
	before := string(settings.Canonical(schema))
	out := settings.WithReferences(schema)
	if string(settings.Canonical(schema)) != before {
		t.Error("the schema was changed")
	}
	text := string(settings.Canonical(out))
	if strings.Contains(text, "x-secret") || strings.Count(text, `"$secret"`) != 6 {
		t.Errorf("it became %s", text)
	}
	plain := object(t, `{"type":"object","properties":{"a":{"type":"string","enum":["x-secret"]}},"additionalProperties":false}`)
	if !cmp.Equal(settings.WithReferences(plain), plain) || len(maps.Clone(plain)) != 3 {
		t.Error("a schema without secrets became another")
	}
}
