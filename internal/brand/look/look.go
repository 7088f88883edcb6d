// Package look makes of a brand what pages show: every colour of every side, the states of controls, the pairs of colours
// that have to be legible together, and the files in which all of it is published: a style sheet, JSON, and design tokens.
//
// Config judges brands with it when they are written, and the gateway publishes them with it, so what was judged is what
// is shown. It knows neither wire nor tenant. Start with Of.
package look

import (
	"slices"
	"strings"

	"github.com/rowhouse-platform/rowhouse/internal/brand/colour"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// A Side is one of the ways in which a reader may want a page: "light", "dark", and the same with more contrast.
type Side struct {
	Name    string
	Palette settings.Palette // complete
	// Hover and Active are the states of what is in the colour "primary".
	Hover, Active string
	set           settings.Palette // what the brand itself says
}

// Of completes a brand: the sides "light" and "dark" always, those with more contrast where the brand says something of
// them. What the brand leaves open is derived from what it says, or else the platform's.
func Of(b settings.Brand) []Side {
	light := complete("light", b.Light, settings.PlatformLight(), settings.Palette{}, 1)
	dark := complete("dark", b.Dark, platformDark(), b.Light, 1)
	sides := []Side{light, dark}
	if b.LightContrast != (settings.Palette{}) {
		sides = append(sides, complete("light-contrast", b.LightContrast, light.Palette, light.Palette, more))
	}
	if b.DarkContrast != (settings.Palette{}) {
		sides = append(sides, complete("dark-contrast", b.DarkContrast, dark.Palette, dark.Palette, more))
	}
	return sides
}

// more is by what the contrast of sides with more contrast exceeds that of the others: 7:1 for text, as WCAG's level AAA.
const more = 7.0 / 4.5

func platformDark() settings.Palette {
	return settings.Palette{
		Primary: "#fafaf9", Background: "#1c1917", Surface: "#292524", Border: "#57534e", Text: "#fafaf9", TextMuted: "#d6d3d1",
		Link: "#93c5fd", Success: "#86efac", Warning: "#fcd34d", Error: "#fca5a5",
	}
}

// complete fills in what a brand leaves open on a side: the main colour and that of links after those of another side, as
// near to them as is legible here; all else from the platform.
func complete(name string, set, platform, other settings.Palette, factor float64) Side {
	s := Side{Name: name, Palette: set, set: set}
	from := map[string]string{}
	for _, r := range platform.Roles() {
		from[r.Name] = *r.Colour
	}
	for _, r := range s.Palette.Roles() {
		if *r.Colour == "" {
			*r.Colour = from[r.Name]
		}
	}
	grounds := []colour.Colour{parse(s.Palette.Background), parse(s.Palette.Surface)}
	follow := func(into *string, set, after string, need colour.Ratio) {
		if set != "" || after == "" {
			return
		}
		if near, ok := walk(parse(after), colour.Ratio(float64(need)*factor), grounds); ok {
			*into = near.String()
		}
	}
	follow(&s.Palette.Primary, set.Primary, other.Primary, colour.NonText)
	follow(&s.Palette.Link, set.Link, other.Link, colour.Text)
	states := colour.Derive(parse(s.Palette.Primary))
	s.Hover, s.Active = states.Hover.String(), states.Active.String()
	if set.OnPrimary == "" {
		s.Palette.OnPrimary = states.On.String()
	}
	return s
}

// walk makes a colour lighter or darker until it passes on all grounds, whichever is less far. [colour.Nearest] would be nearer
// and takes a thousand times as long, which a brand of the platform's would cost for each tenant.
func walk(from colour.Colour, need colour.Ratio, grounds []colour.Colour) (colour.Colour, bool) {
	lch := from.Lab().LCH()
	passes := func(c colour.Colour) bool {
		return !slices.ContainsFunc(grounds, func(g colour.Colour) bool { return colour.Contrast(c, g) < need })
	}
	if passes(from) {
		return from, true
	}
	const steps = 100
	for i := 1; i <= steps; i++ {
		for _, l := range []float64{lch.L + float64(i)/steps, lch.L - float64(i)/steps} {
			c := colour.LCH{L: min(max(l, 0), 1), C: lch.C, H: lch.H}.Colour()
			if passes(c) {
				return c, true
			}
		}
	}
	return colour.Colour{}, false
}

// parse reads a colour that the brand's reader has checked.
func parse(s string) colour.Colour {
	c, err := colour.Parse(s)
	if err != nil {
		return colour.Black
	}
	return c
}

// A pair is a role that has to be legible on a ground.
type pair struct {
	role   string
	ground string
	need   colour.Ratio
}

// pairs are all that are judged: text, links and messages on what is behind a page and its parts, the text of buttons, and
// buttons themselves. Borders are ornament, and are not.
func pairs() []pair {
	all := []pair{{"on-primary", "primary", colour.Text}}
	for _, ground := range []string{"background", "surface"} {
		for _, role := range []string{"text", "text-muted", "link", "success", "warning", "error"} {
			all = append(all, pair{role, ground, colour.Text})
		}
		all = append(all, pair{"primary", ground, colour.NonText})
	}
	return all
}

// A Failure is a pair that WCAG 2.2 (1.4.3 and 1.4.11, level AA) finds hard to tell apart.
type Failure struct {
	Side, Role, Ground string
	Ratio, Need        colour.Ratio

	front, grounds string // the role's colour, and those of all its grounds
}

// Key names the pair, as a brand's exceptions do: "light/text-muted/background".
func (f Failure) Key() string { return f.Side + "/" + f.Role + "/" + f.Ground }

// Nearest is the colour nearest to the role's that passes on all its grounds; "" where none does. It takes milliseconds. Failures
// that are equal have the same.
func (f Failure) Nearest() string {
	var grounds []colour.Colour
	for ground := range strings.FieldsSeq(f.grounds) {
		grounds = append(grounds, parse(ground))
	}
	near, ok := colour.Nearest(parse(f.front), f.Need-1e-9, grounds...)
	if !ok {
		return ""
	}
	return near.String()
}

// Check returns the pairs of which the brand sets a colour and that fail, with no exception made for them.
func Check(b settings.Brand) (failed []Failure) {
	for _, s := range Of(b) {
		factor := colour.Ratio(1)
		if s.Name == "light-contrast" || s.Name == "dark-contrast" {
			factor = more
		}
		for _, p := range pairs() {
			need := p.need * factor
			front, ground := parse(s.colour(p.role)), parse(s.colour(p.ground))
			f := Failure{Side: s.Name, Role: p.role, Ground: p.ground, Ratio: colour.Contrast(front, ground), Need: need}
			// 7 / 4.5 * 4.5 is a hair above 7.
			if f.Ratio >= need-1e-9 || b.Exceptions[f.Key()] != "" || (!s.says(p.role) && !s.says(p.ground)) {
				continue
			}
			f.front = s.colour(p.role)
			for _, same := range pairs() {
				if same.role == p.role {
					f.grounds += " " + s.colour(same.ground)
				}
			}
			failed = append(failed, f)
		}
	}
	return failed
}

// colour returns a role's colour; says whether the brand itself set it.
func (s *Side) colour(role string) string { return of(&s.Palette, role) }
func (s *Side) says(role string) bool     { return of(&s.set, role) != "" }

func of(p *settings.Palette, role string) string {
	roles := p.Roles()
	i := slices.IndexFunc(roles, func(r settings.Role) bool { return r.Name == role })
	return *roles[i].Colour
}
