package colour

// States are the colours of a control in one colour of the brand.
type States struct{ Base, Hover, Active, On Colour }

// step is how far a state moves in OKLCH lightness: plain to see, and still the same colour.
const step = 0.06

// Derive makes the colours of states from one opaque colour. On is the better of black and white and has at least 4.5:1
// on all three. Hover and active move away from On, so that contrast grows; at the end of the scale, where there is no
// room, they move towards it.
func Derive(base Colour) States {
	base.A = 255
	s := States{Base: base, On: White}
	if Contrast(Black, base) > Contrast(White, base) {
		s.On = Black
	}
	lch := base.Lab().LCH()
	direction := -step
	if (s.On == Black && lch.L+2*step <= 1) || (s.On == White && lch.L-2*step < 0) {
		direction = step
	}
	shift := func(by float64) Colour { return LCH{lch.L + by, lch.C, lch.H}.Colour() }
	s.Hover, s.Active = shift(direction), shift(2*direction)
	return s
}
