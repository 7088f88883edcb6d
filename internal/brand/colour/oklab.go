package colour

import "math"

// A Lab is a colour in OKLab: lightness 0 to 1, and two axes of about -0.4 to 0.4. Equal distances look about equal.
// Matrices: Björn Ottosson, https://bottosson.github.io/posts/oklab/ (the values of 2021-01-25, with which CSS Color 4 agrees to
// the 8-bit rounding).
type Lab struct{ L, A, B float64 }

// Lab converts the opaque colour.
func (c Colour) Lab() Lab { return toLab(linear(c.R), linear(c.G), linear(c.B)) }

func toLab(r, g, b float64) Lab {
	return fromCones(cones(r, g, b))
}

// cones are the cube roots of what the three kinds of cones take up. All coefficients are positive: Nearest relies on it.
func cones(r, g, b float64) (l, m, s float64) {
	return math.Cbrt(0.4122214708*r + 0.5363325363*g + 0.0514459929*b),
		math.Cbrt(0.2119034982*r + 0.6806995451*g + 0.1073969566*b),
		math.Cbrt(0.0883024619*r + 0.2817188376*g + 0.6299787005*b)
}

// fromCones is the second matrix; its rows are labRows.
func fromCones(l, m, s float64) Lab {
	var out [3]float64
	for i, row := range labRows() {
		out[i] = row[0]*l + row[1]*m + row[2]*s
	}
	return Lab{out[0], out[1], out[2]}
}

func labRows() [3][3]float64 {
	return [3][3]float64{
		{0.2104542553, 0.7936177850, -0.0040720468},
		{1.9779984951, -2.4285922050, 0.4505937099},
		{0.0259040371, 0.7827717662, -0.8086757660},
	}
}

// Distance is Euclid's; 0.02 is about what an eye can just tell apart.
func (p Lab) Distance(q Lab) float64 {
	return math.Sqrt((p.L-q.L)*(p.L-q.L) + (p.A-q.A)*(p.A-q.A) + (p.B-q.B)*(p.B-q.B))
}

// An LCH is a Lab in polar form, OKLCH: lightness, chroma, and hue in radians.
type LCH struct{ L, C, H float64 }

// LCH converts to polar form.
func (p Lab) LCH() LCH { return LCH{p.L, math.Hypot(p.A, p.B), math.Atan2(p.B, p.A)} }

// Lab converts from polar form.
func (p LCH) Lab() Lab { return Lab{p.L, p.C * math.Cos(p.H), p.C * math.Sin(p.H)} }

// Colour is the opaque colour of p, rounded to 8 bits. Where sRGB has none so strong, chroma is lowered until it has: lightness and
// hue stay (the idea of https://www.w3.org/TR/css-color-4/#css-gamut-mapping).
func (p LCH) Colour() Colour {
	p.L = min(max(p.L, 0), 1)
	if c, inside := p.Lab().colour(); inside {
		return c
	}
	low, high := 0.0, p.C
	for range 30 { // to less than one part in 10⁹
		middle := (low + high) / 2
		if _, inside := (LCH{p.L, middle, p.H}).Lab().colour(); inside {
			low = middle
		} else {
			high = middle
		}
	}
	c, _ := LCH{p.L, low, p.H}.Lab().colour()
	return c
}

// colour clips to 8 bits; inside is false where it had to, by more than a thousandth.
func (p Lab) colour() (c Colour, inside bool) {
	cube := func(v float64) float64 { return v * v * v }
	l := cube(p.L + 0.3963377774*p.A + 0.2158037573*p.B)
	m := cube(p.L - 0.1055613458*p.A - 0.0638541728*p.B)
	s := cube(p.L - 0.0894841775*p.A - 1.2914855480*p.B)
	inside = true
	encode := func(v float64) uint8 {
		inside = inside && v > -0.001 && v < 1.001
		v = min(max(v, 0), 1)
		if v <= 0.0031308 {
			return uint8(math.Round(v * 12.92 * 255))
		}
		return uint8(math.Round((1.055*math.Pow(v, 1/2.4) - 0.055) * 255))
	}
	c = Colour{
		encode(4.0767416621*l - 3.3077115913*m + 0.2309699292*s),
		encode(-1.2684380046*l + 2.6097574011*m - 0.3413193965*s),
		encode(-0.0041960863*l - 0.7034186147*m + 1.7076147010*s),
		255,
	}
	return c, inside
}
