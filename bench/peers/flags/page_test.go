package flags_test

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/flags/flagset"
)

// row is one of docs/flagd-differences.md: a rule or a flag, data, and what both make of it.
type row struct{ name, subject, data, flagd, ours string }

// table reads the rows below a heading of the page.
func table(t *testing.T, heading string) []row {
	t.Helper()
	page, err := os.ReadFile("../../../docs/flagd-differences.md")
	if err != nil {
		t.Fatal(err)
	}
	_, below, found := strings.Cut(string(page), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("the page has no heading %q", heading)
	}
	below, _, _ = strings.Cut(below, "\n## ")
	var rows []row
	for line := range strings.Lines(below) {
		cells := strings.Split(line, "|")
		const columns = 8
		if len(cells) != columns || strings.HasPrefix(cells[1], "---") || strings.TrimSpace(cells[1]) == "name" {
			continue
		}
		for i := range cells {
			cells[i] = strings.Trim(strings.TrimSpace(cells[i]), "`")
		}
		rows = append(rows, row{cells[1], cells[2], cells[3], cells[4], cells[5]})
	}
	return rows
}

// TestPageOfOperators shows that each row is true, and that its claim explains it.
func TestPageOfOperators(t *testing.T) {
	t.Parallel()
	newFlagd(t)
	named := map[string]bool{}
	for _, r := range table(t, "Operators") {
		named[r.name] = true
		rule, data := decode([]byte(r.subject)), decode([]byte(r.data))
		if got := theirs(rule, data); string(got) != r.flagd {
			t.Errorf("%s: flagd makes %s of %s, the page says %s", r.name, got, r.subject, r.flagd)
		}
		if got := ours(rule, data); string(got) != r.ours {
			t.Errorf("%s: we make %s of %s, the page says %s", r.name, got, r.subject, r.ours)
		}
		if d := locate(rule, data); d == nil || claims[r.name] == nil || !claims[r.name](*d) {
			t.Errorf("%s does not claim its own example %s: %+v", r.name, r.subject, d)
		}
	}
	if missing := slices.DeleteFunc(slices.Collect(maps.Keys(claims)), func(name string) bool { return named[name] }); len(missing) > 0 {
		t.Errorf("the page does not have %v", missing)
	}
}

// TestPageOfFlags shows that each row is true.
func TestPageOfFlags(t *testing.T) {
	t.Parallel()
	flagd := newFlagd(t)
	rows := table(t, "Flags")
	if len(rows) == 0 {
		t.Error("the page has no flags")
	}
	for _, r := range rows {
		set := load(t, flagd, []byte(`{"flags":{"f":`+r.subject+`}}`))
		attributes := decode([]byte(r.data)).(object)
		c, err := flagset.NewContext(flagset.Identity{}, attributes)
		if err != nil {
			t.Fatal(err)
		}
		short := func(a answer) string { return a.Variant + a.Code }
		if got := short(flagdAnswer(t.Context(), flagd, "f", attributes)); got != r.flagd {
			t.Errorf("%s: flagd says %s, the page %s", r.name, got, r.flagd)
		}
		if got := short(ourAnswer(set, "f", c)); got != r.ours {
			t.Errorf("%s: we say %s, the page %s", r.name, got, r.ours)
		}
	}
}
