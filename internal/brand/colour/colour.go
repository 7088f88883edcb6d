// Package colour reckons with the colours of a brand as browsers show them: 8-bit sRGB. It measures contrast as WCAG 2.2
// does, mixes what is translucent, derives the colours of states from one, and finds the nearest colour that passes. It knows
// no roles and no pairs: what must be legible on what, the schema of brands says. Start with Contrast.
package colour

import (
	"encoding/hex"
	"fmt"
	"math"
)

// A Colour is sRGB with 8 bits a channel and straight (not premultiplied) alpha; 255 is opaque.
type Colour struct{ R, G, B, A uint8 }

// White and Black are the two ends.
var (
	White = Colour{255, 255, 255, 255} //nolint:gochecknoglobals // constants in all but syntax
	Black = Colour{0, 0, 0, 255}       //nolint:gochecknoglobals // constants in all but syntax
)

// Parse reads #rgb, #rgba, #rrggbb or #rrggbbaa.
func Parse(s string) (Colour, error) {
	bad := fmt.Errorf("%.20q is no colour: want #rgb, #rgba, #rrggbb or #rrggbbaa", s)
	if s == "" || s[0] != '#' {
		return Colour{}, bad
	}
	digits := s[1:]
	if len(digits) == 3 || len(digits) == 4 {
		var long []byte
		for i := range len(digits) {
			long = append(long, digits[i], digits[i])
		}
		digits = string(long)
	}
	b, err := hex.DecodeString(digits)
	if err != nil || (len(b) != 3 && len(b) != 4) {
		return Colour{}, bad
	}
	if len(b) == 3 {
		b = append(b, 255)
	}
	return Colour{b[0], b[1], b[2], b[3]}, nil
}

// String is #rrggbb, or #rrggbbaa where it is not opaque.
func (c Colour) String() string {
	if c.A == 255 {
		return fmt.Sprintf("#%02x%02x%02x", c.R, c.G, c.B)
	}
	return fmt.Sprintf("#%02x%02x%02x%02x", c.R, c.G, c.B, c.A)
}

// Over is what is seen of c on an opaque ground, rounded to 8 bits: source-over on encoded values, as browsers do
// (https://www.w3.org/TR/compositing-1/#porterduffcompositingoperators_srcover). A ground that is not opaque is taken as if it were.
func (c Colour) Over(ground Colour) Colour {
	mix := func(front, back uint8) uint8 {
		a := uint32(c.A)
		return uint8((uint32(front)*a + uint32(back)*(255-a) + 127) / 255) //nolint:gosec // at most 255
	}
	return Colour{mix(c.R, ground.R), mix(c.G, ground.G), mix(c.B, ground.B), 255}
}

// Luminance is the relative luminance of the opaque colour, 0 to 1 (https://www.w3.org/TR/WCAG22/#dfn-relative-luminance).
func (c Colour) Luminance() float64 {
	return 0.2126*linear(c.R) + 0.7152*linear(c.G) + 0.0722*linear(c.B)
}

// linear undoes the transfer function of sRGB, IEC 61966-2-1. WCAG prints the older threshold 0.03928; no 8-bit value
// lies between it and 0.04045.
func linear(channel uint8) float64 {
	v := float64(channel) / 255
	if v <= 0.04045 {
		return v / 12.92
	}
	return math.Pow((v+0.055)/1.055, 2.4)
}

// A Ratio is a contrast ratio, 1 to 21.
type Ratio float64

// What WCAG 2.2 level AA asks for: 1.4.3 for text, and for large text (24 px, or 18.66 px bold); 1.4.11 for what is not text.
const (
	Text    Ratio = 4.5
	Large   Ratio = 3
	NonText Ratio = 3
)

// String has two decimals and is never rounded up: 4.4999 is 4.49, so no reader wonders why it failed.
func (r Ratio) String() string { return fmt.Sprintf("%.2f:1", math.Floor(float64(r)*100)/100) }

// Contrast is the ratio of what is seen of front on ground, and ground (https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio). Compare it as
// it is: #767676 on white has 4.54 and passes 4.5, #777777 has 4.47 and does not. A ground that is translucent has to be
// mixed by Over first, a gradient asked at both of its ends.
func Contrast(front, ground Colour) Ratio {
	return ratio(front.Over(ground).Luminance(), ground.Luminance())
}

func ratio(a, b float64) Ratio { return Ratio((max(a, b) + 0.05) / (min(a, b) + 0.05)) }
