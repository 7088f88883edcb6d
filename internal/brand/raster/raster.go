// Package raster turns paths into coverage of pixels, with a bound on its work: each curve, edge, dash and pixel is paid for from a
// [Budget] before it is made, so that no drawing takes longer than its budget lasts. It knows neither files nor colours.
//
// The standard shape of such code, golang.org/x/image/vector, fills by the nonzero rule alone and has no strokes. Start
// with [Path], [Stroke] and [Fill].
package raster

import (
	"errors"
	"math"
)

// ErrWork is what costs more than its budget.
var ErrWork = errors.New("raster: too much work")

// ErrRange is a number too large to draw with.
var ErrRange = errors.New("raster: a number is too large")

// A Budget is how much work may still be done, in units of about ten nanoseconds. It is for one drawing and one goroutine.
type Budget struct{ Left int }

// Spend takes n units, before they are worked.
func (b *Budget) Spend(n int) error {
	if n < 0 || n > b.Left {
		b.Left = 0
		return ErrWork
	}
	b.Left -= n
	return nil
}

// A Point is a place.
type Point struct{ X, Y float64 }

func (p Point) plus(q Point) Point             { return Point{p.X + q.X, p.Y + q.Y} }
func (p Point) minus(q Point) Point            { return Point{p.X - q.X, p.Y - q.Y} }
func (p Point) times(f float64) Point          { return Point{p.X * f, p.Y * f} }
func (p Point) length() float64                { return math.Hypot(p.X, p.Y) }
func (p Point) left() Point                    { return Point{-p.Y, p.X} }
func (p Point) towards(q Point) Point          { d := q.minus(p); return d.times(1 / d.length()) }
func (p Point) along(q Point, t float64) Point { return p.plus(q.minus(p).times(t)) }

// Matrix is an affine map: x' = A x + C y + E, y' = B x + D y + F, as SVG writes matrix(a b c d e f).
type Matrix struct{ A, B, C, D, E, F float64 }

// Identity changes nothing.
func Identity() Matrix { return Matrix{A: 1, D: 1} }

// Then returns the map that does inner first and m on what came out.
func (m Matrix) Then(inner Matrix) Matrix {
	return Matrix{
		m.A*inner.A + m.C*inner.B, m.B*inner.A + m.D*inner.B,
		m.A*inner.C + m.C*inner.D, m.B*inner.C + m.D*inner.D,
		m.A*inner.E + m.C*inner.F + m.E, m.B*inner.E + m.D*inner.F + m.F,
	}
}

// Apply maps a point.
func (m Matrix) Apply(p Point) Point {
	return Point{m.A*p.X + m.C*p.Y + m.E, m.B*p.X + m.D*p.Y + m.F}
}

// Scale is the side of the square that has the area of a mapped unit square.
func (m Matrix) Scale() float64 { return math.Sqrt(math.Abs(m.A*m.D - m.B*m.C)) }

// Invert returns the map back; ok is false where there is none.
func (m Matrix) Invert() (back Matrix, ok bool) {
	det := m.A*m.D - m.B*m.C
	if math.Abs(det) < 1e-12 || math.IsNaN(det) || math.IsInf(det, 0) {
		return Matrix{}, false
	}
	back = Matrix{A: m.D / det, B: -m.B / det, C: -m.C / det, D: m.A / det}
	back.E, back.F = -(back.A*m.E + back.C*m.F), -(back.B*m.E + back.D*m.F)
	return back, back.Sound()
}

// largest is the largest number that is drawn with. Pictures are some hundred pixels.
const largest = 1e6

func sound(numbers ...float64) bool {
	for _, n := range numbers {
		if !(math.Abs(n) <= largest) { // nor is NaN
			return false
		}
	}
	return true
}

// Sound reports whether all numbers of m can be drawn with.
func (m Matrix) Sound() bool { return sound(m.A, m.B, m.C, m.D, m.E, m.F) }

// A Line is a row of points; a closed one leads back to its first.
type Line struct {
	Points []Point
	Closed bool
}

// A Path is drawn by moving a pen. Its methods fail with [ErrRange] and [ErrWork], and the first error stays.
type Path struct {
	Lines []Line
	// Tolerance is how far a chord may lie from its curve.
	Tolerance float64
	Budget    *Budget
	err       error
}

// Err is what went wrong first.
func (p *Path) Err() error { return p.err }

func (p *Path) add(q Point) {
	switch {
	case p.err != nil:
	case !sound(q.X, q.Y):
		p.err = ErrRange
	default:
		if p.err = p.Budget.Spend(1); p.err == nil {
			l := &p.Lines[len(p.Lines)-1]
			l.Points = append(l.Points, q)
		}
	}
}

// Pen is where the path is.
func (p *Path) Pen() Point {
	if len(p.Lines) == 0 {
		return Point{}
	}
	l := p.Lines[len(p.Lines)-1]
	if l.Closed || len(l.Points) == 0 {
		return l.first()
	}
	return l.Points[len(l.Points)-1]
}

func (l Line) first() Point {
	if len(l.Points) == 0 {
		return Point{}
	}
	return l.Points[0]
}

// Move lifts the pen.
func (p *Path) Move(to Point) {
	p.Lines = append(p.Lines, Line{})
	p.add(to)
}

// ready begins a new line where the last one was closed.
func (p *Path) ready() {
	if len(p.Lines) == 0 || p.Lines[len(p.Lines)-1].Closed {
		p.Move(p.Pen())
	}
}

// LineTo draws a straight line.
func (p *Path) LineTo(to Point) {
	p.ready()
	p.add(to)
}

// Close leads back to where the pen was put down.
func (p *Path) Close() {
	if n := len(p.Lines); n > 0 {
		p.Lines[n-1].Closed = true
	}
}

// Cubic draws a Bézier curve.
func (p *Path) Cubic(c1, c2, to Point) {
	p.ready()
	from := p.Pen()
	if !sound(c1.X, c1.Y, c2.X, c2.Y, to.X, to.Y) {
		p.err = ErrRange
		return
	}
	// The second differences bound how far the curve leaves its chords (Wang's formula).
	d := max(from.minus(c1.times(2)).plus(c2).length(), c1.minus(c2.times(2)).plus(to).length())
	const most = 200
	n := int(min(most, math.Ceil(math.Sqrt(0.75*d/max(p.Tolerance, 1e-9)))))
	for i := 1; i < n; i++ {
		t := float64(i) / float64(n)
		a, b, c := from.along(c1, t), c1.along(c2, t), c2.along(to, t)
		p.add(a.along(b, t).along(b.along(c, t), t))
	}
	p.add(to)
}

// Quad draws a curve of one control point.
func (p *Path) Quad(c, to Point) {
	p.ready()
	p.Cubic(p.Pen().along(c, 2.0/3), to.along(c, 2.0/3), to)
}

// Arc draws a part of an ellipse, as SVG's command A says (https://www.w3.org/TR/SVG2/implnote.html#ArcImplementationNotes).
func (p *Path) Arc(rx, ry, degrees float64, large, sweep bool, to Point) {
	p.ready()
	from := p.Pen()
	rx, ry = math.Abs(rx), math.Abs(ry)
	if !sound(rx, ry, degrees, to.X, to.Y) {
		p.err = ErrRange
		return
	}
	if rx == 0 || ry == 0 || from == to {
		p.LineTo(to)
		return
	}
	sin, cos := math.Sincos(degrees * math.Pi / 180)
	half := from.minus(to).times(0.5)
	at := Point{cos*half.X + sin*half.Y, -sin*half.X + cos*half.Y}
	if grow := at.X*at.X/(rx*rx) + at.Y*at.Y/(ry*ry); grow > 1 {
		rx, ry = rx*math.Sqrt(grow), ry*math.Sqrt(grow)
	}
	below := rx*rx*at.Y*at.Y + ry*ry*at.X*at.X
	f := math.Sqrt(max(0, (rx*rx*ry*ry-below)/below))
	if large == sweep {
		f = -f
	}
	centre := Point{f * rx * at.Y / ry, -f * ry * at.X / rx}
	begin := math.Atan2((at.Y-centre.Y)/ry, (at.X-centre.X)/rx)
	turn := math.Atan2((-at.Y-centre.Y)/ry, (-at.X-centre.X)/rx) - begin
	if sweep && turn < 0 {
		turn += 2 * math.Pi
	} else if !sweep && turn > 0 {
		turn -= 2 * math.Pi
	}
	middle := from.along(to, 0.5)
	place := func(x, y float64) Point { // on the unit circle, turned, stretched and moved
		x, y = rx*x+centre.X, ry*y+centre.Y
		return Point{cos*x - sin*y, sin*x + cos*y}.plus(middle)
	}
	n := math.Ceil(math.Abs(turn)/(math.Pi/2) - 1e-9)
	step := turn / n
	k := 4.0 / 3 * math.Tan(step/4)
	for i := range int(n) {
		s1, c1 := math.Sincos(begin + float64(i)*step)
		s2, c2 := math.Sincos(begin + float64(i+1)*step)
		end := place(c2, s2)
		if i+1 == int(n) {
			end = to
		}
		p.Cubic(place(c1-k*s1, s1+k*c1), place(c2+k*s2, s2-k*c2), end)
	}
}

// Mapped returns lines at their mapped places.
func Mapped(lines []Line, m Matrix) []Line {
	out := make([]Line, len(lines))
	for i, l := range lines {
		out[i] = Line{make([]Point, len(l.Points)), l.Closed}
		for j, p := range l.Points {
			out[i].Points[j] = m.Apply(p)
		}
	}
	return out
}
