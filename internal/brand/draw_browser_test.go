package brand_test

import (
	"encoding/base64"
	"fmt"
	"image"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/rowhouse-platform/rowhouse/internal/brand/svg"
)

// drawings are files made at random of what Draw knows.
func drawings(n int) (all []string) {
	r := rand.New(rand.NewPCG(1, 2))
	one := func(values ...string) string { return values[r.IntN(len(values))] }
	at := func() float64 { return math.Round(r.Float64()*1000) / 10 }
	for range n {
		var b strings.Builder
		b.WriteString(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">` +
			`<linearGradient id="l" x2="1" y2=".5"><stop stop-color="#b91c1c"/><stop offset=".7" stop-color="#1d4ed8" stop-opacity=".8"/></linearGradient>` +
			`<radialGradient id="r" cx=".4" r=".6" spreadMethod="reflect"><stop stop-color="gold"/><stop offset="1" stop-color="#166534"/></radialGradient>` +
			`<clipPath id="c"><circle cx="50" cy="50" r="40"/></clipPath><mask id="m" maskUnits="userSpaceOnUse" x="-100" y="-100" width="400" height="400"><rect width="100" height="70" fill="#ccc"/></mask>`)
		for range 4 {
			fmt.Fprintf(&b, `<g transform="%s" opacity="%s" clip-path="%s" mask="%s">`,
				one("none", "rotate(20 50 50)", "scale(.8 .6)", "skewX(15)", "translate(5 -3)"), one("1", "1", ".6"), one("none", "none", "url(#c)"), one("none", "none", "url(#m)"))
			paint := fmt.Sprintf(`fill="%s" stroke="%s" stroke-width="%d" stroke-linejoin="%s" stroke-linecap="%s" stroke-dasharray="%s" fill-rule="%s"`,
				one("none", "#b91c1c", "url(#l)", "url(#r)", "rgba(0,80,160,.5)"), one("none", "black", "url(#l)", "#0f766e"), 1+r.IntN(9),
				one("miter", "round", "bevel"), one("butt", "round", "square"), one("none", "none", "9 4 2"), one("nonzero", "evenodd"))
			switch r.IntN(6) {
			case 0:
				fmt.Fprintf(&b, `<rect x="%g" y="%g" width="%g" height="%g" rx="%d" %s/>`, at()/2, at()/2, at()/2, at()/2, r.IntN(9), paint)
			case 1:
				fmt.Fprintf(&b, `<ellipse cx="%g" cy="%g" rx="%g" ry="%g" %s/>`, at(), at(), at()/3, at()/3, paint)
			case 2:
				fmt.Fprintf(&b, `<polygon points="%g,%g %g,%g %g,%g %g,%g %g,%g" %s/>`, at(), at(), at(), at(), at(), at(), at(), at(), at(), at(), paint)
			case 3:
				fmt.Fprintf(&b, `<path d="M%g %gC%g %g %g %g %g %gS%g %g %g %gz" %s/>`, at(), at(), at(), at(), at(), at(), at(), at(), at(), at(), at(), at(), paint)
			case 4:
				fmt.Fprintf(&b, `<path d="M%g %ga%g %g %d %d%d%g %gq9 9 20 0t20 0" %s/>`, at(), at(), 5+at()/3, 5+at()/3, r.IntN(90), r.IntN(2), r.IntN(2), at()/2, at()/2, paint)
			default:
				fmt.Fprintf(&b, `<polyline points="%g,%g %g,%g %g,%g" %s/>`, at(), at(), at(), at(), at(), at(), paint)
			}
			b.WriteString(`</g>`)
		}
		all = append(all, b.String()+`</svg>`)
	}
	return all
}

// What is drawn for icons looks as it does in a browser.
func TestDrawnAsABrowserDoes(t *testing.T) {
	t.Parallel()
	browser := chromium(t)
	all := drawings(60)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var n int
		if _, err := fmt.Sscanf(r.URL.Path, "/%d.svg", &n); err == nil && n < len(all) {
			w.Header().Set("Content-Type", "image/svg+xml")
			_, _ = fmt.Fprint(w, strings.Replace(all[n], "<svg ", `<svg width="128" height="128" `, 1))
			return
		}
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprint(w, "<!doctype html><title>x</title>")
	}))
	defer server.Close()
	tab, closeTab := chromedp.NewContext(browser)
	defer closeTab()
	if err := chromedp.Do(tab, chromedp.Navigate(server.URL+"/")); err != nil {
		t.Fatal(err)
	}
	worst := 0.0
	for i, file := range all {
		encoded, err := chromedp.Run(tab, chromedp.Evaluate[string](fmt.Sprintf(`(async () => {
			const i = new Image(); i.src = "/%d.svg"; await i.decode()
			const c = document.createElement("canvas"); c.width = c.height = 128
			const g = c.getContext("2d"); g.fillStyle = "white"; g.fillRect(0, 0, 128, 128); g.drawImage(i, 0, 0, 128, 128)
			let s = ""; for (const b of g.getImageData(0, 0, 128, 128).data) s += String.fromCharCode(b)
			return btoa(s)})()`, i), chromedp.EvalAwaitPromise))
		if err != nil {
			t.Fatal(err)
		}
		want, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			t.Fatal(err)
		}
		clean, err := svg.Sanitise([]byte(file))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		got, err := svg.Draw(clean, 128)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		share := differs(got, want)
		worst = max(worst, share)
		if share > 0.01 { // edges are smoothed in other ways
			t.Errorf("%.1f %% of the pixels differ: %s", 100*share, file)
		}
	}
	t.Logf("%d drawings, at most %.2f %% of pixels differ", len(all), 100*worst)
}

// differs is the share of pixels that are plainly others on white.
func differs(got *image.RGBA, want []byte) float64 {
	n := 0
	for i := 0; i < len(got.Pix); i += 4 {
		white := 255 - int(got.Pix[i+3])
		for c := range 3 {
			if d := int(got.Pix[i+c]) + white - int(want[i+c]); d > 48 || d < -48 {
				n++
				break
			}
		}
	}
	return float64(n) / float64(len(got.Pix)/4)
}
