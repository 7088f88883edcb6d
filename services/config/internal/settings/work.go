package settings

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"

	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// What a check may cost. A recursive schema with alternatives that share a member is looked at twice for each level of a
// document, so a few hundred bytes could keep a process busy for years.
const (
	// baseWork is what any document may cost, workPerValue what it may for each of its values, and maxWork what it may in all.
	// A unit is about a visit of a schema, that is one or two microseconds and some 200 bytes.
	baseWork     = 50_000
	workPerValue = 100
	maxWork      = 1_000_000
	// bytesOfWork of text, and as many values of an enum, are a unit of work; so are levelsOfWork above a value, because
	// each error holds a copy of its path.
	bytesOfWork  = 64
	levelsOfWork = 8
	// maxExpansion bounds the schemas that are about one and the same value.
	maxExpansion = 10_000

	ruleBounds = "bounds"
	costly     = "takes too much work to check: parts of the schema are about the same values again and again"
)

// meter bounds the work of one validation at a time. The library calls formats before anything of a schema that could
// recurse, in all modes, and has no other way to be stopped: so each schema gets one that counts.
type meter struct {
	mu sync.Mutex
	// gauges are of all schemas that were compiled.
	gauges []*gauge
	left   int
	// places of the objects and arrays of the document that is checked, and the last one that was looked at.
	places map[uintptr]place
	at     place
	spent  map[string]int
}

// place is how deep a value is, and in which member of the document.
type place struct {
	depth int
	top   string
}

// errWork is thrown through the library.
var errWork = errors.New("settings: the check takes too much work")

// vocabulary has no keywords. It is told of each schema that is compiled.
func (m *meter) vocabulary() *jsonschema.Vocabulary {
	return &jsonschema.Vocabulary{
		URL: "https://schema.invalid/work",
		Compile: func(c *jsonschema.CompilerContext, _ map[string]any) (jsonschema.SchemaExt, error) {
			g := &gauge{meter: m, schema: c.Enqueue(nil)}
			g.asserted, g.schema.Format = g.schema.Format, &jsonschema.Format{Name: "work", Validate: g.look}
			if g.asserted != nil {
				g.schema.Format.Name = g.asserted.Name
			}
			m.gauges = append(m.gauges, g)
			return nil, nil
		},
	}
}

// validate is schema.Validate with a budget. Where that does not suffice the error is errWork, and where is the member that
// took the most.
func (m *meter) validate(schema *jsonschema.Schema, v any) (where string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.places, m.spent, m.at = make(map[uintptr]place), make(map[string]int), place{}
	m.left = min(baseWork+workPerValue*m.survey(v, place{}), maxWork)
	defer func() {
		if r := recover(); r == errWork { //nolint:errorlint // what was thrown, and nothing around it
			where, err = m.most(), errWork
		} else if r != nil {
			panic(r)
		}
	}()
	return "", schema.Validate(v)
}

// survey notes where objects and arrays are, and returns the size of a value in units.
func (m *meter) survey(v any, at place) int {
	size := 1
	switch v := v.(type) {
	case string:
		size += len(v) / bytesOfWork
	case map[string]any:
		m.note(reflect.ValueOf(v), at)
		for name, member := range v {
			below := place{at.depth + 1, at.top}
			if at.depth == 0 {
				below.top = sdk.Pointer(name)
			}
			size += m.survey(member, below)
		}
	case []any:
		m.note(reflect.ValueOf(v), at)
		for _, item := range v {
			size += m.survey(item, place{at.depth + 1, at.top})
		}
	}
	return size
}

func (m *meter) note(v reflect.Value, at place) {
	if v.Len() > 0 { // empty arrays may share an address
		m.places[v.Pointer()] = at
	}
}

// most is the member that took the most work.
func (m *meter) most() (top string) {
	for name, n := range m.spent {
		if n > m.spent[top] || n == m.spent[top] && name < top {
			top = name
		}
	}
	return top
}

// gauge counts what is done for one schema.
type gauge struct {
	meter    *meter
	schema   *jsonschema.Schema
	asserted *jsonschema.Format // of older dialects
	// weight is the cost of a value, each that of each of its members; 0 until they are needed.
	weight, each int
}

// look is called before a schema is applied to a value.
func (g *gauge) look(v any) error {
	if g.weight == 0 {
		g.weigh()
	}
	cost := g.weight
	switch v := v.(type) {
	case string:
		cost += len(v) / bytesOfWork
	case map[string]any:
		cost += len(v)*g.each + g.meter.enter(reflect.ValueOf(v))
	case []any:
		cost += len(v)*g.each + g.meter.enter(reflect.ValueOf(v))
	}
	g.meter.spend(cost)
	if g.asserted != nil {
		return g.asserted.Validate(v)
	}
	return nil
}

// enter notes that an object or an array is looked at, and returns what its depth costs.
func (m *meter) enter(v reflect.Value) int {
	if at, ok := m.places[v.Pointer()]; ok && v.Len() > 0 {
		m.at = at
	}
	return m.at.depth / levelsOfWork
}

// Costly tells of an effective value whether it takes too much work to check.
func (s *Schema) Costly(e sdk.Effective) []Finding {
	where, err := s.meter.validate(s.compiled, e.Object)
	if !errors.Is(err, errWork) {
		return nil
	}
	return []Finding{{Problem: sdk.Problem{Pointer: where, Rule: ruleBounds, Text: costly}}}
}

func (m *meter) spend(cost int) {
	m.spent[m.at.top] += cost
	if m.left -= cost; m.left < 0 {
		panic(errWork)
	}
}

// weigh finds out what the schema costs. Types and enums are asked before formats, so they are counted where they stand.
func (g *gauge) weigh() {
	s := g.schema
	g.weight, g.each = 1+len(s.Required)/bytesOfWork, 1+len(s.PatternProperties)
	for _, below := range slices.Concat(s.AllOf, s.AnyOf, s.OneOf, s.PrefixItems) {
		g.weight += 1 + enumWork(below)
	}
	most := 0
	for _, below := range s.Properties {
		most = max(most, enumWork(below))
	}
	for _, below := range s.PatternProperties {
		most = max(most, enumWork(below))
	}
	for _, below := range []any{s.AdditionalProperties, s.Items, s.Items2020, s.Contains, s.UnevaluatedProperties, s.UnevaluatedItems} {
		if below, ok := below.(*jsonschema.Schema); ok {
			most = max(most, enumWork(below))
		}
	}
	g.each += most
}

func enumWork(s *jsonschema.Schema) int {
	if s == nil || s.Enum == nil {
		return 0
	}
	return len(s.Enum.Values) / bytesOfWork
}

// checkExpansion refuses schemas that are applied to one value too often, such as a ladder of references of which each
// step stands twice on the next.
func (m *meter) checkExpansion() error {
	e := expansion{}
	slices.SortFunc(m.gauges, func(a, b *gauge) int { return strings.Compare(a.schema.Location, b.schema.Location) })
	for _, g := range m.gauges {
		switch n := e.of(g.schema); {
		case n < 0:
			return fmt.Errorf("%w: %s refers to itself for the same value", ErrSchema, at(g.schema))
		case n > maxExpansion:
			return fmt.Errorf("%w: %s leads to more than %d schemas for the same value", ErrSchema, at(g.schema), maxExpansion)
		}
	}
	return nil
}

// at is where a schema stands, as a pointer.
func at(s *jsonschema.Schema) string {
	_, fragment, _ := strings.Cut(s.Location, "#")
	return quotePointer(fragment)
}

// expansion is how many schemas are applied to a value with each schema, -1 if that never ends, and 0 while it is counted.
type expansion map[*jsonschema.Schema]int

func (e expansion) of(s *jsonschema.Schema) int {
	if n, known := e[s]; known {
		if n == 0 {
			return -1
		}
		return n
	}
	e[s] = 0
	n := 1
	for _, below := range besides(s) {
		if below == nil {
			continue
		}
		more := e.of(below)
		if more < 0 {
			n = -1
			break
		}
		n = min(n+more, maxExpansion+1)
	}
	e[s] = n
	return n
}

// besides are the schemas that are applied to the same value as s.
func besides(s *jsonschema.Schema) []*jsonschema.Schema {
	out := slices.Concat([]*jsonschema.Schema{s.Ref, s.Not, s.If, s.Then, s.Else}, s.AllOf, s.AnyOf, s.OneOf)
	for _, below := range s.DependentSchemas {
		out = append(out, below)
	}
	for _, below := range s.Dependencies {
		if below, ok := below.(*jsonschema.Schema); ok {
			out = append(out, below)
		}
	}
	return out
}
