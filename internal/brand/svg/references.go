package svg

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rowhouse-platform/rowhouse/internal/brand"
)

// A weight is what an element costs who draws it, with all that it refers to.
type weight struct{ nodes, bytes int }

// add stops at a number far above the limits, so that no chain of doublings overflows.
func (w *weight) add(other weight) {
	w.nodes, w.bytes = min(w.nodes+other.nodes, 1<<30), min(w.bytes+other.bytes, 1<<30)
}

// A grapher walks the tree and its references as one graph: a cycle hangs who draws it, and ten levels of ten <use>
// each are 10¹⁰ nodes in a file of 2 KB.
type grapher struct {
	ids  map[string]*element
	done map[*element]weight
	path map[*element]bool // what is being expanded
}

func checkReferences(root *element) error {
	g := grapher{ids: map[string]*element{}, done: map[*element]weight{}, path: map[*element]bool{}}
	if err := g.collect(root); err != nil {
		return err
	}
	total, err := g.expand(root)
	if err != nil {
		return err
	}
	if total.nodes > MaxNodes || total.bytes > MaxExpanded {
		return &brand.Refusal{Rule: "expansion", Text: fmt.Sprintf("more than %d nodes or %d bytes with each reference followed", MaxNodes,
			MaxExpanded)}
	}
	return nil
}

func (g *grapher) collect(e *element) error {
	if id := e.attribute("id"); id != "" {
		if g.ids[id] != nil {
			return e.refuse("id", id+" stands twice")
		}
		g.ids[id] = e
	}
	for _, child := range e.children {
		if err := g.collect(child); err != nil {
			return err
		}
	}
	return nil
}

func (g *grapher) expand(e *element) (weight, error) {
	if w, done := g.done[e]; done {
		return w, nil
	}
	if g.path[e] {
		return weight{}, e.refuse("cycle", "refers to itself")
	}
	g.path[e] = true
	defer delete(g.path, e)
	total := weight{nodes: 1, bytes: len(e.text)}
	below := slices.Clone(e.children)
	for _, a := range e.attributes {
		total.bytes += len(a.value)
		target, err := g.target(e, a)
		if err != nil {
			return weight{}, err
		}
		if target != nil {
			below = append(below, target)
		}
	}
	for _, next := range below {
		w, err := g.expand(next)
		if err != nil {
			return weight{}, err
		}
		total.add(w)
	}
	g.done[e] = total
	return total, nil
}

// target is what an attribute refers to, or nil; the attribute decides what it may be.
func (g *grapher) target(e *element, a attribute) (*element, error) {
	id, isReference := strings.CutPrefix(a.value, "url(#")
	id, _, _ = strings.Cut(id, ")")
	if a.name == "href" {
		id, isReference = strings.CutPrefix(a.value, "#")
	}
	if !isReference {
		return nil, nil //nolint:nilnil // no target is no error
	}
	target := g.ids[id]
	if target == nil {
		return nil, e.refuse("reference", a.name+" refers to no element: "+id)
	}
	var good string
	switch {
	case a.name == "fill" || a.name == "stroke":
		good = "linearGradient radialGradient pattern"
	case a.name == "clip-path":
		good = "clipPath"
	case a.name == "mask":
		good = "mask"
	case e.name == "pattern":
		good = "pattern"
	case e.name == "use":
		good = "g symbol use path rect circle ellipse line polyline polygon text"
	default:
		good = "linearGradient radialGradient"
	}
	if !slices.Contains(strings.Fields(good), target.name) {
		return nil, e.refuse("reference", fmt.Sprintf("%s of <%s> refers to a <%s>", a.name, e.name, target.name))
	}
	return target, nil
}
