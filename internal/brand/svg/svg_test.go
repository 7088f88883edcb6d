package svg_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/rowhouse-platform/rowhouse/internal/brand"
	"github.com/rowhouse-platform/rowhouse/internal/brand/brandtest"
	"github.com/rowhouse-platform/rowhouse/internal/brand/svg"
)

const open = `<svg xmlns="http://www.w3.org/2000/svg">`

func TestHostileFilesAreRefused(t *testing.T) {
	t.Parallel()
	all := brandtest.SVG()
	for _, a := range all {
		out, err := svg.Sanitise([]byte(a.Input))
		var refusal *brand.Refusal
		if !errors.As(err, &refusal) {
			t.Errorf("%s: %.300q became %.300q, %v", a.Name, a.Input, out, err)
			continue
		}
		if whole := []string{"size", "expansion"}; (refusal.Line < 1 || refusal.Column < 1) && !slices.Contains(whole, refusal.Rule) {
			t.Errorf("%s: no place: %v", a.Name, err)
		}
	}
	t.Logf("%d files", len(all))
}

func TestHarmlessFilesAreWrittenAnew(t *testing.T) {
	t.Parallel()
	for _, a := range brandtest.Disguised() {
		out, err := svg.Sanitise([]byte(a.Input))
		if err != nil {
			t.Errorf("%s: %q: %v", a.Name, a.Input, err)
			continue
		}
		check(t, out)
	}
	for in, want := range map[string]string{
		"\ufeff<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- x -->\n" + open + " \n</svg>\n":     `<svg xmlns="http://www.w3.org/2000/svg"/>`,
		open + `<g style="fill:#FFF; stroke : red;" fill="blue" id="a"/></svg>`:                     open + `<g fill="#FFF" id="a" stroke="red"/></svg>`,
		open + `<g id="a"/><use xmlns:xlink="http://www.w3.org/1999/xlink" xlink:href="#a"/></svg>`: open + `<g id="a"/><use href="#a"/></svg>`,
		open + "<text>a<!-- -->b<![CDATA[<&>]]>'\"`</text></svg>":                                   open + `<text>ab&lt;&amp;&gt;&#39;&#34;&#96;</text></svg>`,
		open + "<path d=' M0\n0  h9 '></path></svg>":                                                open + `<path d="M0 0 h9"/></svg>`,
		open + `<path fill="url( '#a' )  red"/><pattern id="a"/></svg>`:                             open + `<path fill="url(#a) red"/><pattern id="a"/></svg>`,
	} {
		if out, err := svg.Sanitise([]byte(in)); err != nil || string(out) != want {
			t.Errorf("%q became\n%s, %v; want\n%s", in, out, err, want)
		}
	}
}

func TestRefusalsSayWhereAndWhy(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		open + "\n  <script/></svg>":                  "2:3: element: <script> in <svg>",
		open + "\n<g>\n<path\nonload='1'/></g></svg>": "3:1: attribute: onload of <path>",
		open + `<g xml:base="//x"/></svg>`:            "1:41: namespace: xml:base",
		"<!DOCTYPE svg>":                              "1:1: doctype: <!DOCTYPE svg",
		open + "<title>\n\u202e</title></svg>":        "2:1: character: U+202E",
		open + `<path fill="url(//x)"/></svg>`:        `1:41: value: fill="url(//x)"`,
		open + `<title>&x;</title></svg>`:             "1:48: entity: syntax error on line 1: invalid character entity &x;",
		open + `<use id="a" href="#a"/></svg>`:        "1:41: cycle: refers to itself",
	} {
		if _, err := svg.Sanitise([]byte(in)); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", in, err, want)
		}
	}
}

// As many nodes as are allowed, and one more.
func TestExpansionIsCountedToTheNode(t *testing.T) {
	t.Parallel()
	file := func(uses int) []byte { // each <use> counts itself, the group and its 98 paths
		return []byte(open + `<symbol id="a">` + strings.Repeat("<path/>", 98) + `</symbol>` + strings.Repeat(`<use href="#a"/>`,
			98) + strings.Repeat("<g/>", uses) + `</svg>`)
	}
	rest := svg.MaxNodes - 1 - 99 - 98*100
	if _, err := svg.Sanitise(file(rest)); err != nil {
		t.Error(err)
	}
	if _, err := svg.Sanitise(file(rest + 1)); err == nil {
		t.Errorf("%d nodes pass", svg.MaxNodes+1)
	}
}

// check holds of whatever Sanitise returns. It knows the lists only roughly, so that it does not repeat the code's mistakes.
func check(t *testing.T, out []byte) {
	t.Helper()
	if again, err := svg.Sanitise(out); err != nil || !bytes.Equal(again, out) {
		t.Fatalf("not the same twice:\n%q\n%q %v", out, again, err)
	}
	names := strings.Fields(`svg g defs symbol use title desc path rect circle ellipse line polyline polygon text tspan linearGradient radialGradient
		stop clipPath mask pattern`)
	d := xml.NewDecoder(bytes.NewReader(out))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("%q: %v", out, err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			if !slices.Contains(names, e.Name.Local) || e.Name.Space != "http://www.w3.org/2000/svg" {
				t.Fatalf("%q has the element %v", out, e.Name)
			}
			for _, a := range e.Attr {
				checkAttribute(t, out, a)
			}
		case xml.EndElement, xml.CharData:
		default:
			t.Fatalf("%q has a %T", out, token)
		}
	}
}

func checkAttribute(t *testing.T, out []byte, a xml.Attr) {
	t.Helper()
	value := strings.ToLower(a.Value)
	switch {
	case a.Name.Local == "xmlns":
		return
	case a.Name.Space != "", strings.HasPrefix(strings.ToLower(a.Name.Local), "on"), slices.Contains([]string{"style", "src", "class",
		"filter"}, a.Name.Local):
		t.Fatalf("%q has the attribute %v", out, a.Name)
	case a.Name.Local == "href" && !strings.HasPrefix(value, "#"),
		strings.Contains(strings.ReplaceAll(value, "url(#", ""), "url("),
		strings.ContainsAny(value, "\\:;{}<>\"'`@!&=\n\t"), strings.Contains(value, "//"):
		t.Fatalf("%q has the value %q", out, a.Value)
	}
}

func FuzzSanitise(f *testing.F) {
	for _, a := range brandtest.Disguised() {
		f.Add([]byte(a.Input))
	}
	for i, a := range brandtest.SVG() {
		if i%7 == 0 && len(a.Input) < 4096 {
			f.Add([]byte(a.Input))
		}
	}
	f.Fuzz(func(t *testing.T, upload []byte) {
		out, err := svg.Sanitise(upload)
		if err == nil {
			check(t, out)
		}
	})
}
