package settings_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/sdk/icu"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

const messageKinds = `"message-kinds":{"trial-ends":{"variables":{"days":"number","who":"text"}},"hello":{}}`

func TestMessages(t *testing.T) {
	t.Parallel()
	text := `{` + messageKinds + `,"locale":"de",
		"terms":{"en":{"workspace":"Project"},"de":{"workspace":"Projekt"}},
		"messages":{
			"en":{"trial-ends":"{who}, your {workspace} ends in {days, plural, one {# day} other {# days}}"},
			"de":{"trial-ends":"{who}, dein {workspace} endet {days, plural, =0 {heute} one {in # Tag} other {in # Tagen}}","hello":"Servus, it''s {workspace}"},
			"fr":{"trial-ends":"{who} : {days, plural, one {# jour} other {# jours}}"},
			"pl":{"hello":"Cześć"}},
		"domains":{"shop.acme.example":{"messages":{"de":{"hello":"Im Laden"}}}}}`
	if found := problems(t, text); len(found) > 0 {
		t.Fatal(found)
	}
	for _, c := range []struct {
		kind, prefer, host string
		days               any
		want               string
	}{
		{"trial-ends", "de-AT", "", 0, "de Ann, dein Projekt endet heute"},
		{"trial-ends", "de-CH, en", "", 12345, "de Ann, dein Projekt endet in 12’345 Tagen"},
		{"trial-ends", "de-u-nu-arab", "", 12345, "de Ann, dein Projekt endet in 12.345 Tagen"},
		{"trial-ends", "en-GB", "", 1, "en Ann, your Project ends in 1 day"},
		{"trial-ends", "fr-CA", "", 1.5, "fr Ann : 1,5 jour"},
		{"trial-ends", "pl", "", 2, "de Ann, dein Projekt endet in 2 Tagen"}, // said in other languages, and this is the brand's own
		{"trial-ends", "\x00;;q=,", "", 1, "de Ann, dein Projekt endet in 1 Tag"},
		{"hello", "pl", "", nil, "pl Cześć"},
		{"hello", "en", "", nil, "de Servus, it's Projekt"},
		{"hello", "", "shop.acme.example", nil, "de Im Laden"},
	} {
		var values map[string]any
		if c.days != nil {
			values = map[string]any{"days": c.days, "who": "Ann"}
		}
		got, tag, err := brandOn(t, text, c.host).Format(c.kind, c.prefer, values)
		if err != nil || tag+" "+got != c.want {
			t.Errorf("%s for %q: %q in %q, %v; want %q", c.kind, c.prefer, got, tag, err, c.want)
		}
	}
	b := brandOn(t, text, "")
	for what, c := range map[string]struct {
		kind   string
		values map[string]any
		want   error
	}{
		"no kind":             {"x", nil, settings.ErrMessageKind},
		"no values":           {"trial-ends", nil, icu.ErrValue},
		"one value":           {"trial-ends", map[string]any{"days": 1}, icu.ErrValue},
		"one too many":        {"hello", map[string]any{"days": 1}, icu.ErrValue},
		"a term is no value":  {"hello", map[string]any{"workspace": "x"}, icu.ErrValue},
		"text for a number":   {"trial-ends", map[string]any{"days": "1", "who": "a"}, icu.ErrValue},
		"two lines":           {"trial-ends", map[string]any{"days": 1, "who": "a\nb"}, icu.ErrValue},
		"turned round":        {"trial-ends", map[string]any{"days": 1, "who": "a\u202eb"}, icu.ErrValue},
		"no Unicode":          {"trial-ends", map[string]any{"days": 1, "who": "\xff"}, icu.ErrValue},
		"too long":            {"trial-ends", map[string]any{"days": 1, "who": strings.Repeat("x", 1001)}, icu.ErrValue},
		"a family of a value": {"trial-ends", map[string]any{"days": 1, "who": "👩\u200d👧 {days} <b>'"}, nil},
	} {
		text, _, err := b.Format(c.kind, "de", c.values)
		if !errors.Is(err, c.want) || c.want == nil && !strings.HasPrefix(text, "👩\u200d👧 {days} <b>', ") {
			t.Errorf("%s: %q, %v", what, text, err)
		}
		if err != nil && strings.Contains(err.Error(), "xxx") {
			t.Errorf("%s: the value is in the error", what)
		}
	}
	if diff := cmp.Diff([]string{"de", "en", "fr", "pl"}, b.Locales()); diff != "" {
		t.Error(diff)
	}
	if b.Empty() || !brandOn(t, `{`+messageKinds+`}`, "").Empty() {
		t.Error("Empty")
	}
}

// A message of a kind that was declared otherwise since is passed over, and one that is said nowhere is an error.
func TestMessagesAreNeverHalf(t *testing.T) {
	t.Parallel()
	b := brandOn(t, `{"message-kinds":{"hello":{}},"messages":{"de":{"hello":"Hallo {who}"},"en":{"hello":"Hello"}}}`, "")
	if got, tag, err := b.Format("hello", "de", nil); err != nil || got != "Hello" || tag != "en" {
		t.Errorf("%q in %q, %v", got, tag, err)
	}
	b = brandOn(t, `{"message-kinds":{"hello":{}},"messages":{"fr":{"hello":"Bonjour"}}}`, "")
	if _, _, err := b.Format("hello", "de", nil); !errors.Is(err, settings.ErrMessageKind) {
		t.Error(err)
	}
}

func TestMessagesRefused(t *testing.T) {
	t.Parallel()
	message := func(s string) string {
		return `{` + messageKinds + `,"messages":{"en":{"hello":"Hello","trial-ends":"` + s + `"}}}`
	}
	for text, want := range map[string][]string{
		message("{stranger}"):             {"/messages/en/trial-ends argument"},
		message("{sub-workspace}"):        {"/messages/en/trial-ends syntax"},   // ICU has no hyphens in names
		message("{workspace}"):            {"/messages/en/trial-ends argument"}, // nobody says that term
		message("{days, plural, one {}}"): {"/messages/en/trial-ends other"},
		message("{days, plural, other {{days, plural, other {{days, plural, other {{days, plural, other {{days, plural, other {}}}}}}}}}}"): {
			"/messages/en/trial-ends depth",
		},
		message("{who, plural, other {}}"):                                 {"/messages/en/trial-ends argument"},
		message("{"):                                                       {"/messages/en/trial-ends syntax"},
		message("a\u202eb"):                                                {"/messages/en/trial-ends text"},
		message("a\u2066b"):                                                {"/messages/en/trial-ends text"},
		message("{who, select, other {\u200f}}"):                           {"/messages/en/trial-ends text"},
		message(strings.Repeat("x", 2001)):                                 {"/messages/en/trial-ends text"},
		`{"messages":{"en":{"x":"y"}}}`:                                    {"/messages/en/x message-kind"},
		`{"messages":{"de_AT":{}}}`:                                        {"/messages/de_AT locale"},
		`{"messages":{"en":{"x":7}}}`:                                      {"/messages/en/x type", "/messages/en/x message-kind"},
		`{"messages":[]}`:                                                  {"/messages type"},
		`{"message-kinds":{"x":{}}}`:                                       {"/message-kinds/x messages"},
		`{"message-kinds":{"x":{}},"messages":{"fr":{"x":"y"}}}`:           {"/message-kinds/x messages"},
		`{"message-kinds":{"x":{"variables":{"A":"text"}}}}`:               {"/message-kinds/x message-kind"},
		`{"message-kinds":{"x":{"variables":{"a":"url"}}}}`:                {"/message-kinds/x message-kind"},
		`{"message-kinds":{"x":{"variables":[]}}}`:                         {"/message-kinds/x message-kind"},
		`{"message-kinds":{"x":7}}`:                                        {"/message-kinds/x message-kind"},
		`{"domains":{"a.example":{"messages":{"en":{"trial-ends":"x"}}}}}`: {"/domains/a.example/messages/en/trial-ends message-kind"},
	} {
		if diff := cmp.Diff(want, problems(t, text)); diff != "" {
			t.Errorf("%s (-want +got)\n%s", text, diff)
		}
	}
}
