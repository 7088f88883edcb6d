package svg_test

import (
	"errors"
	"fmt"
	"image"
	"image/color"
	"strings"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/internal/brand"
	"github.com/rowhouse-platform/rowhouse/internal/brand/brandtest"
	"github.com/rowhouse-platform/rowhouse/internal/brand/svg"
)

// draw draws what is inside of a picture of 10 by 10, with 100 pixels.
func draw(t *testing.T, inside string) (*image.RGBA, error) {
	t.Helper()
	clean, err := svg.Sanitise([]byte(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10">` + inside + `</svg>`))
	if err != nil {
		t.Fatalf("%s: %v", inside, err)
	}
	return svg.Draw(clean, 100)
}

// near reports whether colours differ by little.
func near(a, b color.RGBA) bool {
	d := func(a, b uint8) bool { return a-b < 4 || b-a < 4 }
	return d(a.R, b.R) && d(a.G, b.G) && d(a.B, b.B) && d(a.A, b.A)
}

func TestDraw(t *testing.T) {
	t.Parallel()
	red, blue, none, half := color.RGBA{255, 0, 0, 255}, color.RGBA{0, 0, 255, 255}, color.RGBA{}, color.RGBA{128, 0, 0, 128}
	for inside, want := range map[string]map[image.Point]color.RGBA{
		`<rect width="5" height="10" fill="red"/>`:                                                                   {{25, 50}: red, {75, 50}: none, {49, 0}: red, {50, 99}: none},
		`<rect width="5.05" height="10" fill="red"/>`:                                                                {{50, 50}: half, {51, 50}: none},
		`<circle cx="5" cy="5" r="3" fill="#f00"/>`:                                                                  {{50, 50}: red, {50, 21}: red, {50, 18}: none, {26, 26}: none},
		`<path d="M0 0h10v10h-10zM2 2h6v6h-6z" fill="red" fill-rule="evenodd"/>`:                                     {{10, 50}: red, {50, 50}: none},
		`<path d="M0 0h10v10h-10zM2 2h6v6h-6z" fill="red"/>`:                                                         {{10, 50}: red, {50, 50}: red},
		`<path d="M0 0h10v10h-10zM2 2v6h6v-6z" fill="red"/>`:                                                         {{10, 50}: red, {50, 50}: none},
		`<path d="M5 5m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0" fill="red"/>`:                                               {{50, 50}: red, {50, 22}: red, {50, 78}: red, {50, 17}: none},
		`<path d="M2 5a3 3 0 116 0" fill="red"/>`:                                                                    {{50, 30}: red, {50, 70}: none},
		`<path d="M0 10Q5-10 10 10z" fill="red"/>`:                                                                   {{50, 30}: red, {5, 5}: none},
		`<path d="M0 5C0 0 5 0 5 5S10 10 10 5V10H0z" fill="red"/>`:                                                   {{25, 40}: red, {75, 60}: none, {25, 8}: none},
		`<path d="M0 5Q2.5 0 5 5T10 5V10H0z" fill="red"/>`:                                                           {{25, 40}: red, {75, 60}: none},
		`<line x1="0" y1="5" x2="10" y2="5" stroke="red" stroke-width="2"/>`:                                         {{50, 50}: red, {50, 41}: red, {50, 38}: none},
		`<polyline points="2,8 5,2 8,8" fill="none" stroke="red" stroke-width="1"/>`:                                 {{50, 25}: red, {50, 60}: none, {50, 13}: red},
		`<polyline points="2,8 5,2 8,8" fill="none" stroke="red" stroke-linejoin="bevel"/>`:                          {{50, 13}: none},
		`<path d="M3 5h4" stroke="red" stroke-width="2" stroke-linecap="square"/>`:                                   {{22, 42}: red, {18, 50}: none},
		`<path d="M3 5h4" stroke="red" stroke-width="2" stroke-linecap="round"/>`:                                    {{22, 50}: red, {21, 41}: none},
		`<path d="M3 5z" stroke="red" stroke-width="2" stroke-linecap="round"/>`:                                     {{30, 50}: red},
		`<path d="M0 5h10" stroke="red" stroke-width="2" stroke-dasharray="2 1"/>`:                                   {{10, 50}: red, {25, 50}: none, {35, 50}: red, {55, 50}: none},
		`<path d="M0 5h10" stroke="red" stroke-dasharray="2 1" stroke-dashoffset="2"/>`:                              {{5, 50}: none, {15, 50}: red},
		`<polygon points="0,0 10,0 10,10 0,10" fill="red" opacity=".5"/>`:                                            {{50, 50}: half},
		`<g opacity=".5"><rect width="6" height="10" fill="red"/><rect x="4" width="6" height="10" fill="red"/></g>`: {{50, 50}: half, {10, 50}: half},
		`<g fill="red" transform="translate(5 0)"><rect width="5" height="10"/></g>`:                                 {{25, 50}: none, {75, 50}: red},
		`<rect width="2" height="10" fill="red" transform="rotate(90 5 5)"/>`:                                        {{50, 10}: red, {10, 50}: none},
		`<rect width="2" height="2" fill="red" transform="scale(2 5)"/>`:                                             {{35, 95}: red, {45, 50}: none},
		`<defs><rect id="a" width="5" height="10"/></defs><use href="#a" x="5" fill="red"/>`:                         {{25, 50}: none, {75, 50}: red},
		`<symbol id="a" viewBox="0 0 1 1"><rect width="3" height="3" fill="red"/></symbol><use href="#a" width="5" height="5"/>`: {
			{25, 25}: red, {60, 25}: none,
		},
		`<linearGradient id="a"><stop stop-color="red"/><stop offset="1" stop-color="blue"/></linearGradient><rect width="10" height="10" fill="url(#a)"/>`: {
			{1, 50}: {252, 0, 3, 255}, {50, 50}: {127, 0, 128, 255}, {99, 50}: {1, 0, 254, 255},
		},
		`<linearGradient id="a" gradientUnits="userSpaceOnUse" x2="5" spreadMethod="reflect"><stop stop-color="red"/><stop offset="1" stop-color="blue"/>` +
			`</linearGradient><rect width="10" height="10" fill="url(#a)"/>`: {{50, 50}: {3, 0, 252, 255}, {99, 50}: {252, 0, 3, 255}},
		`<linearGradient id="b"><stop stop-color="red"/></linearGradient><linearGradient id="a" href="#b"/><rect width="10" height="10" fill="url(#a)"/>`: {
			{50, 50}: red,
		},
		`<radialGradient id="a"><stop offset=".5" stop-color="red"/><stop offset=".5" stop-color="blue"/></radialGradient>` +
			`<rect width="10" height="10" fill="url(#a)"/>`: {{50, 50}: red, {50, 80}: blue, {2, 2}: blue},
		`<clipPath id="a"><rect width="5" height="10"/></clipPath><rect width="10" height="10" fill="red" clip-path="url(#a)"/>`: {
			{25, 50}: red, {75, 50}: none,
		},
		`<clipPath id="a"><path clip-rule="evenodd" d="M0 0h10v10h-10zM2 2h6v6h-6z"/></clipPath><g clip-path="url(#a)"><rect width="10" height="10" fill="red"/></g>`: {
			{10, 50}: red, {50, 50}: none,
		},
		`<mask id="a"><rect width="5" height="10" fill="white"/><rect x="5" width="5" height="10" fill="black"/></mask><rect width="10" height="10" fill="red" mask="url(#a)"/>`: {
			{25, 50}: red, {75, 50}: none,
		},
		`<mask id="a" mask-type="alpha"><rect width="5" height="10"/></mask><rect width="10" height="10" fill="red" mask="url(#a)"/>`: {{25, 50}: red, {75, 50}: none},
		`<g color="red"><rect width="10" height="10" fill="currentColor"/></g>`:                                                       {{50, 50}: red},
		`<rect width="100%" height="50%" fill="rgb(100% 0 0 / 50%)"/>`:                                                                {{99, 49}: half, {50, 51}: none},
		`<rect width="10" height="10" fill="red" display="none"/><rect width="10" height="10" visibility="hidden"/>`:                  {{50, 50}: none},
		`<rect width="10" height="10" rx="5" fill="red"/>`:                                                                            {{50, 50}: red, {3, 3}: none},
		`<rect x="2" y="2" width="6" height="6" fill="red" stroke="blue" stroke-width="4" paint-order="stroke"/>`:                     {{30, 50}: red, {10, 50}: blue},
		`<rect width="1mm" height="1in" fill="red"/>`:                                                                                 {{36, 50}: red, {39, 50}: none},
		`<title>x</title><desc>y</desc><g/>`:                                                                                          {{50, 50}: none},
	} {
		got, err := draw(t, inside)
		if err != nil {
			t.Errorf("%s: %v", inside, err)
			continue
		}
		for at, c := range want {
			if !near(got.RGBAAt(at.X, at.Y), c) {
				t.Errorf("%s: %v is %v, want %v", inside, at, got.RGBAAt(at.X, at.Y), c)
			}
		}
	}
}

func TestDrawRefuses(t *testing.T) {
	t.Parallel()
	for inside, want := range map[string]string{
		`<text>x</text>`: "typeface",
		`<pattern id="a"/><rect width="1" height="1" fill="url(#a)"/>`: "pattern",
		`<path d="M0 0L"/>`:                                    "path",
		`<path d="L1 1"/>`:                                     "path",
		`<path d="M0 0 1"/>`:                                   "path",
		`<path d="M1e9 0h1"/>`:                                 "too large",
		`<path d="M0 0C1e300 0 0 0 1 1"/>`:                     "too large",
		`<g transform="scale(1e9)"><path d="M0 0h1"/></g>`:     "too large",
		`<rect width="1em" height="1"/>`:                       "length",
		`<rect width="1e9" height="1"/>`:                       "length",
		`<rect width="1" height="1" fill="nocolour"/>`:         "colour",
		`<rect width="1" height="1" mix-blend-mode="screen"/>`: "blending",
		`<rect width="1" height="1" stroke="red" vector-effect="non-scaling-stroke"/>`:             "vector-effect",
		`<clipPath id="a" clipPathUnits="objectBoundingBox"/><rect clip-path="url(#a)"/>`:          "user space",
		`<path d="M0 0h1" stroke="red" stroke-dasharray="-1"/>`:                                    "too large",
		`<path d="M0 0h1" stroke="red" stroke-dasharray="1` + strings.Repeat(" 1", 64) + `"/>`:     "more than 64 dashes",
		`<path d="M0 0h1" stroke="red" stroke-dasharray="1" pathLength="3"/>`:                      "pathLength",
		strings.Repeat(`<g opacity=".5">`, 20) + `<path d="M0 0h1"/>` + strings.Repeat("</g>", 20): "too much work",
	} {
		_, err := draw(t, inside)
		var refusal *brand.Refusal
		if !errors.As(err, &refusal) || refusal.Rule != "drawing" || !strings.Contains(err.Error(), want) {
			t.Errorf("%.100s: %v; want %s", inside, err, want)
		}
	}
	for _, root := range []string{`<svg xmlns="http://www.w3.org/2000/svg"/>`, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 0 1"/>`,
		`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1e9 1"/>`, `<svg xmlns="http://www.w3.org/2000/svg" width="1" height="0"/>`} {
		if _, err := svg.Draw([]byte(root), 100); err == nil {
			t.Errorf("%s is drawn", root)
		}
	}
	if m, err := svg.Draw([]byte(`<svg xmlns="http://www.w3.org/2000/svg" width="20" height="10"/>`), 512); err != nil || m.Rect.Max != image.Pt(512, 256) {
		t.Errorf("%v", err)
	}
}

// What is short to write and long to draw is refused soon.
func TestDrawingBombs(t *testing.T) {
	t.Parallel()
	zigzag := "M0 0" + strings.Repeat("L10 9L0 1L9 10L1 0", 1500)
	arcs := "M0 0" + strings.Repeat("a1 1 0 1 0 9 9", 3000)
	bombs := map[string]string{
		"dashes":            `<path d="` + zigzag + `" stroke="red" fill="none" stroke-dasharray="1e-6"/>`,
		"no dash":           `<path d="` + zigzag + `" stroke="red" fill="none" stroke-dasharray="1e-30 0"/>`,
		"far away":          `<path d="M-999999 5H999999" stroke="red" stroke-dasharray=".00001"/>`,
		"wide":              `<path d="` + zigzag + `" stroke="red" stroke-width="1e5" stroke-linejoin="round"/>`,
		"crossings":         `<g id="a"><path d="` + zigzag + `" fill-rule="evenodd"/></g>` + strings.Repeat(`<use href="#a"/>`, 60),
		"arcs":              `<path id="a" d="` + arcs + `" stroke="red" stroke-linejoin="round" stroke-width="5"/>` + strings.Repeat(`<use href="#a"/>`, 40),
		"large areas":       `<rect id="a" width="10" height="10"/>` + strings.Repeat(`<use href="#a"/>`, 3000),
		"layers":            `<g id="a" opacity=".9"><rect width="10" height="10"/></g>` + strings.Repeat(`<use href="#a"/>`, 2400),
		"masks":             `<mask id="m"><rect width="9" height="9"/></mask><g id="a" mask="url(#m)"><path d="M0 0h1v1z"/></g>` + strings.Repeat(`<use href="#a"/>`, 1200),
		"clips":             `<clipPath id="m"><rect width="9" height="9"/></clipPath><g id="a" clip-path="url(#m)"><path d="M0 0h1v1z"/></g>` + strings.Repeat(`<use href="#a"/>`, 1600),
		"gradients":         `<radialGradient id="g"><stop/></radialGradient><rect id="a" width="10" height="10" fill="url(#g)"/>` + strings.Repeat(`<use href="#a"/>`, 2400),
		"ten levels":        levels(4, 7),
		"small and distant": `<g transform="scale(1e-5)"><path d="M0 0H999999V999999z" stroke="red" stroke-width="9e5" stroke-dasharray="1"/></g>`,
	}
	for name, inside := range bombs {
		began := time.Now()
		clean, err := svg.Sanitise([]byte(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10">` + inside + `</svg>`))
		if err != nil {
			t.Errorf("%s: it does not get there: %v", name, err)
			continue
		}
		_, err = svg.Draw(clean, svg.MaxSide)
		took := time.Since(began)
		t.Logf("%s: %v, %v", name, took.Round(time.Millisecond), err)
		if took > 30*time.Second { // on a machine that is busy; alone it is about one
			t.Errorf("%s took %v", name, took)
		}
	}
}

// levels is a tree of <use>, each of some of the next.
func levels(deep, each int) string {
	var b strings.Builder
	b.WriteString(`<defs><path id="l0" d="M0 0h10v10z"/>`)
	for i := range deep {
		fmt.Fprintf(&b, `<g id="l%d">%s</g>`, i+1, strings.Repeat(fmt.Sprintf(`<use href="#l%d"/>`, i), each))
	}
	fmt.Fprintf(&b, `</defs><use href="#l%d"/>`, deep-1)
	return b.String()
}

// Whatever is let through is drawn or refused, and never falls over.
func FuzzDraw(f *testing.F) {
	for _, a := range brandtest.Disguised() {
		f.Add(a.Input)
	}
	f.Add(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><path d="M0 0a1 1 0 01.5.5-1.5z" stroke="red" stroke-dasharray="1 2"/></svg>`)
	f.Fuzz(func(t *testing.T, upload string) {
		clean, err := svg.Sanitise([]byte(upload))
		if err != nil {
			return
		}
		_, err = svg.Draw(clean, 32)
		var refusal *brand.Refusal
		if err != nil && !errors.As(err, &refusal) {
			t.Fatal(err)
		}
		if refusal != nil && strings.Contains(refusal.Text, "it cannot be drawn: ") {
			t.Fatalf("it fell: %v", err)
		}
	})
}
