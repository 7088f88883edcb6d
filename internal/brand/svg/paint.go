package svg

import (
	"image"
	"image/color"
	"maps"
	"math"
	"strconv"
	"strings"

	"golang.org/x/image/colornames"

	"github.com/rowhouse-platform/rowhouse/internal/brand/raster"
)

// style is what elements inherit.
type style struct {
	fill, stroke string // as they are written
	color        color.NRGBA
	word         map[string]string
	number       map[string]float64
}

func initial() style {
	return style{
		fill: "black", stroke: "none", color: color.NRGBA{A: 255},
		word: map[string]string{
			"fill-rule": "nonzero", "stroke-linecap": "butt", "stroke-linejoin": "miter", "visibility": "visible", "paint-order": "normal",
			"stroke-width": "1", "stroke-dashoffset": "0", "stroke-dasharray": "none",
		},
		number: map[string]float64{"fill-opacity": 1, "stroke-opacity": 1, "stroke-miterlimit": 4},
	}
}

// of is the style of an element inside of s.
func (s style) of(e *element) (style, error) {
	s.word, s.number = maps.Clone(s.word), maps.Clone(s.number)
	for _, a := range e.attributes {
		switch a.name {
		case "fill", "stroke":
			if a.value == "inherit" {
				continue
			}
			if a.name == "fill" {
				s.fill = a.value
			} else {
				s.stroke = a.value
			}
		case "color":
			c, err := s.colourOf(e, a.value)
			if err != nil {
				return s, err
			}
			s.color = c
		case "fill-opacity", "stroke-opacity":
			n, err := portionOf(e, a.name, 1)
			if err != nil {
				return s, err
			}
			s.number[a.name] = n
		case "stroke-miterlimit":
			n, err := measure(e, a.value, 1)
			if err != nil {
				return s, err
			}
			s.number[a.name] = n
		default:
			if _, inherited := s.word[a.name]; inherited {
				s.word[a.name] = a.value
			}
		}
	}
	return s, nil
}

// colourOf reads a colour that grammar.go let through.
func (s style) colourOf(e *element, value string) (color.NRGBA, error) {
	lower := strings.ToLower(value)
	refused := e.refuse("drawing", "a colour that cannot be drawn: "+value)
	switch {
	case lower == "currentcolor" || lower == "inherit":
		return s.color, nil
	case lower == "transparent":
		return color.NRGBA{}, nil
	case lower[0] == '#':
		digits := lower[1:]
		if len(digits) < 6 {
			var wide strings.Builder
			for _, d := range digits {
				wide.WriteString(string([]rune{d, d}))
			}
			digits = wide.String()
		}
		if len(digits) == 6 {
			digits += "ff"
		}
		n, err := strconv.ParseUint(digits, 16, 32)
		if err != nil {
			return color.NRGBA{}, refused
		}
		return color.NRGBA{uint8(n >> 24), uint8(n >> 16), uint8(n >> 8), uint8(n)}, nil //nolint:gosec // a byte each
	case strings.HasPrefix(lower, "rgb"):
		return functional(lower, refused)
	}
	named, ok := colornames.Map[lower]
	if !ok {
		return color.NRGBA{}, refused
	}
	return color.NRGBA(named), nil // all are opaque
}

// functional reads rgb() and rgba().
func functional(value string, refused error) (color.NRGBA, error) {
	_, inside, _ := strings.Cut(value, "(")
	parts := strings.FieldsFunc(inside, func(r rune) bool { return strings.ContainsRune(" ,/)", r) })
	if len(parts) != 3 && len(parts) != 4 {
		return color.NRGBA{}, refused
	}
	out := [4]uint8{3: 255}
	for i, p := range parts {
		most := 255.0
		if i == 3 {
			most = 1
		}
		digits, percent := strings.CutSuffix(p, "%")
		n, err := strconv.ParseFloat(digits, 64)
		if err != nil {
			return color.NRGBA{}, refused
		}
		if percent {
			most = 100
		}
		out[i] = uint8(math.Round(255 * min(max(n/most, 0), 1)))
	}
	return color.NRGBA{out[0], out[1], out[2], out[3]}, nil
}

// paint is what a shape is painted with, nil for nothing.
func (d *drawing) paint(e *element, f frame, value string, opacity float64, lines []raster.Line) (image.Image, error) {
	if value == "none" || opacity <= 0 {
		return nil, nil //nolint:nilnil // no paint is no error
	}
	id := idOf(value)
	if id == "" {
		c, err := f.style.colourOf(e, value)
		c.A = uint8(math.Round(float64(c.A) * opacity))
		return image.NewUniform(c), err
	}
	g, err := d.gradient(d.ids[id], f, lines)
	if err != nil || g == nil {
		return nil, err
	}
	for i := range g.ramp {
		g.ramp[i].A = uint8(math.Round(float64(g.ramp[i].A) * opacity))
	}
	if err := d.pay(d.whole()); err != nil {
		return nil, err
	}
	return g, d.pay(d.whole())
}

// gradient is an image that goes on for ever.
type gradient struct {
	back   raster.Matrix // from pixels to the gradient's own space
	ramp   [256]color.NRGBA
	spread string
	at     func(p raster.Point) (t float64, ok bool)
}

// ColorModel, Bounds and At make it an image.
func (g *gradient) ColorModel() color.Model { return color.NRGBAModel }

// Bounds is as large as an image may be.
func (g *gradient) Bounds() image.Rectangle { return image.Rect(-1e9, -1e9, 1e9, 1e9) }

// At is the colour in the middle of a pixel.
func (g *gradient) At(x, y int) color.Color {
	t, ok := g.at(g.back.Apply(raster.Point{X: float64(x) + 0.5, Y: float64(y) + 0.5}))
	if !ok || math.IsNaN(t) {
		return color.NRGBA{}
	}
	switch g.spread {
	case "repeat":
		t -= math.Floor(t)
	case "reflect":
		if t = math.Mod(math.Abs(t), 2); t > 1 {
			t = 2 - t
		}
	}
	return g.ramp[int(math.Round(min(max(t, 0), 1)*255))]
}

// chainOf are a gradient and those that it refers to, which say what it leaves open.
func (d *drawing) chainOf(e *element) (all []*element) {
	for ; e != nil && len(all) < MaxDepth; e = d.ids[strings.TrimPrefix(e.attribute("href"), "#")] {
		all = append(all, e)
	}
	return all
}

func said(chain []*element, name, without string) string {
	for _, e := range chain {
		if v := e.attribute(name); v != "" {
			return v
		}
	}
	return without
}

// gradient reads a gradient for a shape; nil is one that paints nothing.
func (d *drawing) gradient(e *element, f frame, lines []raster.Line) (*gradient, error) {
	if e.name == "pattern" {
		return nil, e.refuse("drawing", "a pattern cannot be drawn")
	}
	chain := d.chainOf(e)
	g := &gradient{spread: said(chain, "spreadMethod", "pad")}
	stops, err := stopsOf(chain, f)
	if err != nil || len(stops) == 0 {
		return nil, err
	}
	g.fill(stops)
	m, err := transform(e, said(chain, "gradientTransform", ""))
	if err != nil {
		return nil, err
	}
	box := f.box
	if said(chain, "gradientUnits", "objectBoundingBox") == "objectBoundingBox" {
		around := bounds(lines)
		if around.w <= 0 || around.h <= 0 {
			return nil, nil //nolint:nilnil // as SVG says: such a shape is not painted
		}
		m = raster.Matrix{A: around.w, D: around.h, E: around.x, F: around.y}.Then(m)
		box = rectangle{0, 0, 1, 1}
	}
	var ok bool
	if g.back, ok = f.m.Then(m).Invert(); !ok {
		return nil, nil //nolint:nilnil // it is seen from its edge
	}
	get := func(name, without string, of float64) (n float64) {
		if err == nil {
			n, err = measure(e, said(chain, name, without), of)
		}
		return n
	}
	if e.name == "linearGradient" {
		from := raster.Point{X: get("x1", "0", box.w), Y: get("y1", "0", box.h)}
		to := raster.Point{X: get("x2", "100%", box.w), Y: get("y2", "0", box.h)}
		dx, dy := to.X-from.X, to.Y-from.Y
		length := dx*dx + dy*dy
		g.at = func(p raster.Point) (float64, bool) {
			if length == 0 {
				return 1, true
			}
			return ((p.X-from.X)*dx + (p.Y-from.Y)*dy) / length, true
		}
		return g, err
	}
	c := raster.Point{X: get("cx", "50%", box.w), Y: get("cy", "50%", box.h)}
	r := get("r", "50%", math.Hypot(box.w, box.h)/math.Sqrt2)
	focus := raster.Point{X: c.X, Y: c.Y}
	if said(chain, "fx", "") != "" {
		focus.X = get("fx", "", box.w)
	}
	if said(chain, "fy", "") != "" {
		focus.Y = get("fy", "", box.h)
	}
	g.at = radial(c, r, focus, get("fr", "0", math.Hypot(box.w, box.h)/math.Sqrt2))
	return g, err
}

// radial tells on which of the circles between the focal and the outer one a point lies: the largest t with
// |p - (f + t (c-f))| = fr + t (r-fr).
func radial(c raster.Point, r float64, f raster.Point, fr float64) func(p raster.Point) (float64, bool) {
	dx, dy, dr := c.X-f.X, c.Y-f.Y, r-fr
	a := dx*dx + dy*dy - dr*dr
	return func(p raster.Point) (float64, bool) {
		if r <= 0 {
			return 1, true
		}
		px, py := p.X-f.X, p.Y-f.Y
		b, q := px*dx+py*dy+fr*dr, px*px+py*py-fr*fr
		if math.Abs(a) < 1e-12 {
			if math.Abs(b) < 1e-12 {
				return 0, false
			}
			t := q / (2 * b)
			return t, fr+t*dr >= 0
		}
		root := b*b - a*q
		if root < 0 {
			return 0, false
		}
		root = math.Sqrt(root)
		one, other := (b+root)/a, (b-root)/a
		for _, t := range []float64{max(one, other), min(one, other)} {
			if fr+t*dr >= 0 {
				return t, true
			}
		}
		return 0, false
	}
}

// stop is a colour at a place of a gradient.
type stop struct {
	at float64
	c  color.NRGBA
}

// stopsOf are the stops of the first in a chain that has some.
func stopsOf(chain []*element, f frame) (all []stop, err error) {
	for _, e := range chain {
		for _, s := range e.children {
			if s.name != "stop" {
				continue
			}
			at, err := portionOf(s, "offset", 0)
			if err != nil {
				return nil, err
			}
			if n := len(all); n > 0 {
				at = max(at, all[n-1].at)
			}
			c := color.NRGBA{A: 255}
			if v := s.attribute("stop-color"); v != "" {
				if c, err = f.style.colourOf(s, v); err != nil {
					return nil, err
				}
			}
			opacity, err := portionOf(s, "stop-opacity", 1)
			if err != nil {
				return nil, err
			}
			c.A = uint8(math.Round(float64(c.A) * opacity))
			all = append(all, stop{at, c})
		}
		if len(all) > 0 {
			break
		}
	}
	return all, nil
}

// fill makes the ramp of stops.
func (g *gradient) fill(all []stop) {
	next := 0
	for i := range g.ramp {
		t := float64(i) / float64(len(g.ramp)-1)
		for next < len(all) && all[next].at <= t {
			next++
		}
		switch {
		case next == 0:
			g.ramp[i] = all[0].c
		case next == len(all):
			g.ramp[i] = all[next-1].c
		default:
			from, to := all[next-1], all[next]
			g.ramp[i] = mix(from.c, to.c, (t-from.at)/(to.at-from.at))
		}
	}
}

func mix(a, b color.NRGBA, t float64) color.NRGBA {
	one := func(a, b uint8) uint8 { return uint8(math.Round(float64(a) + (float64(b)-float64(a))*t)) }
	return color.NRGBA{one(a.R, b.R), one(a.G, b.G), one(a.B, b.B), one(a.A, b.A)}
}

// bounds is the box around lines.
func bounds(lines []raster.Line) rectangle {
	least, most := raster.Point{X: math.Inf(1), Y: math.Inf(1)}, raster.Point{X: math.Inf(-1), Y: math.Inf(-1)}
	for _, l := range lines {
		for _, p := range l.Points {
			least = raster.Point{X: min(least.X, p.X), Y: min(least.Y, p.Y)}
			most = raster.Point{X: max(most.X, p.X), Y: max(most.Y, p.Y)}
		}
	}
	return rectangle{least.X, least.Y, most.X - least.X, most.Y - least.Y}
}
