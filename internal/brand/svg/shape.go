package svg

import (
	"image"
	"math"

	"github.com/rowhouse-platform/rowhouse/internal/brand/raster"
)

// shape draws a path or a basic shape: what fills it, and its stroke.
func (d *drawing) shape(c *canvas, e *element, f frame) error {
	p := d.path(f.m)
	if err := f.outline(p, e); err != nil {
		return err
	}
	if err := p.Err(); err != nil {
		return err
	}
	if f.style.word["visibility"] == "hidden" || len(p.Lines) == 0 {
		return nil
	}
	if e.attribute("vector-effect") == "non-scaling-stroke" {
		return e.refuse("drawing", "vector-effect cannot be drawn")
	}
	paints := []func() error{
		func() error { return d.fill(c, e, f, p.Lines) },
		func() error { return d.stroke(c, e, f, p.Lines) },
	}
	if f.style.word["paint-order"] == "stroke" {
		paints[0], paints[1] = paints[1], paints[0]
	}
	for _, paint := range paints {
		if err := paint(); err != nil {
			return err
		}
	}
	return nil
}

// fill paints the inside of a shape.
func (d *drawing) fill(c *canvas, e *element, f frame, lines []raster.Line) error {
	from, err := d.paint(e, f, f.style.fill, f.style.number["fill-opacity"], lines)
	if err != nil || from == nil {
		return err
	}
	cover, err := raster.Fill(d.size, raster.Mapped(lines, f.m), f.style.word["fill-rule"] == "evenodd", d.budget)
	if err != nil {
		return err
	}
	return d.cover(c, from, cover)
}

// stroke paints the outline of a shape.
func (d *drawing) stroke(c *canvas, e *element, f frame, lines []raster.Line) error {
	from, err := d.paint(e, f, f.style.stroke, f.style.number["stroke-opacity"], lines)
	if err != nil || from == nil {
		return err
	}
	pen := raster.Pen{
		Cap: f.style.word["stroke-linecap"], Join: f.style.word["stroke-linejoin"], Miter: f.style.number["stroke-miterlimit"],
	}
	diagonal := math.Hypot(f.box.w, f.box.h) / math.Sqrt2
	const read = 4 // what reading a byte takes; these are inherited, so one text may be read for each shape
	for _, name := range []string{"stroke-width", "stroke-dashoffset", "stroke-dasharray"} {
		if err := d.budget.Spend(read * len(f.style.word[name])); err != nil {
			return err
		}
	}
	if pen.Width, err = measure(e, f.style.word["stroke-width"], diagonal); err != nil {
		return err
	}
	if pen.Offset, err = measure(e, f.style.word["stroke-dashoffset"], diagonal); err != nil {
		return err
	}
	if pen.Dashes, err = measures(e, f.style.word["stroke-dasharray"], diagonal); err != nil {
		return err
	}
	if len(pen.Dashes) > 0 && e.attribute("pathLength") != "" {
		return e.refuse("drawing", "dashes by pathLength cannot be drawn")
	}
	polygons, err := raster.Stroke(lines, pen, f.m, d.budget)
	if err != nil {
		return err
	}
	cover, err := raster.Fill(d.size, polygons, false, d.budget)
	if err != nil {
		return err
	}
	return d.cover(c, from, cover)
}

// cover paints where a shape is, within the clip.
func (d *drawing) cover(c *canvas, from image.Image, cover *image.Alpha) error {
	cover, err := d.intersect(cover, c.clip)
	if err != nil {
		return err
	}
	return d.put(c.pixels, from, cover)
}

// outline draws the path of a shape.
func (f frame) outline(p *raster.Path, e *element) error {
	switch e.name {
	case "path":
		if v := e.attribute("d"); v != "" && v != "none" {
			return drawPath(p, e, v)
		}
		return nil
	case "rect":
		return f.rect(p, e)
	case "circle", "ellipse":
		return f.ellipse(p, e)
	case "line":
		from, err := f.point(e, "x1", "y1")
		if err != nil {
			return err
		}
		to, err := f.point(e, "x2", "y2")
		p.Move(from)
		p.LineTo(to)
		return err
	case "polyline", "polygon":
		n := numbersOf(e.attribute("points"))
		for i := 0; i+1 < len(n); i += 2 {
			if at := (raster.Point{X: n[i], Y: n[i+1]}); i == 0 {
				p.Move(at)
			} else {
				p.LineTo(at)
			}
		}
		if e.name == "polygon" {
			p.Close()
		}
		return nil
	default:
		return e.refuse("drawing", "<"+e.name+"> cannot be drawn")
	}
}

func (f frame) rect(p *raster.Path, e *element) error {
	at, err := f.point(e, "x", "y")
	if err != nil {
		return err
	}
	w, err := f.across(e, "width", 0)
	if err != nil {
		return err
	}
	h, err := f.down(e, "height", 0)
	if err != nil || w <= 0 || h <= 0 {
		return err
	}
	rx, err := f.across(e, "rx", -1)
	if err != nil {
		return err
	}
	ry, err := f.down(e, "ry", -1)
	if err != nil {
		return err
	}
	if rx < 0 {
		rx = ry
	}
	if ry < 0 {
		ry = rx
	}
	rx, ry = min(max(rx, 0), w/2), min(max(ry, 0), h/2)
	to := func(x, y float64) raster.Point { return raster.Point{X: at.X + x, Y: at.Y + y} }
	p.Move(to(rx, 0))
	corner := func(lineX, lineY, arcX, arcY float64) {
		p.LineTo(to(lineX, lineY))
		if rx > 0 && ry > 0 {
			p.Arc(rx, ry, 0, false, true, to(arcX, arcY))
		}
	}
	corner(w-rx, 0, w, ry)
	corner(w, h-ry, w-rx, h)
	corner(rx, h, 0, h-ry)
	corner(0, ry, rx, 0)
	p.Close()
	return nil
}

func (f frame) ellipse(p *raster.Path, e *element) error {
	c, err := f.point(e, "cx", "cy")
	if err != nil {
		return err
	}
	var rx, ry float64
	if e.name == "circle" {
		rx, err = f.length(e, "r", math.Hypot(f.box.w, f.box.h)/math.Sqrt2, 0)
		ry = rx
	} else {
		if rx, err = f.across(e, "rx", -1); err != nil {
			return err
		}
		ry, err = f.down(e, "ry", -1)
		if rx < 0 {
			rx = ry
		}
		if ry < 0 {
			ry = rx
		}
	}
	if err != nil || rx <= 0 || ry <= 0 {
		return err
	}
	p.Move(raster.Point{X: c.X + rx, Y: c.Y})
	p.Arc(rx, ry, 0, false, true, raster.Point{X: c.X - rx, Y: c.Y})
	p.Arc(rx, ry, 0, false, true, raster.Point{X: c.X + rx, Y: c.Y})
	p.Close()
	return nil
}

func (f frame) across(e *element, name string, without float64) (float64, error) {
	return f.length(e, name, f.box.w, without)
}

func (f frame) down(e *element, name string, without float64) (float64, error) {
	return f.length(e, name, f.box.h, without)
}

func (f frame) length(e *element, name string, of, without float64) (float64, error) {
	if v := e.attribute(name); v != "" {
		return measure(e, v, of)
	}
	return without, nil
}

func (f frame) point(e *element, x, y string) (p raster.Point, err error) {
	if p.X, err = f.across(e, x, 0); err != nil {
		return p, err
	}
	p.Y, err = f.down(e, y, 0)
	return p, err
}
