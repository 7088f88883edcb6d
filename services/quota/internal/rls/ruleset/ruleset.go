// Package ruleset is the language in which envoyproxy/ratelimit is configured: which limit a list of descriptor entries
// meets. It reads the YAML and matches; it neither counts nor speaks a protocol.
//
// Entries are matched as pairs of key and value, never as joined strings, so that ("a_b", "c") and ("a", "b_c") are
// different for ever. Start at [Parse] and [Set.Match].
package ruleset

import (
	"strings"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
)

// Unit is the time in which so many requests are allowed, by Envoy's numbers.
type Unit int32

// The units.
const (
	Unknown Unit = 0
	Second  Unit = 1
	Minute  Unit = 2
	Hour    Unit = 3
	Day     Unit = 4
	Month   Unit = 5
	Year    Unit = 6
	Week    Unit = 7
)

const day = 24 * time.Hour

// Duration is how long the unit is: a month has 30 days and a year 365. It is 0 for what is no unit.
func (u Unit) Duration() time.Duration {
	switch u {
	case Second:
		return time.Second
	case Minute:
		return time.Minute
	case Hour:
		return time.Hour
	case Day:
		return day
	case Week:
		return 7 * day
	case Month:
		return 30 * day
	case Year:
		return 365 * day
	default:
		return 0
	}
}

// parseUnit reads the name of a unit in any case.
func parseUnit(name string) Unit {
	names := map[string]Unit{
		"SECOND": Second, "MINUTE": Minute, "HOUR": Hour, "DAY": Day, "WEEK": Week, "MONTH": Month, "YEAR": Year,
	}
	return names[strings.ToUpper(name)]
}

// Entry is one pair of a descriptor.
type Entry struct{ Key, Value string }

// Rule is a limit of a set.
type Rule struct {
	// ID is the rule's place in [Set.Rules].
	ID int
	// Name is what the file calls it, or "".
	Name string
	// Requests are allowed per Unit; both are 0 when Unlimited.
	Requests uint32
	Unit     Unit
	// Limit is the same as a rate with a burst of Requests.
	Limit gcra.Limit
	// Unlimited takes what matches out of all limits.
	Unlimited bool
	// Shadow limits are counted and never refuse; Quota limits neither, and are told of when they are reached.
	Shadow, Quota bool
	// Detailed has its decisions counted by the values of its entries, too.
	Detailed bool
	// Replaces are names of limits that do not hold for a request that meets this one.
	Replaces []string
	// Levels lead from the domain to the rule.
	Levels []Level
	// Line is where the file has it.
	Line int
}

// Level is a descriptor on the way to a rule.
type Level struct {
	Key string
	// Value is what the entry's must be; with a * at its end what it must begin with; "" is any.
	Value string
	// ToMetric has the entry's own value in the name of the metric; Share has all that match one wildcard share its limit.
	ToMetric, Share bool
}

// Path names the rule by its levels, "key_value.key": for people and metrics, never for counting.
func (r *Rule) Path() string {
	return r.series(func(_ int, l Level) string { return l.Value })
}

// Title is the rule's name, and its path where it has none.
func (r *Rule) Title() string {
	if r.Name != "" {
		return r.Name
	}
	return r.Path()
}

// Split reports whether decisions of the rule are counted by values.
func (r *Rule) Split() bool {
	if r.Detailed {
		return true
	}
	for _, l := range r.Levels {
		if l.ToMetric {
			return true
		}
	}
	return false
}

// Series is the path with the values of entries where the rule wants them. What shares a limit shares a series.
func (r *Rule) Series(entries []Entry) string {
	return r.series(func(i int, l Level) string {
		if l.Share || !l.ToMetric && !r.Detailed || i >= len(entries) {
			return l.Value
		}
		return entries[i].Value
	})
}

func (r *Rule) series(value func(i int, l Level) string) string {
	var b strings.Builder
	for i, l := range r.Levels {
		if i > 0 {
			b.WriteByte('.')
		}
		b.WriteString(l.Key)
		if v := value(i, l); v != "" {
			b.WriteByte('_')
			b.WriteString(v)
		}
	}
	return b.String()
}

// Set is what one file says of one domain. It does not change, and is safe for concurrent use.
type Set struct {
	// Domain is the domain, and File the file that it was read from.
	Domain, File string
	// Line is where the file names the domain.
	Line int
	// Rules are all limits, in the order of the file.
	Rules []*Rule
	// Replacing says that a rule replaces others.
	Replacing bool

	root node
}

// node is a level of the tree.
type node struct {
	exact map[Entry]*node
	bare  map[string]*node
	wild  []wildcard // in the order of the file
	rule  *Rule
	// share has what matched this wildcard count as one; value is the wildcard then.
	share bool
	value string
}

// wildcard is a child whose value ends with a *.
type wildcard struct {
	key, prefix string
	node        *node
}

// next finds the child that an entry leads to: its very value, then wildcards in the order of the file, then the key
// alone.
func (n *node) next(e Entry) *node {
	if child := n.exact[e]; child != nil {
		return child
	}
	for _, w := range n.wild {
		if w.key == e.Key && strings.HasPrefix(e.Value, w.prefix) {
			return w.node
		}
	}
	return n.bare[e.Key]
}

// MaxDepth is how many levels a set may have.
const MaxDepth = 32

// Match is what a list of entries meets.
type Match struct {
	// Rule is the limit; nil when none holds.
	Rule *Rule
	// Shared has a bit for each entry that counts by its level's wildcard, not by its value.
	Shared uint32
}

// Match finds the rule that is as deep as the entries are many.
func (s *Set) Match(entries []Entry) Match {
	if len(entries) == 0 || len(entries) > MaxDepth {
		return Match{}
	}
	at := &s.root
	var m Match
	for i, e := range entries {
		if at = at.next(e); at == nil {
			return Match{}
		}
		if at.share {
			m.Shared |= 1 << i
		}
	}
	m.Rule = at.rule
	return m
}
