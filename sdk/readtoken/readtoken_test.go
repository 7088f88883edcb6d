package readtoken_test

import (
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/readtoken"
)

// Answers of parallel calls come in any order.
func TestNoteKeepsWhatItDoesNotCover(t *testing.T) {
	t.Parallel()
	type note struct{ covered, token string }
	for name, test := range map[string]struct {
		came  string
		notes []note
		want  string
	}{
		"one after the other": {"a", []note{{"a", "b"}, {"b", "c"}}, "c"},
		"side by side":        {"a", []note{{"a", "b"}, {"a", "c"}}, "b.c"},
		"then one more":       {"a", []note{{"a", "b"}, {"a", "c"}, {"b.c", "d"}}, "d"},
		"the same":            {"a", []note{{"a", "a"}}, "a"},
		"several at once":     {"", []note{{"", "a.b"}, {"a.b", "b.c"}}, "b.c"},
		"none":                {"", []note{{"", ""}}, ""},
		"unknown stays":       {"", []note{{"", "-"}, {"", "a"}, {"-", "b"}, {"-", ""}}, "-"},
		"unknown came":        {"-", []note{{"-", "a"}}, "-"},
		"unknown comes late":  {"a", []note{{"a", "b"}, {"a", "-"}}, "-"},
		"too many":            {"", []note{{"", "a"}, {"", "b"}, {"", "c"}, {"", "d"}, {"", "e"}}, "-"},
	} {
		ctx := readtoken.NewContext(t.Context(), test.came)
		for _, n := range test.notes {
			readtoken.Note(ctx, n.covered, n.token)
		}
		if got, _ := readtoken.FromContext(ctx); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
	readtoken.Note(t.Context(), "", "a") // where nobody keeps one
}
