package prove

import (
	"encoding/json"
	"slices"
	"strings"
	"sync"
)

// Secrets collects texts that must not be in a report, such as passwords; where one appears,
// it is replaced. It is safe for concurrent use, and nil is an empty one that keeps nothing.
type Secrets struct {
	mu  sync.Mutex
	all []string // guarded by mu
}

// Add adds texts. Those of less than four bytes are left alone: replacing every "a" would tell
// more of a password of one letter than it hides.
func (s *Secrets) Add(texts ...string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, texts...)
}

// list returns the texts, the longest first, because one may be part of another.
func (s *Secrets) list() []string {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.DeleteFunc(slices.Clone(s.all), func(text string) bool { return len(text) < shortest })
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) })
	return all
}

// shortest is the length from which a text is taken for a secret.
const shortest = 4

// removed stands where a secret was.
const removed = "[removed]"

// ours are the fields whose text this package chooses itself: a password that happens to be
// "pass" must not change a verdict.
func ours(field string) bool {
	return slices.Contains([]string{
		"format", "verdict", "required", "missing", "time", "sha256", "id", "title", "shows", "limits", "threats", "status", "severity", "mark",
	}, field)
}

// scrub replaces secrets in all other text of the report. The texts are found through JSON,
// so that a field added later is not forgotten.
func (r *Report) scrub(secrets []string) {
	var pairs []string
	for _, s := range secrets {
		pairs = append(pairs, s, removed)
	}
	if len(pairs) == 0 {
		return
	}
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // it has neither channels nor functions
	}
	var tree any
	if err := json.Unmarshal(b, &tree); err != nil {
		panic(err) // it was just made
	}
	b, err = json.Marshal(clean(tree, strings.NewReplacer(pairs...)))
	if err != nil {
		panic(err)
	}
	var scrubbed Report
	if err := json.Unmarshal(b, &scrubbed); err != nil {
		panic(err)
	}
	*r = scrubbed
}

func clean(v any, with *strings.Replacer) any {
	switch v := v.(type) {
	case string:
		return with.Replace(v)
	case []any:
		for i := range v {
			v[i] = clean(v[i], with)
		}
	case map[string]any:
		for k := range v {
			if !ours(k) {
				v[k] = clean(v[k], with)
			}
		}
	}
	return v
}
