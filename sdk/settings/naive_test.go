package settings_test

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"math/big"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// The naive merge reads the schema's JSON and lays one whole document over another. It shares no code with the real one,
// which walks all layers at once.

// node is a value with the layer that set it: a leaf, an object or a list of elements with layers of their own.
type node struct {
	layer   string
	leaf    any
	members map[string]*node
	list    []*node
	isList  bool
}

// levels are the words of locks and how narrow they are.
func levels() map[any]int {
	return map[any]int{"platform": 1, "plan": 2, "region": 3, "tenant": 5}
}

const anyLevel = 6

func child(schema settings.Object, name string) settings.Object {
	properties, _ := schema["properties"].(settings.Object)
	if p, ok := properties[name]; ok {
		o, _ := p.(settings.Object)
		return o
	}
	o, _ := schema["additionalProperties"].(settings.Object)
	return o
}

// locks is the widest lock at a schema and below it.
func locks(schema settings.Object) int {
	out := anyLevel
	if l, ok := levels()[schema["x-lock"]]; ok {
		out = l
	}
	below := []any{schema["additionalProperties"]}
	if properties, ok := schema["properties"].(settings.Object); ok {
		below = slices.AppendSeq(below, maps.Values(properties))
	}
	for _, v := range below {
		if o, ok := v.(settings.Object); ok {
			out = min(out, locks(o))
		}
	}
	return out
}

func takesAway(v any) bool {
	o, ok := v.(settings.Object)
	return ok && len(o) == 1 && o["$unset"] == true
}

// keyOf is the key of a mapped array.
func keyOf(schema settings.Object) string {
	o, _ := schema["x-merge"].(settings.Object)
	key, _ := o["map"].(string)
	return key
}

// strip takes out of a document what its layer may not set.
func strip(schema settings.Object, level int, v any) (any, bool) {
	if l, ok := levels()[schema["x-lock"]]; ok && level > l {
		return nil, false
	}
	o, isObject := v.(settings.Object)
	merges := isObject && !takesAway(v) && (schema["x-merge"] == nil || schema["x-merge"] == "deep")
	if !merges {
		if level > locks(schema) {
			return nil, false
		}
		if c, ok := schema["x-clamp"].(settings.Object); ok && level > 1 && !takesAway(v) && !within(c, v) {
			return nil, false
		}
		return v, true
	}
	if c, ok := schema["x-clamp"].(settings.Object); ok && level > 1 && !within(c, v) {
		return nil, false
	}
	out := settings.Object{}
	for name, below := range o {
		if kept, ok := strip(child(schema, name), level, below); ok {
			out[name] = kept
		}
	}
	return out, true
}

func within(c settings.Object, v any) bool {
	if f, ok := v.(float64); ok {
		if low, ok := c["min"].(float64); ok && f < low {
			return false
		}
		if high, ok := c["max"].(float64); ok && f > high {
			return false
		}
	}
	enum, ok := c["enum"].([]any)
	return !ok || slices.ContainsFunc(enum, func(e any) bool { return cmp.Equal(e, v) })
}

// lay lays what one layer sets over what holds without it; nil is nothing.
func lay(schema settings.Object, below *node, layer string, v any) *node {
	switch {
	case takesAway(v):
		return nil
	case schema["x-merge"] == "append":
		if a, ok := v.([]any); ok {
			return layJoined(below, layer, a)
		}
	case keyOf(schema) != "":
		if a, ok := v.([]any); ok && mappable(a, keyOf(schema)) {
			return layMapped(below, layer, a, keyOf(schema))
		}
	case schema["x-merge"] == "replace":
	default:
		if o, ok := v.(settings.Object); ok {
			return layObject(schema, below, layer, o)
		}
	}
	return &node{layer: layer, leaf: v}
}

func layJoined(below *node, layer string, a []any) *node {
	out := &node{layer: layer, isList: true}
	if below != nil && below.isList {
		out.list = slices.Clone(below.list)
	}
	for _, v := range a {
		out.list = append(out.list, &node{layer: layer, leaf: v})
	}
	return out
}

func mappable(a []any, key string) bool {
	seen := map[any]bool{}
	for _, v := range a {
		o, ok := v.(settings.Object)
		k, isText := o[key].(string)
		if !ok || !isText || seen[k] {
			return false
		}
		seen[k] = true
	}
	return true
}

func layMapped(below *node, layer string, a []any, key string) *node {
	out := &node{layer: layer, isList: true}
	if below != nil && below.isList {
		out.list = slices.Clone(below.list)
	}
	for _, v := range a {
		o, _ := v.(settings.Object)
		i := slices.IndexFunc(out.list, func(n *node) bool { return n.members[key].leaf == o[key] })
		switch {
		case len(o) == 2 && o["$unset"] == true:
			if i >= 0 {
				out.list = slices.Delete(out.list, i, i+1)
			}
		case i >= 0:
			out.list[i] = layObject(nil, out.list[i], layer, o)
		default:
			out.list = append(out.list, layObject(nil, nil, layer, o))
		}
	}
	return out
}

func layObject(schema settings.Object, below *node, layer string, o settings.Object) *node {
	out := &node{layer: layer, members: map[string]*node{}}
	if below != nil {
		maps.Copy(out.members, below.members)
	}
	for name, v := range o {
		if n := lay(child(schema, name), out.members[name], layer, v); n != nil {
			out.members[name] = n
		} else {
			delete(out.members, name)
		}
	}
	return out
}

// kill puts the safe value of the schema where a path leads, if there is one.
func kill(schema settings.Object, below *node, path []string, layer string) *node {
	if len(path) == 0 {
		if k, ok := schema["x-kill"].(settings.Object); ok {
			return &node{layer: layer, leaf: k["value"]}
		}
		return below
	}
	if schema == nil || schema["x-merge"] != nil && schema["x-merge"] != "deep" {
		return below
	}
	out := &node{layer: layer, members: map[string]*node{}}
	if below != nil {
		maps.Copy(out.members, below.members)
	}
	old := out.members[path[0]]
	v := kill(child(schema, path[0]), old, path[1:], layer)
	if v == old {
		return below
	}
	out.members[path[0]] = v
	return out
}

// spread writes a node as a value and, by pointers, the layers of its leaves.
func spread(n *node, pointer string, layers map[string]string) any {
	switch {
	case n.members != nil && (len(n.members) > 0 || pointer == ""):
		out := settings.Object{}
		for name, below := range n.members {
			out[name] = spread(below, pointer+settings.Pointer(name), layers)
		}
		return out
	case len(n.list) > 0:
		out := []any{}
		for i, below := range n.list {
			out = append(out, spread(below, pointer+"/"+strconv.Itoa(i), layers))
		}
		return out
	}
	layers[pointer] = n.layer
	switch {
	case n.members != nil:
		return settings.Object{}
	case n.isList:
		return []any{}
	}
	return n.leaf
}

// lockOn is the lock on the way to a pointer, and the clamp at its end.
func lockOn(schema settings.Object, pointer string) string {
	lowest, word := anyLevel, ""
	look := func() {
		if l, ok := levels()[schema["x-lock"]]; ok && l < lowest {
			lowest, word = l, fmt.Sprint(schema["x-lock"])
		}
	}
	look()
	for _, name := range strings.Split(pointer, "/")[1:] {
		if schema["x-merge"] != nil && schema["x-merge"] != "deep" {
			break
		}
		schema = child(schema, name)
		look()
	}
	return word
}

// generator makes schemas and documents that collide often.
type generator struct{ *rand.Rand }

func (g generator) one(of ...any) any { return of[g.IntN(len(of))] }

func (g generator) schema(depth int) settings.Object {
	s := settings.Object{}
	if g.IntN(4) == 0 {
		s["x-lock"] = g.one("platform", "plan", "region", "tenant")
	}
	switch how := g.IntN(10); {
	case how == 0:
		s["x-merge"] = "replace"
	case how == 1:
		s["x-merge"] = "append"
	case how == 2:
		s["x-merge"] = settings.Object{"map": "id"}
	case how < 6 && depth < 3:
		properties := settings.Object{}
		for _, name := range []string{"a", "b", "c"}[:g.IntN(4)] {
			properties[name] = g.schema(depth + 1)
		}
		s["properties"] = properties
		if g.IntN(4) == 0 {
			s["additionalProperties"] = g.schema(depth + 1)
		}
	case how == 7 && depth > 0:
		s["x-kill"] = settings.Object{"value": g.value(nil, 3, false)}
	case how == 6:
		s["x-clamp"] = g.one(settings.Object{"min": 1.0}, settings.Object{"max": 1.0}, settings.Object{"enum": []any{1.0, "x", []any{}}})
	}
	if g.IntN(4) == 0 && depth > 0 {
		s["default"] = g.value(s, 3, false)
	}
	return s
}

// value makes a value, more often than not one that the schema merges. Those of defaults take nothing away.
func (g generator) value(schema settings.Object, depth int, unset bool) any {
	kind := g.IntN(10)
	switch {
	case g.IntN(4) == 0:
	case keyOf(schema) != "":
		kind = 5
	case schema["x-merge"] == "append":
		kind = 4
	case schema["properties"] != nil:
		kind = 1
	}
	switch {
	case kind == 0 && unset:
		return settings.Object{"$unset": true}
	case kind < 4 && depth < 4:
		return g.object(schema, depth+1, unset)
	case kind == 4:
		a := []any{}
		for range g.IntN(3) {
			a = append(a, g.one(1.0, "x", nil))
		}
		return a
	case kind < 7:
		return g.elements(unset)
	default:
		return g.one(nil, true, 0.0, 1.0, 2.0, "x")
	}
}

// elements makes an array that can be mapped, unless a key comes twice.
func (g generator) elements(unset bool) []any {
	a := []any{}
	for range g.IntN(3) {
		e := g.object(nil, 3, false)
		e["id"] = g.one("p", "q", "r")
		if unset && g.IntN(3) == 0 {
			e = settings.Object{"id": e["id"], "$unset": true}
		}
		a = append(a, e)
	}
	return a
}

func (g generator) object(schema settings.Object, depth int, unset bool) settings.Object {
	o := settings.Object{}
	for _, name := range []string{"a", "b", "c", "d"} {
		if below := child(schema, name); g.IntN(3) == 0 || below != nil && g.IntN(2) == 0 {
			o[name] = g.value(below, depth, unset)
		}
	}
	return o
}

// TestEffectiveEqualsNaive changes a world of schema and documents at random and compares, between changes, what holds for
// readers in it with the naive merge: the value, the layer of each leaf, and the lock. A store that gets the same changes
// as the feed would bring them must say the same, whatever it has kept; see [kept].
func TestEffectiveEqualsNaive(t *testing.T) {
	t.Parallel()
	cases, workers := 10_000, 2
	if os.Getenv("ROWHOUSE_TEST_LONG") != "" {
		cases = 1_000_000
	}
	for seed := range workers {
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			t.Parallel()
			g := generator{rand.New(rand.NewPCG(uint64(seed), 36))}
			w := &scene{generator: g}
			k := newKept(t, w)
			changes := 0
			for i := range cases / workers {
				if i%20 == 0 || w.IntN(3) > 0 {
					w.change(i)
					k.follow(t, w)
					changes++
				}
				what := fmt.Sprintf("seed %d case %d", seed, i)
				w.pick()
				k.compare(t, w, w.compare(t, what), what)
				if t.Failed() {
					return
				}
				const often = 100_000
				if n := i + 1; n%often == 0 || n == cases/workers {
					t.Logf("%d cases with %d changes between them", n, changes)
				}
			}
		})
	}
}

// scene is a schema, the documents of two owners of each kind, and perhaps a rollout of one of them.
type scene struct {
	generator

	raw       settings.Object
	schema    *settings.Schema
	documents [7][2]*settings.Layer
	parents   [2]int                      // of the tenants
	killed    [3]map[string]settings.Kill // by the platform and the plans
	picked    [7]int                      // who reads: an owner of each level

	rollout *settings.Rollout
	level   int // of the rolling document, 0 without one; owner is whose it is
	owner   int
}

// tenantOf is the uid of one of the two tenants, or with level 4 of the two parents.
func tenantOf(level, owner int) tenant.UID { return uidOf(fmt.Sprintf("tenant-%d-%d", level, owner)) }

// roll begins a rollout, has it grow or ends it.
func (w *scene) roll(i int) {
	if w.rollout != nil && w.IntN(2) == 0 {
		grown := *w.rollout
		grown.Share = min(grown.Share+w.IntN(40), 100)
		w.rollout = &grown
		return
	}
	w.rollout, w.level, w.owner = nil, 1+w.IntN(5), w.IntN(2)
	if w.level == 1 {
		w.owner = 0
	}
	if w.IntN(3) == 0 {
		w.level = 0
		return
	}
	w.rollout = &settings.Rollout{
		ID: uidOf(fmt.Sprintf("rollout-%d", i)), Share: w.IntN(101), Revision: int64(i + 1), Object: w.document(),
		Canaries: map[tenant.UID]bool{tenantOf(5, w.IntN(8)): true},
	}
	switch r := w.rollout; w.level {
	case 1:
		r.Kind = settings.LevelPlatform
	case 2:
		r.Kind, r.Owner = settings.LevelPlan, "p"+strconv.Itoa(w.owner)
	case 3:
		r.Kind, r.Owner = settings.LevelRegion, "r"+strconv.Itoa(w.owner)
	default:
		r.Kind, r.Tenant = settings.LevelTenant, tenantOf(w.level, w.owner)
	}
}

// rolled is the layer that a rollout puts in a document's place, by a count of its own of who has it; nil for nobody.
func (w *scene) rolled(who tenant.UID, picked [7]int) *settings.Layer {
	if w.level == 0 || w.level > 1 && picked[w.level] != w.owner {
		return nil
	}
	sum := sha256.Sum256(append(append([]byte{}, w.rollout.ID[:]...), who[:]...))
	at := new(big.Int).SetBytes(sum[:8]) // of 2^64: below share/100?
	below := new(big.Int).Lsh(big.NewInt(int64(w.rollout.Share)), 64)
	at.Mul(at, big.NewInt(100))
	if !w.rollout.Canaries[who] && at.Cmp(below) >= 0 {
		return nil
	}
	name := []string{"", "platform", "plans/p" + strconv.Itoa(w.owner), "regions/r" + strconv.Itoa(w.owner), "parent", "tenants/" + who.String()}
	return &settings.Layer{Name: name[w.level], Revision: w.rollout.Revision, Object: w.rollout.Object}
}

func (w *scene) change(i int) {
	if i%20 == 0 {
		for w.raw = w.generator.schema(0); !acceptable(w.raw); {
			w.raw = w.generator.schema(0)
		}
		w.schema = settings.NewSchema(w.raw)
		if found := settings.CheckKeywords(w.raw); len(found) > 0 && !slices.ContainsFunc(found, func(p settings.Problem) bool {
			return strings.Contains(p.Text, "a whole")
		}) {
			panic(fmt.Sprint(w.raw, found))
		}
	}
	if w.IntN(8) == 0 {
		w.parents[w.IntN(2)] = w.IntN(2)
	}
	if w.IntN(3) == 0 {
		w.killAt(i, w.IntN(3))
	}
	level, owner := 1+w.IntN(6), w.IntN(2)
	if level == 1 {
		owner = 0
	}
	if w.IntN(4) == 0 {
		w.roll(i)
	}
	if w.IntN(5) == 0 {
		w.documents[level][owner] = nil
		return
	}
	w.documents[level][owner] = &settings.Layer{
		Revision: int64(i + 1), Object: w.document(),
	}
}

// document is one that could be written.
func (w *scene) document() settings.Object {
	for {
		if o := w.object(w.raw, 0, true); acceptable(o) {
			return o
		}
	}
}

func acceptable(o settings.Object) bool {
	_, err := settings.Parse(settings.Canonical(o))
	return err == nil
}

// killAt has the platform, or one of the plans, kill a few places and lift what it killed before.
func (w *scene) killAt(i, at int) {
	w.killed[at] = nil
	for range w.IntN(4) {
		pointer := fmt.Sprint(w.one("/a", "/b", "/c", "/d", "/a/a", "/a/b", "/b/a", "/b/c/a", "/d/d", "/c/b"))
		layer := []string{settings.LayerPlatform, settings.LayerPlan("p0"), settings.LayerPlan("p1")}[at]
		k := settings.ReadKill(pointer, layer, settings.KillEntry("it broke", "ada", time.Unix(int64(i), 0)))
		k.Revision = int64(i + 1)
		if w.killed[at] == nil {
			w.killed[at] = map[string]settings.Kill{}
		}
		w.killed[at][pointer] = k
	}
}

// kills are those for the reader: a plan's own over the platform's.
func (w *scene) kills() []settings.Kill {
	all := maps.Clone(w.killed[0])
	if all == nil {
		all = map[string]settings.Kill{}
	}
	maps.Copy(all, w.killed[1+w.picked[2]])
	return slices.SortedFunc(maps.Values(all), func(a, b settings.Kill) int { return strings.Compare(a.Pointer, b.Pointer) })
}

// pick chooses who reads.
func (w *scene) pick() {
	for level := 2; level < len(w.picked); level++ {
		w.picked[level] = w.IntN(2)
	}
	w.picked[4] = w.parents[w.picked[5]]
}

// reader is who reads.
func (w *scene) reader() settings.Reader {
	return settings.Reader{
		UID: tenantOf(5, w.picked[5]), Plan: "p" + strconv.Itoa(w.picked[2]), Region: "r" + strconv.Itoa(w.picked[3]), Environment: strconv.Itoa(w.picked[6]),
	}
}

// layer is the document of one level that the reader's settings are made of.
func (w *scene) layer(level int) *settings.Layer {
	l := w.documents[level][w.picked[level]]
	if l == nil {
		return nil
	}
	who := w.reader()
	names := []string{
		"", settings.LayerPlatform, settings.LayerPlan(who.Plan), settings.LayerRegion(who.Region), settings.LayerParent,
		settings.LayerTenant(who.UID.String()), settings.LayerEnvironment(who.UID.String(), who.Environment),
	}
	return &settings.Layer{Name: names[level], Revision: l.Revision, Object: l.Object}
}

// compare compares what the real merge makes of the reader's layers with the naive one, and returns the former.
func (w *scene) compare(t *testing.T, what string) settings.Effective {
	t.Helper()
	layers := [7]*settings.Layer{0: {Name: settings.LayerSchema, Object: w.schema.Defaults()}}
	for level := 1; level < len(layers); level++ {
		layers[level] = w.layer(level)
	}
	who, kills := w.reader(), w.kills()
	stack := settings.Stack{
		Rolling: w.rollout.For(who, tenantOf(4, w.picked[4])), Kills: kills,
		Schema: w.schema, Platform: layers[1], Plan: layers[2], Region: layers[3], Parent: layers[4], Tenant: layers[5], Environment: layers[6],
	}
	e := stack.Effective()
	rolled := w.rolled(who.UID, w.picked)
	if rolled != nil {
		layers[w.level] = rolled
	}
	n := &node{members: map[string]*node{}}
	for level, l := range layers {
		if l == nil {
			continue
		}
		var v any = l.Object
		if level > 0 {
			kept, ok := strip(w.raw, level, v)
			if !ok {
				continue
			}
			v = kept
		}
		if n = lay(w.raw, n, l.Name, v); n == nil {
			n = &node{members: map[string]*node{}}
		}
	}
	for _, k := range slices.SortedFunc(slices.Values(kills), func(a, b settings.Kill) int { return len(b.Pointer) - len(a.Pointer) }) {
		n = kill(w.raw, n, strings.Split(k.Pointer, "/")[1:], k.Layer+"/kill")
	}
	want := map[string]string{}
	value := spread(n, "", want)
	if _, ok := value.(settings.Object); !ok {
		value = settings.Object{}
		clear(want)
	}
	got := map[string]string{}
	for _, o := range e.Origins {
		got[o.Pointer] = o.Layer
		if lock := lockOn(w.raw, o.Pointer); o.Lock != lock || slices.Contains(o.Shadowed, o.Layer) {
			t.Errorf("%s: %v, lock %q", what, o, lock)
		}
		if fromRollout := rolled != nil && o.Layer == rolled.Name; fromRollout != (o.Rollout != "") {
			t.Errorf("%s: %v, of a rollout: %t", what, o, fromRollout)
		}
	}
	if string(settings.Canonical(value)) != string(settings.Canonical(e.Object)) || !maps.Equal(want, got) || len(got) != len(e.Origins) {
		t.Errorf("%s: schema %s\nvalue %s\nnaive %s\norigins %v\nnaive %v", what, settings.Canonical(w.raw),
			settings.Canonical(e.Object), settings.Canonical(value), got, want)
		for _, l := range layers {
			if l != nil {
				t.Errorf("%s: %s", l.Name, settings.Canonical(l.Object))
			}
		}
	}
	return e
}
