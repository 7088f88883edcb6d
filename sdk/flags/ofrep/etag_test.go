package ofrep_test

import (
	"maps"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/flags/ofrep"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// timed has a flag that turns at noon of the house's day and one that computes with the time.
const timed = `{"flags":{
	"noon":{"state":"ENABLED","variants":{"am":"am","pm":"pm"},"defaultVariant":"am","metadata":{"public":true},
		"targeting":{"if":[{">=":[{"var":"$flagd.timestamp"},1795262400]},"pm"]}},
	"rule":{"state":"ENABLED","variants":{"hi":"hi","lo":"lo"},"defaultVariant":"lo",
		"targeting":{"if":[{"==":[{"var":"level"},"high"]},"hi"]}}}}`

// noon is the constant above.
func noon() time.Time { return time.Unix(1795262400, 0) }

// answer is what a client keeps of an answer for all flags.
type answer struct{ tag, flags string }

// fetch asks as a provider does that keeps an ETag, and returns what it then has.
func (s *site) fetch(a ask, kept answer) (now answer, unchanged bool) {
	s.Helper()
	header := map[string]string{"If-None-Match": kept.tag}
	maps.Copy(header, a.header)
	a.header = header
	got := s.send(a)
	switch got.Code {
	case http.StatusNotModified:
		if got.Body.Len() > 0 || got.Header().Get("ETag") != kept.tag {
			s.Errorf("304 with %q and %v", got.Body, got.Header())
		}
		return kept, true
	case http.StatusOK:
		return answer{got.Header().Get("ETag"), got.Body.String()}, false
	default:
		s.Fatalf("%d %s", got.Code, got.Body)
		return answer{}, false
	}
}

// A 304 stands for one answer: whatever that is made of makes another ETag, and only that. Each case fails when its
// field is left out of the ETag.
func TestETagNamesEverythingThatCounts(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.SetPlatform(timed)
	s.SetTime(noon().Add(-time.Hour))
	const page = "https://app.acme.example"
	browser, second := s.Key("acme", page), s.Key("acme")
	base := ask{body: `{"context":{"targetingKey":"u","level":"low","n":1.0}}`}
	first, _ := s.fetch(base, answer{})
	same := func(what string, a ask) {
		t.Helper()
		if _, unchanged := s.fetch(a, first); !unchanged {
			t.Errorf("%s: answered anew", what)
		}
	}
	another := func(what string, a ask) {
		t.Helper()
		if now, unchanged := s.fetch(a, first); unchanged || now.tag == first.tag {
			t.Errorf("%s: the same", what)
		}
	}
	same("the same again", base)
	same("members in another order, and a number written otherwise", ask{body: `{"context":{"n":1,"level":"low","targetingKey":"u"}}`})
	same("what we say of the tenant ourselves", ask{body: `{"context":{"targetingKey":"u","level":"low","n":1,"tenant":"acme","plan":"x","$flagd":{"timestamp":7}}}`})
	another("an attribute", ask{body: `{"context":{"targetingKey":"u","level":"high","n":1}}`})
	another("an attribute of another kind", ask{body: `{"context":{"targetingKey":"u","level":"low","n":"1"}}`})
	another("another attribute", ask{body: `{"context":{"targetingKey":"u","level":"low","m":1}}`})
	another("another key of the same kind", ask{body: base.body, key: second})
	another("a browser's key", ask{body: base.body, key: browser, header: map[string]string{"Origin": page}})
	s.SetTime(noon().Add(-time.Second))
	same("a moment before noon", base)
	s.SetTime(noon())
	another("at noon", base)
	s.SetTime(noon().Add(-time.Second))
	same("the clock was set back", base)
	s.SetTime(noon().Add(-24 * time.Hour))
	another("on another day, by the stream's address", base)
	s.SetTime(noon().Add(-time.Hour))
	s.handler = s.For("acme", ofrep.New(ofrep.Config{Door: s.Door}), func(c *tenant.Claims) { c.Plan = "gold" })
	another("another plan", base)
	s.handler = s.For("acme", ofrep.New(ofrep.Config{Door: s.Door}))
	same("the plan of before", base)
	s.SetTenant("globex", `{"flags":{"rule":{"defaultVariant":"hi"}}}`)
	same("another tenant's change", base)
	s.SetTenant("acme", `{"flags":{"rule":{"defaultVariant":"hi"}}}`)
	another("another set of flags", base)
}

func TestIfNoneMatchIsAList(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	tag := s.send(ask{body: `{}`}).Header().Get("ETag")
	for given, want := range map[string]int{
		tag: 304, "W/" + tag: 304, `"x", ` + tag: 304, `"x",W/` + tag + ` , "y"`: 304, "*": 200, `"x"`: 200, strings.Trim(tag, `"`): 200, "": 200,
	} {
		if got := s.send(ask{body: `{}`, header: map[string]string{"If-None-Match": given}}); got.Code != want {
			t.Errorf("%s: %d, want %d", given, got.Code, want)
		}
	}
}

// A provider that keeps its last ETag, whatever its context becomes, has at every moment what a fresh one gets.
func TestKeptETagsNeverGoStale(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	random := rand.New(rand.NewPCG(1, 2))
	contexts := []string{`{}`, `{"context":{"level":"high"}}`, `{"context":{"level":"low"}}`, `{"context":{"level":["high"]}}`}
	documents := []string{timed, document, `{"flags":{}}`, strings.ReplaceAll(timed, `"high"`, `"low"`)}
	keys := []string{s.key, s.Key("acme")}
	var kept answer
	hits := 0
	const steps = 2000
	for i := range steps {
		switch random.IntN(4) {
		case 0:
			s.SetPlatform(documents[random.IntN(len(documents))])
		case 1:
			s.SetTime(noon().Add(time.Duration(random.IntN(5)-2) * time.Minute))
		}
		a := ask{body: contexts[random.IntN(len(contexts))], key: keys[random.IntN(len(keys))]}
		now, unchanged := s.fetch(a, kept)
		fresh, _ := s.fetch(a, answer{})
		if now != fresh {
			t.Fatalf("step %d: kept %v, fresh %v", i, now, fresh)
		}
		if kept = now; unchanged {
			hits++
		}
	}
	if hits < steps/20 {
		t.Errorf("only %d of %d were unchanged: the test shows little", hits, steps)
	}
}
