package raster

import "math"

// Pen is how lines are drawn.
type Pen struct {
	Width float64
	// Cap is "butt", "round" or "square"; Join is "miter", "round" or "bevel".
	Cap, Join string
	Miter     float64
	// Dashes are lengths drawn and left out in turn; empty for a whole line.
	Dashes []float64
	Offset float64
}

// stroker makes convex polygons that together cover a stroke.
type stroker struct {
	pen    Pen
	half   float64
	out    []Line
	m      Matrix
	budget *Budget
	disc   []Point // a round cap around nothing
}

// Stroke returns polygons that cover the lines as the pen draws them, mapped by m, all of one turn: [Fill] them by the nonzero
// rule.
func Stroke(lines []Line, pen Pen, m Matrix, budget *Budget) ([]Line, error) {
	if !sound(pen.Width, pen.Miter, pen.Offset) || !sound(pen.Dashes...) {
		return nil, ErrRange
	}
	s := &stroker{pen: pen, half: pen.Width / 2, m: m, budget: budget}
	if s.half <= 0 {
		return nil, nil
	}
	if pen.Cap == "round" || pen.Join == "round" {
		n := int(min(64, max(8, math.Ceil(4*math.Sqrt(s.half*m.Scale())))))
		for i := range n {
			sin, cos := math.Sincos(2 * math.Pi * float64(i) / float64(n))
			s.disc = append(s.disc, Point{cos, sin}.times(s.half))
		}
	}
	for _, l := range lines {
		if err := s.dashed(distinct(l)); err != nil {
			return nil, err
		}
	}
	return s.out, nil
}

// distinct drops points that repeat the one before: they have no direction.
func distinct(l Line) Line {
	out := Line{Closed: l.Closed}
	for _, p := range l.Points {
		if n := len(out.Points); n == 0 || out.Points[n-1].minus(p).length() > 1e-9 {
			out.Points = append(out.Points, p)
		}
	}
	if n := len(out.Points); out.Closed && n > 1 && out.Points[0].minus(out.Points[n-1]).length() <= 1e-9 {
		out.Points = out.Points[:n-1]
	}
	return out
}

// dashed draws a line, or the dashes of it.
func (s *stroker) dashed(l Line) error {
	if err := s.budget.Spend(2 * len(s.pen.Dashes)); err != nil { // for each line they are gone through from the start
		return err
	}
	total := 0.0
	for _, d := range s.pen.Dashes {
		if d < 0 {
			return ErrRange
		}
		total += d
	}
	if total <= 0 || len(l.Points) < 2 {
		return s.line(l)
	}
	dashes := s.pen.Dashes
	if len(dashes)%2 == 1 {
		dashes = append(append([]float64{}, dashes...), dashes...)
		total *= 2
	}
	points := l.Points
	if l.Closed {
		points = append(append([]Point{}, points...), points[0])
	}
	left := math.Mod(s.pen.Offset, total)
	if left < 0 {
		left += total
	}
	i := 0
	for ; left >= dashes[i]; i = (i + 1) % len(dashes) {
		left -= dashes[i]
	}
	left = dashes[i] - left
	dash := []Point{points[0]}
	for j := 1; j < len(points); j++ {
		from, to := points[j-1], points[j]
		way := to.minus(from).length()
		for done := 0.0; way-done > left; {
			if err := s.budget.Spend(4); err != nil { // a short dash on a long way is a bomb
				return err
			}
			done += left
			at := from.along(to, done/way)
			if i%2 == 0 {
				if err := s.line(distinct(Line{Points: append(dash, at)})); err != nil {
					return err
				}
			}
			dash = []Point{at}
			i = (i + 1) % len(dashes)
			if left = dashes[i]; left <= 0 {
				left = 1e-9
			}
			from, way, done = at, way-done, 0
		}
		left -= way
		dash = append(dash, to)
	}
	if i%2 == 0 {
		return s.line(distinct(Line{Points: dash}))
	}
	return nil
}

// line draws one line.
func (s *stroker) line(l Line) error {
	n := len(l.Points)
	if n == 0 {
		return nil
	}
	if err := s.budget.Spend(8 * n); err != nil {
		return err
	}
	if n == 1 { // a dot, where the cap makes one
		if s.pen.Cap == "square" {
			p, h := l.Points[0], s.half
			return s.polygon(p.plus(Point{-h, -h}), p.plus(Point{h, -h}), p.plus(Point{h, h}), p.plus(Point{-h, h}))
		}
		if s.pen.Cap == "round" {
			return s.round(l.Points[0])
		}
		return nil
	}
	points := l.Points
	if l.Closed {
		points = append(append([]Point{}, points...), points[0])
	}
	for i := 1; i < len(points); i++ {
		from, to := points[i-1], points[i]
		along := from.towards(to).times(s.half)
		if s.pen.Cap == "square" && !l.Closed {
			if i == 1 {
				from = from.minus(along)
			}
			if i == len(points)-1 {
				to = to.plus(along)
			}
		}
		side := along.left()
		if err := s.polygon(from.plus(side), from.minus(side), to.minus(side), to.plus(side)); err != nil {
			return err
		}
	}
	for i := 1; i < len(points)-1; i++ {
		if err := s.join(points[i-1], points[i], points[i+1]); err != nil {
			return err
		}
	}
	if l.Closed {
		return s.join(points[len(points)-2], points[0], points[1])
	}
	if s.pen.Cap == "round" {
		if err := s.round(points[0]); err != nil {
			return err
		}
		return s.round(points[len(points)-1])
	}
	return nil
}

// join fills the outer corner at b.
func (s *stroker) join(a, b, c Point) error {
	in, out := a.towards(b), b.towards(c)
	cross, dot := in.X*out.Y-in.Y*out.X, in.X*out.X+in.Y*out.Y
	if math.Abs(cross) < 1e-6 && dot > 0 {
		return nil
	}
	const smooth = 0.95 // chords of a curve: a disc there would reach beyond the end of a short dash
	if s.pen.Join == "round" && dot < smooth {
		return s.round(b)
	}
	side := -s.half
	if cross < 0 {
		side = s.half
	}
	p, q := b.plus(in.left().times(side)), b.plus(out.left().times(side))
	// The ratio of a miter's length to the width is 1/sin(θ/2), where θ is the angle between the lines.
	if sine := math.Sqrt(max(0, (1+dot)/2)); (s.pen.Join != "bevel" || dot >= smooth) && sine > 1e-6 && 1/sine <= s.pen.Miter {
		tip := in.left().plus(out.left())
		tip = tip.times(side / sine / max(tip.length(), 1e-9))
		return s.polygon(b, p, b.plus(tip), q)
	}
	return s.polygon(b, p, q)
}

func (s *stroker) round(at Point) error {
	points := make([]Point, len(s.disc))
	for i, p := range s.disc {
		points[i] = at.plus(p)
	}
	return s.polygon(points...)
}

// polygon adds a convex polygon, turned as all others are.
func (s *stroker) polygon(points ...Point) error {
	if err := s.budget.Spend(2 * len(points)); err != nil {
		return err
	}
	mapped, area := make([]Point, len(points)), 0.0
	for i, p := range points {
		mapped[i] = s.m.Apply(p)
	}
	for i, p := range mapped {
		q := mapped[(i+1)%len(mapped)]
		area += p.X*q.Y - p.Y*q.X
	}
	if area < 0 {
		for i, j := 0, len(mapped)-1; i < j; i, j = i+1, j-1 {
			mapped[i], mapped[j] = mapped[j], mapped[i]
		}
	}
	s.out = append(s.out, Line{mapped, true})
	return nil
}
