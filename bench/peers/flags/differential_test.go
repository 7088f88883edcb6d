package flags_test

import (
	"maps"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/sdk/flags/flagset"
)

// TestSameAnswers compares with flagd over generated documents and contexts. Where the answers are not the same, one
// operator over values must be to blame, and docs/flagd-differences.md must say so.
func TestSameAnswers(t *testing.T) {
	t.Parallel()
	documents, wild := 60, 20
	if os.Getenv("ROWHOUSE_TEST_LONG") != "" {
		documents, wild = 2500, 500
	}
	const flags, contexts = 15, 5
	flagd, schema := newFlagd(t), flagdSchema(t)
	cases, explained := 0, map[string]int{}
	for seed := range documents + wild {
		g := newGenerator(uint64(seed))
		document := g.document(flags, seed >= documents)
		if err := schema.Validate(document); err != nil && seed < documents {
			t.Fatalf("seed %d: not valid under flagd's schema: %v", seed, err)
		}
		set := load(t, flagd, marshal(document))
		for range contexts {
			attributes := g.context()
			c, err := flagset.NewContext(flagset.Identity{}, attributes)
			if err != nil {
				t.Fatal(err)
			}
			for key := range sorted(document["flags"].(object)) {
				cases++
				want, got := flagdAnswer(t.Context(), flagd, key, attributes), ourAnswer(set, key, c)
				diff := cmp.Diff(want, got)
				if diff == "" {
					continue
				}
				name, where := explain(document, key, attributes)
				if name == "" {
					t.Fatalf("seed %d: %s of\n%s\nover %s (-flagd +ours)\n%s%s", seed, key,
						marshal(document["flags"].(object)[key]), marshal(attributes), diff, where)
				}
				explained[name]++
			}
		}
	}
	different := 0
	for name, n := range explained {
		t.Logf("%6d cases: %s", n, name)
		different += n
	}
	t.Logf("%d cases, %d of them different as documented", cases, different)
	const most = 20
	if different > cases/most {
		t.Errorf("more than one of %d answers is different", most)
	}
}

// explain names the documented difference that makes a flag's answers differ.
func explain(document object, key string, attributes object) (name, where string) {
	shared, _ := document["$evaluators"].(object)
	targeting := resolve(document["flags"].(object)[key].(object)["targeting"], shared)
	data := maps.Clone(attributes)
	data["$flagd"] = object{"flagKey": key, "timestamp": 1.8e9}
	d := locate(targeting, data)
	if d == nil {
		return "", "the rule is the same"
	}
	for name := range sortedClaims() {
		if claims[name](*d) {
			return name, ""
		}
	}
	return "", string(marshal(d.rule)) + " over " + string(marshal(d.data)) + ": flagd " + string(d.theirs) +
		", ours " + string(d.ours)
}
