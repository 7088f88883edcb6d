package colour_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/rowhouse-platform/rowhouse/internal/brand/colour"
)

func parse(t testing.TB, s string) colour.Colour {
	t.Helper()
	c, err := colour.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestParse(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"#fff": "#ffffff", "#0f08": "#00ff0088", "#ABCDEF": "#abcdef", "#01020304": "#01020304", "#010203ff": "#010203",
	} {
		if got := parse(t, in).String(); got != want {
			t.Errorf("%s is %s, want %s", in, got, want)
		}
	}
	for _, bad := range []string{"", "#", "fff", "#ff", "#fffff", "#ggg", "#fffffffff", "red", " #fff", "#ff fff"} {
		if c, err := colour.Parse(bad); err == nil {
			t.Errorf("%q is read as %s", bad, c)
		}
	}
}

// The values are of the examples that WCAG and its well-known checkers print.
func TestContrastIsNeverRoundedUp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		front, ground, want string
		passes              bool
	}{
		{"#767676", "#ffffff", "4.54:1", true},
		{"#777777", "#ffffff", "4.47:1", false}, // 4.478: a checker that rounds to one decimal says 4.5
		{"#000000", "#ffffff", "21.00:1", true},
		{"#ffffff", "#000000", "21.00:1", true},
		{"#ff0000", "#ffffff", "3.99:1", false}, // 3.998
		{"#0000ff", "#ffffff", "8.59:1", true},
		{"#123456", "#123456", "1.00:1", false},
		{"#00000080", "#ffffff", "4.00:1", false}, // is #7f7f7f there, not black
		{"#000000c0", "#ffffff", "10.53:1", true},
	} {
		got := colour.Contrast(parse(t, c.front), parse(t, c.ground))
		if got.String() != c.want || (got >= colour.Text) != c.passes {
			t.Errorf("%s on %s: %v, want %s", c.front, c.ground, got, c.want)
		}
	}
}

func TestOver(t *testing.T) {
	t.Parallel()
	for _, c := range [][3]string{
		{"#ff000080", "#0000ff", "#80007f"}, {"#ff000000", "#123456", "#123456"}, {"#654321", "#123456", "#654321"},
		{"#00000080", "#ffffff", "#7f7f7f"}, {"#ffffff01", "#000000", "#010101"}, {"#64646480", "#cacaca", "#979797"},
	} {
		if got := parse(t, c[0]).Over(parse(t, c[1])).String(); got != c[2] {
			t.Errorf("%s over %s is %s, want %s", c[0], c[1], got, c[2])
		}
	}
}

// The values of OKLab are those that CSS Color 4 prints for the primaries.
func TestOKLab(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]colour.Lab{
		"#ffffff": {L: 1}, "#000000": {},
		"#ff0000": {L: 0.62796, A: 0.22486, B: 0.12585},
		"#00ff00": {L: 0.86644, A: -0.23389, B: 0.17950},
		"#0000ff": {L: 0.45201, A: -0.03246, B: -0.31153},
	} {
		if got := parse(t, in).Lab(); got.Distance(want) > 0.0001 {
			t.Errorf("%s is %v, want %v", in, got, want)
		}
	}
	for v := range 1 << 15 { // 5 bits a channel, there and back
		c := grid(v)
		if got := c.Lab().LCH().Colour(); got != c {
			t.Fatalf("%s came back as %s", c, got)
		}
	}
	strong := colour.LCH{L: 0.7, C: 0.4, H: 2}
	got := strong.Colour().Lab().LCH()
	if math.Abs(got.L-strong.L) > 0.005 || math.Abs(got.H-strong.H) > 0.01 || got.C >= strong.C {
		t.Errorf("outside of sRGB: %v became %v", strong, got)
	}
}

func grid(v int) colour.Colour {
	wide := func(five int) uint8 { return uint8(five<<3 | five>>2) }
	return colour.Colour{R: wide(v & 31), G: wide(v >> 5 & 31), B: wide(v >> 10 & 31), A: 255}
}

func TestStatesAreLegibleAndDiffer(t *testing.T) {
	t.Parallel()
	for v := range 1 << 15 {
		s := colour.Derive(grid(v))
		for _, ground := range []colour.Colour{s.Base, s.Hover, s.Active} {
			if r := colour.Contrast(s.On, ground); r < colour.Text {
				t.Fatalf("%v: %s on %s is %v", s, s.On, ground, r)
			}
		}
		lab := s.Base.Lab()
		hover, active := lab.Distance(s.Hover.Lab()), lab.Distance(s.Active.Lab())
		if hover < 0.03 || active < hover+0.02 {
			t.Fatalf("%v: hover is %.3f away, active %.3f", s, hover, active)
		}
	}
}

// For a few pairs all colours around front and around the answer are asked, for many a grid of all there are.
func TestNearestIsNearest(t *testing.T) {
	t.Parallel()
	for _, c := range [][3]string{{"#777877", "#ffffff", "#ffffff"}, {"#3b82f6", "#ffffff", "#e0f2fe"}, {"#ffcc00", "#fffbe6", "#ffffff"}} {
		front, grounds := parse(t, c[0]), []colour.Colour{parse(t, c[1]), parse(t, c[2])}
		got, ok := colour.Nearest(front, colour.Text, grounds...)
		if !ok || !passes(got, colour.Text, grounds) {
			t.Fatalf("%v: %v %v", c, got, ok)
		}
		least := front.Lab().Distance(got.Lab())
		for v := range 1 << 24 {
			other := colour.Colour{R: uint8(v), G: uint8(v >> 8), B: uint8(v >> 16), A: 255}
			if (near(other, front, 12) || near(other, got, 12)) && passes(other, colour.Text,
				grounds) && front.Lab().Distance(other.Lab()) < least-1e-9 {
				t.Fatalf("%v: %s is nearer than %s", c, other, got)
			}
		}
		t.Logf("%s on %s and %s: %s, %.4f away", c[0], c[1], c[2], got, least)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		front, ground := grid(random.IntN(1<<15)), grid(random.IntN(1<<15))
		got, ok := colour.Nearest(front, colour.Text, ground)
		if !ok || colour.Contrast(got, ground) < colour.Text {
			t.Fatalf("%s on %s: %s %v", front, ground, got, ok)
		}
		if colour.Contrast(front, ground) >= colour.Text && got != front {
			t.Fatalf("%s passes on %s and became %s", front, ground, got)
		}
		if front.R == front.G && front.G == front.B {
			continue
		}
		for range 500 {
			other := grid(random.IntN(1 << 15))
			if colour.Contrast(other, ground) >= colour.Text && front.Lab().Distance(other.Lab()) < front.Lab().Distance(got.Lab())-1e-9 {
				t.Fatalf("%s on %s: %s is nearer than %s", front, ground, other, got)
			}
		}
	}
	if c, ok := colour.Nearest(colour.White, 7, colour.White, colour.Black); ok {
		t.Errorf("%s has 7:1 on white and on black", c)
	}
}

// A grey stays grey, though there may be a nearer colour with a tint.
func TestGreysStayGrey(t *testing.T) {
	t.Parallel()
	for _, c := range [][3]string{
		{"#777777", "#ffffff", "#767676"}, {"#cccccc", "#ffffff", "#767676"}, {"#00000060", "#ffffff", "#767676"},
		{"#555555", "#000000", "#757575"}, {"#808080", "#3b82f6", ""}, {"#999999", "#fffbe6", ""},
	} {
		front, ground := parse(t, c[0]), parse(t, c[1])
		got, ok := colour.Nearest(front, colour.Text, ground)
		if !ok || got.R != got.G || got.G != got.B || colour.Contrast(got, ground) < colour.Text || c[2] != "" && got.String() != c[2] {
			t.Errorf("%s on %s became %s, want %s", c[0], c[1], got, c[2])
		}
		step := 1
		if got.Luminance() < front.Over(ground).Luminance() {
			step = -1 // the grey one step back does not pass
		}
		v := uint8(int(got.R) - step)
		if back := (colour.Colour{R: v, G: v, B: v, A: 255}); colour.Contrast(back, ground) >= colour.Text {
			t.Errorf("%s on %s: %s is nearer than %s", c[0], c[1], back, got)
		}
	}
}

func near(a, b colour.Colour, by int) bool {
	d := func(x, y uint8) bool { return max(int(x)-int(y), int(y)-int(x)) <= by }
	return d(a.R, b.R) && d(a.G, b.G) && d(a.B, b.B)
}

func passes(c colour.Colour, need colour.Ratio, grounds []colour.Colour) bool {
	for _, g := range grounds {
		if colour.Contrast(c, g) < need {
			return false
		}
	}
	return true
}

func BenchmarkNearest(b *testing.B) {
	for name, c := range map[string]struct {
		need    colour.Ratio
		grounds []colour.Colour
	}{
		"near": {colour.Text, []colour.Colour{colour.White}},
		"none": {4.6, []colour.Colour{colour.White, colour.Black}},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				colour.Nearest(colour.Colour{R: 255, G: 204, A: 255}, c.need, c.grounds...)
			}
		})
	}
}
