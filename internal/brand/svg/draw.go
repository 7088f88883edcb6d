package svg

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/draw"
	"math"
	"strings"

	"github.com/rowhouse-platform/rowhouse/internal/brand"
	"github.com/rowhouse-platform/rowhouse/internal/brand/raster"
)

// MaxSide is the largest side of a picture that Draw makes, in pixels.
const MaxSide = 512

// work bounds what a drawing may cost, in units of about ten nanoseconds. A logo takes a hundredth of it.
const work = 100_000_000

// maxLayers bounds how many pictures are in memory for what is translucent, clipped or masked as a whole.
const maxLayers = 12

// Draw makes pixels of a file that [Sanitise] returned, as large as its shape fits a square of side pixels. It draws paths, shapes,
// strokes, gradients, clips, masks and <use>. What it cannot draw as browsers do it refuses: text, for which it would need
// typefaces, patterns, blending, and lengths in em. Its work is bounded; errors are of type *brand.Refusal.
func Draw(clean []byte, side int) (picture *image.RGBA, err error) {
	defer func() { // a fault in here must not take the publisher with it
		if fault := recover(); fault != nil {
			picture, err = nil, &brand.Refusal{Rule: "drawing", Text: fmt.Sprintf("it cannot be drawn: %v", fault)}
		}
	}()
	if side < 1 || side > MaxSide {
		return nil, &brand.Refusal{Rule: "dimensions", Text: fmt.Sprintf("drawn with 1 to %d pixels", MaxSide)}
	}
	root, err := parse(bytes.TrimSpace(clean))
	if err != nil {
		return nil, err
	}
	if err := checkReferences(root); err != nil { // also counts what is drawn again and again
		return nil, err
	}
	d := &drawing{ids: map[string]*element{}, budget: &raster.Budget{Left: work}}
	d.index(root)
	box, err := viewBox(root)
	if err != nil {
		return nil, err
	}
	scale := float64(side) / max(box.w, box.h)
	d.size = image.Pt(max(1, int(math.Round(box.w*scale))), max(1, int(math.Round(box.h*scale))))
	picture = image.NewRGBA(image.Rectangle{Max: d.size})
	m := raster.Matrix{A: scale, D: scale, E: -box.x * scale, F: -box.y * scale}
	err = d.children(&canvas{picture, nil}, root, frame{m: m, box: box, style: initial()})
	if errors.Is(err, raster.ErrWork) || errors.Is(err, raster.ErrRange) {
		err = &brand.Refusal{Rule: "drawing", Text: "it is too much work to draw: " + strings.TrimPrefix(err.Error(), "raster: ")}
	}
	if err != nil {
		return nil, err
	}
	return picture, nil
}

// drawing is a file that is being drawn.
type drawing struct {
	ids    map[string]*element
	budget *raster.Budget
	size   image.Point
	layers int
}

func (d *drawing) index(e *element) {
	if id := e.attribute("id"); id != "" {
		d.ids[id] = e
	}
	for _, c := range e.children {
		d.index(c)
	}
}

// canvas is what is drawn on, within a clip; nil is none.
type canvas struct {
	pixels *image.RGBA
	clip   *image.Alpha
}

// frame is where and how an element is drawn.
type frame struct {
	m     raster.Matrix
	box   rectangle // of the viewport, for lengths in percent
	style style
}

type rectangle struct{ x, y, w, h float64 }

// viewBox is what of the plane a file shows.
func viewBox(root *element) (rectangle, error) {
	if v := root.attribute("viewBox"); v != "" {
		return readBox(root, v)
	}
	var r rectangle
	for name, into := range map[string]*float64{"width": &r.w, "height": &r.h} {
		n, err := measure(root, root.attribute(name), math.NaN())
		if err != nil || !(n > 0) || n > 1e5 {
			return r, root.refuse("dimensions", "the drawing has neither a viewBox nor a width and height")
		}
		*into = n
	}
	return r, nil
}

func readBox(e *element, value string) (rectangle, error) {
	n := numbersOf(value)
	if len(n) != 4 || !(n[2] > 1e-6) || !(n[3] > 1e-6) || max(n[2], n[3]) > 1e6 || max(n[2], n[3])/min(n[2], n[3]) > 100 {
		return rectangle{}, e.refuse("dimensions", "a viewBox that cannot be drawn")
	}
	return rectangle{n[0], n[1], n[2], n[3]}, nil
}

// children draws what is in an element.
func (d *drawing) children(c *canvas, e *element, f frame) error {
	for _, child := range e.children {
		if err := d.element(c, child, f); err != nil {
			return err
		}
	}
	return nil
}

// element draws an element and what is in it.
func (d *drawing) element(c *canvas, e *element, f frame) error {
	if err := d.budget.Spend(100); err != nil {
		return err
	}
	switch e.name {
	case "defs", "symbol", "clipPath", "mask", "linearGradient", "radialGradient", "pattern", "title", "desc", textNode:
		return nil
	case "text":
		return e.refuse("drawing", "text needs a typeface: convert it to paths")
	}
	if e.attribute("display") == "none" {
		return nil
	}
	if blend := e.attribute("mix-blend-mode"); blend != "" && blend != "normal" {
		return e.refuse("drawing", "blending cannot be drawn")
	}
	f, err := f.in(e)
	if err != nil {
		return err
	}
	return d.within(c, e, f, func(c *canvas) error { return d.content(c, e, f) })
}

// in is the frame of an element.
func (f frame) in(e *element) (frame, error) {
	var err error
	if f.style, err = f.style.of(e); err != nil {
		return f, err
	}
	m, err := transform(e, e.attribute("transform"))
	f.m = f.m.Then(m)
	if err == nil && !f.m.Sound() {
		err = raster.ErrRange
	}
	return f, err
}

// content draws an element itself.
func (d *drawing) content(c *canvas, e *element, f frame) error {
	switch e.name {
	case "g":
		return d.children(c, e, f)
	case "use":
		return d.use(c, e, f)
	default:
		return d.shape(c, e, f)
	}
}

// use draws what an element refers to.
func (d *drawing) use(c *canvas, e *element, f frame) error {
	target := d.ids[strings.TrimPrefix(e.attribute("href"), "#")]
	if target == nil {
		return nil
	}
	at, err := f.point(e, "x", "y")
	if err != nil {
		return err
	}
	f.m = f.m.Then(raster.Matrix{A: 1, D: 1, E: at.X, F: at.Y})
	if target.name != "symbol" {
		return d.element(c, target, f)
	}
	if target.attribute("display") == "none" {
		return nil
	}
	if f, err = f.in(target); err != nil || target.attribute("viewBox") == "" {
		if err != nil {
			return err
		}
		return d.children(c, target, f)
	}
	box, err := readBox(target, target.attribute("viewBox"))
	if err != nil {
		return err
	}
	if a := target.attribute("preserveAspectRatio"); a != "" && a != "xMidYMid" && a != "xMidYMid meet" {
		return target.refuse("drawing", "a symbol can be drawn only with preserveAspectRatio xMidYMid meet")
	}
	w, err := f.across(e, "width", f.box.w)
	if err != nil {
		return err
	}
	h, err := f.down(e, "height", f.box.h)
	if err != nil {
		return err
	}
	scale := min(w/box.w, h/box.h)
	if scale <= 0 {
		return nil
	}
	view := raster.Matrix{A: scale, D: scale, E: (w-box.w*scale)/2 - box.x*scale, F: (h-box.h*scale)/2 - box.y*scale}
	outer := f
	f.m, f.box = f.m.Then(view), box
	if !f.m.Sound() {
		return raster.ErrRange
	}
	clip, err := d.rectangle(outer.m, rectangle{0, 0, w, h})
	if err != nil {
		return err
	}
	inside := *c
	if inside.clip, err = d.intersect(c.clip, clip); err != nil {
		return err
	}
	return d.children(&inside, target, f)
}

// rectangle is the coverage of a rectangle.
func (d *drawing) rectangle(m raster.Matrix, r rectangle) (*image.Alpha, error) {
	p := d.path(m)
	p.Move(raster.Point{X: r.x, Y: r.y})
	p.LineTo(raster.Point{X: r.x + r.w, Y: r.y})
	p.LineTo(raster.Point{X: r.x + r.w, Y: r.y + r.h})
	p.LineTo(raster.Point{X: r.x, Y: r.y + r.h})
	if err := p.Err(); err != nil {
		return nil, err
	}
	return raster.Fill(d.size, raster.Mapped(p.Lines, m), false, d.budget)
}

// path begins a path whose curves look smooth where m leads.
func (d *drawing) path(m raster.Matrix) *raster.Path {
	return &raster.Path{Tolerance: 0.1 / max(m.Scale(), 1e-6), Budget: d.budget}
}

// whole is as large as the picture.
func (d *drawing) whole() image.Rectangle { return image.Rectangle{Max: d.size} }

// pay spends the work of passing over pixels of a picture.
func (d *drawing) pay(r image.Rectangle) error { return d.budget.Spend(r.Dx() * r.Dy()) }

// intersect is what two clips leave; nil is everything.
func (d *drawing) intersect(a, b *image.Alpha) (*image.Alpha, error) {
	if a == nil || b == nil {
		if a == nil {
			a = b
		}
		return a, nil
	}
	box := a.Rect.Intersect(b.Rect)
	if err := d.pay(box); err != nil {
		return nil, err
	}
	out := image.NewAlpha(box)
	for y := box.Min.Y; y < box.Max.Y; y++ {
		for x := box.Min.X; x < box.Max.X; x++ {
			out.Pix[out.PixOffset(x, y)] = times(a.Pix[a.PixOffset(x, y)], b.Pix[b.PixOffset(x, y)])
		}
	}
	return out, nil
}

func times(a, b uint8) uint8 { return uint8((uint(a)*uint(b) + 127) / 255) } //nolint:gosec // at most 255

// within draws what an element says of itself as a whole: its clip, mask and opacity.
func (d *drawing) within(c *canvas, e *element, f frame, draw func(*canvas) error) error {
	inside := *c
	if id := idOf(e.attribute("clip-path")); id != "" {
		clip, err := d.clip(d.ids[id], f)
		if err != nil {
			return err
		}
		if inside.clip, err = d.intersect(c.clip, clip); err != nil {
			return err
		}
	}
	opacity, err := portionOf(e, "opacity", 1)
	if err != nil {
		return err
	}
	mask := idOf(e.attribute("mask"))
	if opacity >= 1 && mask == "" {
		return draw(&inside)
	}
	through := image.NewAlpha(d.whole())
	if mask != "" {
		if through, err = d.mask(d.ids[mask], f); err != nil {
			return err
		}
		for i, a := range through.Pix {
			through.Pix[i] = uint8(math.Round(float64(a) * opacity))
		}
	} else {
		for i := range through.Pix {
			through.Pix[i] = uint8(math.Round(255 * opacity))
		}
	}
	layer, err := d.layer(func(l *canvas) error { return draw(l) })
	if err != nil {
		return err
	}
	if through, err = d.intersect(through, inside.clip); err != nil {
		return err
	}
	return d.put(c.pixels, layer, through)
}

// put puts a picture over another, through coverage.
func (d *drawing) put(onto *image.RGBA, from image.Image, through *image.Alpha) error {
	if err := d.pay(through.Rect); err != nil {
		return err
	}
	draw.DrawMask(onto, through.Rect, from, through.Rect.Min, through, through.Rect.Min, draw.Over)
	return nil
}

// layer draws on a picture of its own.
func (d *drawing) layer(fill func(*canvas) error) (*image.RGBA, error) {
	d.layers++
	defer func() { d.layers-- }()
	if d.layers > maxLayers {
		return nil, raster.ErrWork
	}
	if err := d.pay(d.whole()); err != nil {
		return nil, err
	}
	l := image.NewRGBA(d.whole())
	return l, fill(&canvas{l, nil})
}

// clip is what a clipPath leaves.
func (d *drawing) clip(e *element, f frame) (*image.Alpha, error) {
	if e.attribute("clipPathUnits") == "objectBoundingBox" {
		return nil, e.refuse("drawing", "a clipPath can be drawn only in units of user space")
	}
	f, err := f.in(e)
	if err != nil {
		return nil, err
	}
	f.style = initial()
	if rule := e.attribute("clip-rule"); rule != "" {
		f.style.word["fill-rule"] = rule
	}
	layer, err := d.layer(func(l *canvas) error {
		for _, child := range e.children {
			if err := d.clipper(l, child, f); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out := alphaOf(layer)
	if id := idOf(e.attribute("clip-path")); id != "" {
		other, err := d.clip(d.ids[id], f)
		if err != nil {
			return nil, err
		}
		return d.intersect(out, other)
	}
	return out, nil
}

// clipper draws a child of a clipPath: its shape alone counts, by its clip-rule.
func (d *drawing) clipper(l *canvas, e *element, f frame) error {
	if e.name == "g" { // not allowed there, and not drawn
		return nil
	}
	plain := *e
	plain.attributes = nil
	for _, a := range e.attributes {
		switch a.name {
		case "fill", "stroke", "opacity", "fill-opacity", "mask", "fill-rule":
		case "clip-rule":
			plain.attributes = append(plain.attributes, a, attribute{"fill-rule", a.value})
		default:
			plain.attributes = append(plain.attributes, a)
		}
	}
	if e.name == "use" {
		f, err := f.in(&plain)
		if err != nil {
			return err
		}
		at, err := f.point(e, "x", "y")
		if err != nil {
			return err
		}
		f.m = f.m.Then(raster.Matrix{A: 1, D: 1, E: at.X, F: at.Y})
		if target := d.ids[strings.TrimPrefix(e.attribute("href"), "#")]; target != nil && target.name != "use" {
			return d.clipper(l, target, f)
		}
		return nil
	}
	return d.element(l, &plain, f)
}

func alphaOf(layer *image.RGBA) *image.Alpha {
	out := image.NewAlpha(layer.Rect)
	for i := range out.Pix {
		out.Pix[i] = layer.Pix[4*i+3]
	}
	return out
}

// mask is what a mask leaves: by how light it is, or by how opaque.
func (d *drawing) mask(e *element, f frame) (*image.Alpha, error) {
	if e.attribute("maskContentUnits") == "objectBoundingBox" {
		return nil, e.refuse("drawing", "a mask can be drawn only with content in units of user space")
	}
	var err error
	if f.style, err = initial().of(e); err != nil {
		return nil, err
	}
	layer, err := d.layer(func(l *canvas) error { return d.children(l, e, f) })
	if err != nil {
		return nil, err
	}
	out := alphaOf(layer)
	if e.attribute("mask-type") != "alpha" {
		for i := range out.Pix { // premultiplied, so what is translucent counts less
			p := layer.Pix[4*i : 4*i+3]
			out.Pix[i] = uint8(0.2126*float64(p[0]) + 0.7152*float64(p[1]) + 0.0722*float64(p[2]) + 0.5)
		}
	}
	if e.attribute("maskUnits") == "userSpaceOnUse" {
		r := rectangle{-0.1 * f.box.w, -0.1 * f.box.h, 1.2 * f.box.w, 1.2 * f.box.h}
		for _, side := range []struct {
			name string
			into *float64
			of   float64
		}{{"x", &r.x, f.box.w}, {"y", &r.y, f.box.h}, {"width", &r.w, f.box.w}, {"height", &r.h, f.box.h}} {
			if value := e.attribute(side.name); value != "" {
				if *side.into, err = measure(e, value, side.of); err != nil {
					return nil, err
				}
			}
		}
		region, err := d.rectangle(f.m, r)
		if err != nil {
			return nil, err
		}
		return d.intersect(out, region)
	}
	return out, nil
}

// idOf is the id that url(#id) names, or "".
func idOf(value string) string {
	id, ok := strings.CutPrefix(value, "url(#")
	if !ok {
		return ""
	}
	id, _, _ = strings.Cut(id, ")")
	return id
}
