package colour

import (
	"cmp"
	"container/heap"
	"math"
	"slices"
)

// Nearest is the opaque colour that has at least the ratio on each of the opaque grounds, and of those the one with the least OKLab
// distance to front as it is seen on the first ground. It is exact, and the same on every run. ok is false where no
// colour passes, as on black and white at once with 7:1.
//
// A grey becomes a grey where one passes: the nearest colour of all may have a little less of one channel, and who chose a
// grey does not mean a tint.
//
// It halves the cube of all colours into boxes and opens the box first whose nearest corner might be nearest: from darkest
// to lightest corner both luminance and what the cones take up only grow, so each box has bounds for both.
func Nearest(front Colour, need Ratio, grounds ...Colour) (nearest Colour, ok bool) {
	seen := front
	if len(grounds) > 0 {
		seen = front.Over(grounds[0])
	}
	if seen.R == seen.G && seen.G == seen.B {
		if grey, ok := nearestGrey(seen, need, grounds); ok {
			return grey, true
		}
	}
	s := search{need: need, goal: seen.Lab()}
	for _, g := range grounds {
		s.grounds = append(s.grounds, g.Luminance())
	}
	for v := range s.linear {
		s.linear[v] = linear(uint8(v))
	}
	s.push(box{high: [3]uint8{255, 255, 255}})
	for len(s.boxes) > 0 {
		b := heap.Pop(&s.boxes).(box) //nolint:forcetypeassert // nothing else is in it
		if b.low == b.high {
			return Colour{b.low[0], b.low[1], b.low[2], 255}, true
		}
		s.split(b)
	}
	return Colour{}, false
}

// nearestGrey asks all greys; of two that are as near it takes the darker.
func nearestGrey(front Colour, need Ratio, grounds []Colour) (nearest Colour, ok bool) {
	least := math.Inf(1)
	for v := range 256 {
		grey := Colour{uint8(v), uint8(v), uint8(v), 255}
		fails := func(ground Colour) bool { return Contrast(grey, ground) < need }
		if d := math.Abs(grey.Lab().L - front.Lab().L); d < least && !slices.ContainsFunc(grounds, fails) {
			nearest, least, ok = grey, d, true
		}
	}
	return nearest, ok
}

// A box is all colours from low to high, and a bound: none of them is nearer to the goal.
type box struct {
	low, high [3]uint8
	bound     float64
}

type search struct {
	need    Ratio
	goal    Lab
	grounds []float64 // luminances
	linear  [256]float64
	boxes   boxes
}

// split halves the longest side.
func (s *search) split(b box) {
	side := 0
	for i := range b.low {
		if b.high[i]-b.low[i] > b.high[side]-b.low[side] {
			side = i
		}
	}
	middle := b.low[side] + (b.high[side]-b.low[side])/2
	lower, upper := b, b
	lower.high[side], upper.low[side] = middle, middle+1
	s.push(lower)
	s.push(upper)
}

// push keeps a box in which a colour may pass.
func (s *search) push(b box) {
	r0, g0, b0 := s.linear[b.low[0]], s.linear[b.low[1]], s.linear[b.low[2]]
	r1, g1, b1 := s.linear[b.high[0]], s.linear[b.high[1]], s.linear[b.high[2]]
	dark := Colour{b.low[0], b.low[1], b.low[2], 255}.Luminance()
	light := Colour{b.high[0], b.high[1], b.high[2], 255}.Luminance()
	for _, g := range s.grounds {
		passes := (dark <= g && ratio(dark, g) >= s.need) || (light >= g && ratio(light, g) >= s.need)
		if !passes {
			return
		}
	}
	var low, high [3]float64
	low[0], low[1], low[2] = cones(r0, g0, b0)
	high[0], high[1], high[2] = cones(r1, g1, b1)
	sum := 0.0
	for i, row := range labRows() {
		least, most := 0.0, 0.0
		for j, factor := range row {
			a, b := factor*low[j], factor*high[j]
			least, most = least+min(a, b), most+max(a, b)
		}
		goal := [3]float64{s.goal.L, s.goal.A, s.goal.B}[i]
		outside := max(least-goal, goal-most, 0)
		sum += outside * outside
	}
	b.bound = math.Sqrt(sum)
	heap.Push(&s.boxes, b)
}

// boxes is a heap: the least bound first, and of equal ones the darkest, so that the answer never depends on chance.
type boxes []box

func (q boxes) Len() int { return len(q) }

func (q boxes) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(q[i].bound, q[j].bound), cmp.Compare(q[i].low[0], q[j].low[0]), cmp.Compare(q[i].low[1], q[j].low[1]),
		cmp.Compare(q[i].low[2], q[j].low[2])) < 0
}

func (q boxes) Swap(i, j int) { q[i], q[j] = q[j], q[i] }

func (q *boxes) Push(x any) { *q = append(*q, x.(box)) } //nolint:forcetypeassert // as above

func (q *boxes) Pop() any {
	last := len(*q) - 1
	b := (*q)[last]
	*q = (*q)[:last]
	return b
}
