package svg

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"

	"github.com/rowhouse-platform/rowhouse/internal/brand/raster"
)

var numberPattern = regexp.MustCompile(num)

// numbersOf reads numbers with whatever stands between them.
func numbersOf(value string) (all []float64) {
	for _, n := range numberPattern.FindAllString(value, -1) {
		v, err := strconv.ParseFloat(n, 64)
		if err != nil {
			v = math.Inf(1) // is refused where it is drawn
		}
		all = append(all, v)
	}
	return all
}

// measure reads a length in user units; percentages are of a length.
func measure(e *element, value string, of float64) (float64, error) {
	found := numberPattern.FindString(value)
	n, err := strconv.ParseFloat(found, 64)
	if err != nil || math.Abs(n) > 1e6 {
		return 0, e.refuse("drawing", "a length that cannot be drawn: "+value)
	}
	factor, known := map[string]float64{
		"": 1, "px": 1, "pt": 96.0 / 72, "pc": 16, "in": 96, "cm": 96 / 2.54, "mm": 96 / 25.4, "%": of / 100,
	}[strings.TrimPrefix(value, found)]
	if !known || math.IsNaN(factor) {
		return 0, e.refuse("drawing", "a length that cannot be drawn: "+value)
	}
	return n * factor, nil
}

// maxDashes is how many lengths a list of them may have: each line goes through all.
const maxDashes = 64

// measures reads a list of lengths.
func measures(e *element, value string, of float64) (all []float64, err error) {
	if value == "none" {
		return nil, nil
	}
	found := strings.FieldsFunc(value, func(r rune) bool { return r == ' ' || r == ',' })
	if len(found) > maxDashes {
		return nil, e.refuse("drawing", fmt.Sprintf("more than %d dashes cannot be drawn", maxDashes))
	}
	for _, v := range found {
		n, err := measure(e, v, of)
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}

// portionOf reads a number from 0 to 1, or a percentage.
func portionOf(e *element, name string, without float64) (float64, error) {
	value := e.attribute(name)
	if value == "" {
		return without, nil
	}
	n, err := measure(e, value, 1)
	return min(max(n, 0), 1), err
}

var transformPattern = regexp.MustCompile(`([a-zA-Z]+) ?\(([^)]*)\)`)

// transform reads a list of maps.
func transform(e *element, value string) (raster.Matrix, error) {
	m := raster.Identity()
	for _, t := range transformPattern.FindAllStringSubmatch(value, -1) {
		n := numbersOf(t[2])
		one, ok := mapOf(t[1], n)
		if !ok {
			return m, e.refuse("drawing", "a transformation that cannot be drawn: "+t[1])
		}
		if m = m.Then(one); !m.Sound() {
			return m, raster.ErrRange
		}
	}
	return m, nil
}

func mapOf(name string, n []float64) (raster.Matrix, bool) {
	at := func(i int, without float64) float64 {
		if i < len(n) {
			return n[i]
		}
		return without
	}
	angle := at(0, 0) * math.Pi / 180
	switch {
	case name == "matrix" && len(n) == 6:
		return raster.Matrix{A: n[0], B: n[1], C: n[2], D: n[3], E: n[4], F: n[5]}, true
	case name == "translate" && (len(n) == 1 || len(n) == 2):
		return raster.Matrix{A: 1, D: 1, E: n[0], F: at(1, 0)}, true
	case name == "scale" && (len(n) == 1 || len(n) == 2):
		return raster.Matrix{A: n[0], D: at(1, n[0])}, true
	case name == "rotate" && (len(n) == 1 || len(n) == 3):
		sin, cos := math.Sincos(angle)
		x, y := at(1, 0), at(2, 0)
		return raster.Matrix{A: cos, B: sin, C: -sin, D: cos, E: x - cos*x + sin*y, F: y - sin*x - cos*y}, true
	case name == "skewX" && len(n) == 1:
		return raster.Matrix{A: 1, C: math.Tan(angle), D: 1}, true
	case name == "skewY" && len(n) == 1:
		return raster.Matrix{A: 1, B: math.Tan(angle), D: 1}, true
	default:
		return raster.Matrix{}, false
	}
}

// drawPath follows the data of a path (https://www.w3.org/TR/SVG2/paths.html#PathDataBNF).
func drawPath(p *raster.Path, e *element, data string) error {
	s := pathReader{left: data, path: p}
	for s.skip(); s.left != ""; s.skip() {
		if !s.command() {
			return e.refuse("drawing", "a path that cannot be read, before "+s.left[:min(len(s.left), 20)])
		}
		if err := p.Err(); err != nil {
			return err
		}
	}
	return nil
}

// pathReader reads one command after the other.
type pathReader struct {
	left string
	path *raster.Path
	last byte         // the last command, in capitals
	bend raster.Point // the last control point, which smooth curves go on from
}

func (s *pathReader) skip() { s.left = strings.TrimLeft(s.left, " ,") }

var numberAhead = regexp.MustCompile(`^` + num)

func (s *pathReader) number() (float64, bool) {
	s.skip()
	text := numberAhead.FindString(s.left)
	n, err := strconv.ParseFloat(text, 64)
	s.left = s.left[len(text):]
	return n, err == nil
}

// flag is a single digit, which need not be apart from what follows.
func (s *pathReader) flag() (set, ok bool) {
	s.skip()
	if s.left == "" || (s.left[0] != '0' && s.left[0] != '1') {
		return false, false
	}
	set, s.left = s.left[0] == '1', s.left[1:]
	return set, true
}

// command reads a letter and what follows it, as often as that does.
func (s *pathReader) command() bool {
	letter := s.left[0]
	upper := letter &^ 0x20
	if strings.IndexByte("MLHVCSQTAZ", upper) < 0 || (s.last == 0 && upper != 'M') {
		return false
	}
	s.left = s.left[1:]
	if upper == 'Z' {
		s.path.Close()
		s.last = 'Z'
		return true
	}
	for first := true; ; first = false {
		if s.skip(); !first && (s.left == "" || strings.IndexByte("+-.0123456789", s.left[0]) < 0) {
			return true
		}
		if upper == 'M' && !first { // more pairs are lines
			upper = 'L'
		}
		if !s.segment(upper, letter != letter&^0x20) || s.path.Err() != nil {
			return s.path.Err() != nil
		}
	}
}

// segment draws one piece.
func (s *pathReader) segment(command byte, relative bool) bool {
	pen := s.path.Pen()
	if command == 'A' {
		return s.arc(pen, relative)
	}
	count := map[byte]int{'M': 2, 'L': 2, 'H': 1, 'V': 1, 'C': 6, 'S': 4, 'Q': 4, 'T': 2}[command]
	var n [6]float64
	for i := range count {
		var ok bool
		if n[i], ok = s.number(); !ok {
			return false
		}
	}
	at := func(i int) raster.Point {
		q := raster.Point{X: n[i], Y: n[i+1]}
		if relative {
			q.X, q.Y = q.X+pen.X, q.Y+pen.Y
		}
		return q
	}
	smooth := pen // where the last curve would go on to
	if (command == 'S' && (s.last == 'C' || s.last == 'S')) || (command == 'T' && (s.last == 'Q' || s.last == 'T')) {
		smooth = raster.Point{X: 2*pen.X - s.bend.X, Y: 2*pen.Y - s.bend.Y}
	}
	switch command {
	case 'M':
		s.path.Move(at(0))
	case 'L':
		s.path.LineTo(at(0))
	case 'H':
		to := raster.Point{X: n[0], Y: pen.Y}
		if relative {
			to.X += pen.X
		}
		s.path.LineTo(to)
	case 'V':
		to := raster.Point{X: pen.X, Y: n[0]}
		if relative {
			to.Y += pen.Y
		}
		s.path.LineTo(to)
	case 'C':
		s.bend = at(2)
		s.path.Cubic(at(0), at(2), at(4))
	case 'S':
		s.bend = at(0)
		s.path.Cubic(smooth, at(0), at(2))
	case 'Q':
		s.bend = at(0)
		s.path.Quad(at(0), at(2))
	case 'T':
		s.bend = smooth
		s.path.Quad(smooth, at(0))
	}
	s.last = command
	return true
}

func (s *pathReader) arc(pen raster.Point, relative bool) bool {
	var n [3]float64
	ok := true
	for i := range n {
		var good bool
		n[i], good = s.number()
		ok = ok && good
	}
	large, good := s.flag()
	ok = ok && good
	sweep, good := s.flag()
	ok = ok && good
	var to raster.Point
	to.X, good = s.number()
	ok = ok && good
	to.Y, good = s.number()
	if relative {
		to.X, to.Y = to.X+pen.X, to.Y+pen.Y
	}
	s.path.Arc(n[0], n[1], n[2], large, sweep, to)
	s.last = 'A'
	return ok && good
}
