package settings_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// wordy is a brand with 20 kinds of messages and a number of terms of each language.
func wordy(t testing.TB, terms int) settings.Object {
	t.Helper()
	kinds, messages, words := make(map[string]any), make(map[string]any), make(map[string]any)
	for _, language := range []string{"en", "de", "fr", "es", "it", "pt", "nl", "sv", "pl", "cs"} {
		said, own := make(map[string]any), make(map[string]any)
		for i := range 20 {
			kind := fmt.Sprintf("kind-%d", i)
			kinds[kind] = map[string]any{"variables": map[string]any{"n": "number"}}
			said[kind] = "{word_0_" + language + "}: {n, plural, one {# day} other {# days}}"
		}
		for i := range terms {
			own[fmt.Sprintf("word_%d_%s", i, language)] = "w"
		}
		messages[language], words[language] = said, own
	}
	return settings.Object{"message-kinds": kinds, "messages": messages, "terms": words}
}

// A brand's terms are gathered once, not for each of its messages; and of what is said once, nothing is read again.
func TestMessagesCostLittle(t *testing.T) { //nolint:paralleltest // it counts allocations
	check := func(terms int) float64 {
		o := wordy(t, terms)
		if found := settings.CheckBrand(o); len(found) > 0 {
			t.Fatal(found)
		}
		return testing.AllocsPerRun(5, func() { settings.CheckBrand(o) })
	}
	if few, many := check(10), check(100); many > few+4*900 {
		t.Errorf("with 900 terms more a check allocates %v instead of %v times", many, few)
	}
	b, err := settings.BrandOf(settings.Effective{Object: wordy(t, 100)})
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]any{"n": 1}
	const most = 150 // most of them for the reader's languages and the number
	if n := testing.AllocsPerRun(100, func() {
		if text, tag, err := b.Format("kind-7", "de-AT", values); text != "w: 1 days" && text != "w: 1 day" || tag != "de" || err != nil {
			t.Fatal(text, tag, err)
		}
	}); n > most {
		t.Errorf("a message allocates %v times", n)
	}
}

func TestTermsAreBounded(t *testing.T) {
	t.Parallel()
	found := settings.CheckBrand(wordy(t, 101))
	if len(found) != 1 || found[0].Pointer != "/terms" || found[0].Rule != "terms" {
		t.Error(found)
	}
}

// What a domain says nothing of is not checked again for it, and what is judged together is checked together.
func TestDomainsAreCheckedForWhatTheySay(t *testing.T) {
	t.Parallel()
	o, err := settings.Parse([]byte(`{"name":"a","logo":"l","locale":"de","mails":{},"domains":{
		"a.example":{"name":"b"},"b.example":{},"c.example":{"other":1},"d.example":{"mails":{},"links":{}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	settings.EachDomain(o, [][]string{{"name"}, {"logo"}, {"links"}, {"locale", "mails"}}, func(o settings.Object) []settings.Problem {
		got = append(got, strings.Join(slices.Sorted(maps.Keys(o)), " "))
		return nil
	})
	if diff := cmp.Diff([]string{"locale logo mails name", "name", "links locale mails"}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func BenchmarkFormat(b *testing.B) {
	brand, err := settings.BrandOf(settings.Effective{Object: wordy(b, 100)})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, _, err := brand.Format("kind-7", "de-AT, en;q=0.5", map[string]any{"n": 1200}); err != nil {
			b.Fatal(err)
		}
	}
}
