package settings

import (
	_ "embed" // setting-kills.schema.json
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/feed"
)

// KillsNamespace says which settings were killed, in all namespaces. It exists from the start. Only KillSetting and
// LiftSetting of rowhouse.config.v1 write it.
const KillsNamespace = "setting-kills"

// keywordKill, {"value": …}, lets a place be killed: the value then holds there, whatever layers say.
const keywordKill = "x-kill"

// levelKill is narrower than all layers.
const levelKill = LevelEnvironment + 1

//go:embed setting-kills.schema.json
var killSchema string

// KillSchema is the JSON Schema of the namespace "setting-kills".
func KillSchema() string { return killSchema }

// urgent reports whether a change of the feed may be the cure of what processes die of: kills, of settings or of flags, and
// the end of a rollout.
func urgent(e feed.Entry) bool {
	return strings.HasPrefix(e.Key, "doc/"+KillsNamespace+"/") || strings.HasPrefix(e.Key, "doc/"+FlagKillsNamespace+"/") ||
		e.Deleted && strings.HasPrefix(e.Key, RolloutKey(""))
}

// Kill says that a place has the safe value of its schema, whatever documents say.
type Kill struct {
	// Pointer is the place.
	Pointer string
	// Layer is where it was killed, and Revision the one of that layer's kills.
	Layer    string
	Revision int64
	// Reason, Author and Time say why, by whom and when.
	Reason, Author string
	Time           time.Time
}

// KillEntry is what [KillsNamespace] holds of a kill.
func KillEntry(reason, author string, at time.Time) Object {
	return Object{"reason": reason, "by": author, "at": at.UTC().Format(time.RFC3339)}
}

// ReadKill reads what [KillEntry] made. What is missing stays empty: a kill without a reason is one.
func ReadKill(pointer, layer string, entry any) Kill {
	members, _ := entry.(Object)
	k := Kill{Pointer: pointer, Layer: layer}
	k.Reason, _ = members["reason"].(string)
	k.Author, _ = members["by"].(string)
	if text, ok := members["at"].(string); ok {
		k.Time, _ = time.Parse(time.RFC3339, text)
	}
	return k
}

// KillsOf returns the kills in a namespace, by pointer, that what holds in [KillsNamespace] tells of.
func KillsOf(e Effective, namespace string) []Kill {
	entries, _ := e.Object[namespace].(Object)
	if len(entries) == 0 {
		return nil
	}
	origins := make(map[string]Origin, len(e.Origins))
	for _, o := range e.Origins {
		if at := names(o.Pointer); len(at) > 1 && at[0] == namespace {
			origins[at[1]] = o
		}
	}
	out := make([]Kill, 0, len(entries))
	for _, pointer := range slices.Sorted(maps.Keys(entries)) {
		k := ReadKill(pointer, origins[pointer].Layer, entries[pointer])
		k.Revision = origins[pointer].Revision
		out = append(out, k)
	}
	return out
}

// Safe is the value that a place gets when it is killed; false when it may not be.
func (s *Schema) Safe(pointer string) (any, bool) {
	r := s.rules()
	if !strings.HasPrefix(pointer, "/") {
		return nil, false
	}
	for _, name := range names(pointer) {
		if how, _ := r.how(); how != deep {
			return nil, false
		}
		if r = r.member(name); r == nil {
			return nil, false
		}
	}
	return r.safe, r.killable
}

// readSafe is the safe value of a schema; false when it has none.
func readSafe(schema Object) (any, bool) {
	k, ok := schema[keywordKill].(Object)
	return k["value"], ok
}

// Killable reports whether any place may be killed.
func (s *Schema) Killable() bool { return s.rules().kills() }

func (r *rule) kills() bool {
	if r == nil {
		return false
	}
	for _, below := range r.members {
		if below.kills() {
			return true
		}
	}
	return r.killable || r.others.kills()
}

// SafeValue is a safe value in a schema.
type SafeValue struct {
	// Schema is the JSON pointer of the schema that the value is of. Pointer is that of the place, "" where it is any
	// additional property.
	Schema, Pointer string
	Value           any
}

// SafeValues returns the safe values of a schema.
func SafeValues(schema Object) []SafeValue { return safeValues(schema, "", "", true) }

func safeValues(schema Object, at, place string, named bool) (out []SafeValue) {
	if k, ok := schema[keywordKill].(Object); ok {
		v := SafeValue{Schema: at, Value: k["value"]}
		if named {
			v.Pointer = place
		}
		out = append(out, v)
	}
	properties, _ := schema["properties"].(Object)
	for _, name := range sortedNames(properties) {
		if below, ok := properties[name].(Object); ok {
			out = append(out, safeValues(below, at+Pointer("properties", name), place+Pointer(name), named)...)
		}
	}
	if below, ok := schema["additionalProperties"].(Object); ok {
		out = append(out, safeValues(below, at+"/additionalProperties", "", false)...)
	}
	return out
}

// forced is the value of a place that was killed.
type forced struct {
	value any
	kill  *Kill
}

// killed is a layer of the safe values of what was killed, narrower than all others. It is false when there is none.
// A place that the schema does not let be killed any more is passed over.
func (s *Schema) killed(kills []Kill) (Layer, bool) {
	object := Object{}
	for _, k := range slices.SortedFunc(slices.Values(kills), func(a, b Kill) int { return strings.Compare(a.Pointer, b.Pointer) }) {
		if safe, ok := s.Safe(k.Pointer); ok {
			force(object, names(k.Pointer), forced{safe, &k})
		}
	}
	return Layer{Name: "kill", Object: object, level: levelKill}, len(object) > 0
}

// force puts a value where names lead, unless it is below another one: those come first.
func force(into Object, names []string, v forced) {
	for _, name := range names[:len(names)-1] {
		below, ok := into[name].(Object)
		if !ok {
			if into[name] != nil {
				return
			}
			below = Object{}
			into[name] = below
		}
		into = below
	}
	into[names[len(names)-1]] = v
}

// killsText tells sets of kills apart.
func killsText(kills []Kill) string {
	var b strings.Builder
	for _, k := range kills {
		b.WriteString(strconv.Quote(k.Pointer))
		b.WriteString(strconv.Quote(k.Layer))
		b.WriteString(strconv.FormatInt(k.Revision, 10))
	}
	return b.String()
}

// kill checks "x-kill".
func (c *keywordCheck) kill(pointer string, schema Object) {
	v, ok := schema[keywordKill]
	if !ok {
		return
	}
	o, _ := v.(Object)
	safe, ok := o["value"]
	if !ok || len(o) != 1 {
		c.addf(pointer, keywordKill, `must have a "value" and nothing else`)
		return
	}
	if pointer == "" {
		c.addf(pointer, keywordKill, "is for a property, not for the whole document")
	}
	w := &walk{}
	w.data("", safe)
	if isUnset(safe) || len(w.found) > 0 {
		c.addf(pointer, keywordKill, "must not take anything away")
	}
}
