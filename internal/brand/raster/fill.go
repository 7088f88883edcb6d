package raster

import (
	"cmp"
	"image"
	"math"
	"slices"
)

// lines is into how many a row of pixels is cut. Along a row coverage is exact.
const lines = 8

// edge is a side of a polygon, in pixels across and cut rows down.
type edge struct {
	first, last int     // cut rows that it crosses
	x, step     float64 // where it crosses the first, and how far it is at the next
	down        int     // +1 or -1
}

// Fill returns how far each pixel of a picture of some size is covered. Open lines are closed.
func Fill(size image.Point, polygons []Line, evenOdd bool, budget *Budget) (*image.Alpha, error) {
	edges, box, err := edgesOf(size, polygons, budget)
	if err != nil {
		return nil, err
	}
	out := image.NewAlpha(box)
	if box.Empty() {
		return out, nil
	}
	if err := budget.Spend(box.Dx() * box.Dy() * lines / 2); err != nil {
		return nil, err
	}
	slices.SortFunc(edges, func(a, b edge) int { return a.first - b.first })
	var active []*edge
	var crossings []crossing
	cover := make([]float32, box.Dx()+1)
	next := 0
	for row := box.Min.Y * lines; row < box.Max.Y*lines; row++ {
		for ; next < len(edges) && edges[next].first <= row; next++ {
			active = append(active, &edges[next])
		}
		crossings = crossings[:0]
		active = slices.DeleteFunc(active, func(e *edge) bool { return e.last < row })
		for _, e := range active {
			crossings = append(crossings, crossing{e.x + float64(row-e.first)*e.step - float64(box.Min.X), e.down})
		}
		slices.SortFunc(crossings, func(a, b crossing) int { return cmp.Compare(a.x, b.x) })
		winding := 0
		for i, c := range crossings {
			inside := winding != 0
			if evenOdd {
				inside = winding%2 != 0
			}
			if inside {
				span(cover, crossings[i-1].x, c.x)
			}
			winding += c.down
		}
		if row%lines == lines-1 {
			settle(out, row/lines, cover)
		}
	}
	return out, nil
}

// crossing is where an edge crosses a cut row.
type crossing struct {
	x    float64
	down int
}

// edgesOf makes edges of polygons, within a picture, and the box of pixels in which they are. What is left or right of the
// picture counts there for what is inside of it.
func edgesOf(size image.Point, polygons []Line, budget *Budget) (edges []edge, box image.Rectangle, err error) {
	height := float64(size.Y * lines)
	left, right, top, bottom := math.Inf(1), math.Inf(-1), size.Y*lines, -1
	for _, l := range polygons {
		for i, p := range l.Points {
			q := l.Points[(i+1)%len(l.Points)]
			if !sound(p.X, p.Y, q.X, q.Y) {
				return nil, box, ErrRange
			}
			down := 1
			if p.Y > q.Y {
				p, q, down = q, p, -1
			}
			// It crosses the middles of cut rows from first to last.
			y0, y1 := p.Y*lines, q.Y*lines
			first, last := int(math.Ceil(max(y0, 0)-0.5)), int(math.Ceil(min(y1, height)-0.5))-1
			if first > last {
				continue
			}
			if err := budget.Spend(4 * (last - first + 2)); err != nil {
				return nil, box, err
			}
			step := (q.X - p.X) / (y1 - y0)
			edges = append(edges, edge{first, last, p.X + (float64(first)+0.5-y0)*step, step, down})
			left, right = min(left, p.X, q.X), max(right, p.X, q.X)
			top, bottom = min(top, first), max(bottom, last)
		}
	}
	if len(edges) == 0 {
		return nil, image.Rectangle{}, nil
	}
	clamp := func(x float64) int { return int(min(max(x, 0), float64(size.X))) }
	box = image.Rect(clamp(math.Floor(left)), top/lines, clamp(math.Ceil(right)), bottom/lines+1)
	return edges, box, nil
}

// span adds what lies between two places of a cut row.
func span(cover []float32, from, to float64) {
	width := float64(len(cover) - 1)
	from, to = min(max(from, 0), width), min(max(to, 0), width)
	if from >= to {
		return
	}
	first, last := int(from), int(to)
	if first == last {
		cover[first] += float32(to - from)
		return
	}
	cover[first] += float32(float64(first+1) - from)
	for x := first + 1; x < last; x++ {
		cover[x]++
	}
	cover[last] += float32(to - float64(last)) // the one behind the last pixel takes nothing
}

// settle writes a row of pixels and begins the next.
func settle(out *image.Alpha, y int, cover []float32) {
	at := out.PixOffset(out.Rect.Min.X, y)
	for x := range len(cover) - 1 {
		out.Pix[at+x] = uint8(min(255, cover[x]*255/lines+0.5))
	}
	clear(cover)
}
