package settings_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

const prefix = "data:image/png;base64,"

func pngFile(tb testing.TB, width, height int) []byte {
	tb.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewPaletted(image.Rect(0, 0, width, height), color.Palette{color.White})); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func TestBrandOf(t *testing.T) {
	t.Parallel()
	logo := prefix + base64.StdEncoding.EncodeToString(pngFile(t, 4, 2))
	object := settings.Object{
		"name": "Acme & Söhne", "logo": logo, "unknown": 1.0,
		"light": settings.Object{"primary": "#0A3d62", "text-muted": "#57534e", "unknown": "x"},
		"dark":  settings.Object{"background": "#1c1917"},
	}
	b, err := settings.BrandOf(settings.Merge(settings.Layer{Object: object}))
	if err != nil {
		t.Fatal(err)
	}
	want := settings.Brand{
		Name: "Acme & Söhne", Logo: logo,
		Light: settings.Palette{Primary: "#0A3d62", TextMuted: "#57534e"}, Dark: settings.Palette{Background: "#1c1917"},
	}
	if diff := cmp.Diff(want, b, cmpopts.IgnoreUnexported(settings.Brand{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	css := ":root { --primary: #0A3d62; --text-muted: #57534e; }\n@media (prefers-color-scheme: dark) { :root { --background: #1c1917; } }\n"
	if diff := cmp.Diff(css, b.CSS()); diff != "" {
		t.Errorf("CSS (-want +got)\n%s", diff)
	}
	if css := (settings.Brand{Name: "x"}).CSS(); css != "" {
		t.Errorf("CSS out of nothing: %s", css)
	}
}

func TestBrandRefuses(t *testing.T) {
	t.Parallel()
	uri := func(file []byte) string { return prefix + base64.StdEncoding.EncodeToString(file) }
	small := pngFile(t, 2, 2)
	broken := bytes.Clone(small)
	broken[len(broken)-5] ^= 1 // in the last chunk
	// Says that it is 2^31-1 pixels wide and high.
	bomb := bytes.Clone(small)
	copy(bomb[16:], "\x7f\xff\xff\xff\x7f\xff\xff\xff")
	binary.BigEndian.PutUint32(bomb[29:], crc32.ChecksumIEEE(bomb[12:29]))
	var photo bytes.Buffer
	if err := jpeg.Encode(&photo, image.NewGray(image.Rect(0, 0, 1, 1)), nil); err != nil {
		t.Fatal(err)
	}
	name := func(s string) settings.Object { return settings.Object{"name": s} }
	logo := func(s string) settings.Object { return settings.Object{"logo": s} }
	light := func(s any) settings.Object { return settings.Object{"light": settings.Object{"text": s}} }
	for what, c := range map[string]struct {
		object  settings.Object
		pointer string // empty: it is sound
	}{
		"nothing":               {settings.Object{}, ""},
		"longest name":          {name(strings.Repeat("ä", 80)), ""},
		"longer name":           {name(strings.Repeat("ä", 81)), "/name"},
		"two lines":             {name("a\nb"), "/name"},
		"other direction":       {name("a\u202eb"), "/name"},
		"name that is a number": {settings.Object{"name": 1.0}, "/name"},
		"markup in a name":      {name("</style><script>"), ""}, // written as text
		"logo":                  {logo(uri(small)), ""},
		"widest logo":           {logo(uri(pngFile(t, 1024, 1))), ""},
		"wider logo":            {logo(uri(pngFile(t, 1025, 1))), "/logo"},
		"higher logo":           {logo(uri(pngFile(t, 1, 1025))), "/logo"},
		"bomb":                  {logo(uri(bomb)), "/logo"},
		"something behind":      {logo(uri(append(bytes.Clone(small), "<script>"...))), "/logo"},
		"broken checksum":       {logo(uri(broken)), "/logo"},
		"half":                  {logo(uri(small[:len(small)/2])), "/logo"},
		"JPEG":                  {logo(uri(photo.Bytes())), "/logo"},
		"SVG":                   {logo("data:image/svg+xml;base64,PHN2Zz48L3N2Zz4="), "/logo"},
		"link":                  {logo("https://example.com/x.png"), "/logo"},
		"script":                {logo("javascript:alert(1)"), "/logo"},
		"line break in base64":  {logo(strings.Replace(uri(small), "AAA", "AA\nA", 1)), "/logo"},
		"quote in base64":       {logo(uri(small) + `"`), "/logo"},
		"too large":             {logo(prefix + strings.Repeat("AAAA", 40<<10)), "/logo"},
		"colour":                {light("#FFFfff"), ""},
		"colour name":           {light("red"), "/light/text"},
		"short colour":          {light("#fff"), "/light/text"},
		"empty colour":          {light(""), "/light/text"},
		"colour and more":       {light("#ffffff;"), "/light/text"},
		"escape from CSS":       {light("#fff}}</"), "/light/text"},
		"null":                  {light(nil), "/light/text"},
		"no palette":            {settings.Object{"dark": "black"}, "/dark"},
	} {
		problems := settings.CheckBrand(c.object)
		_, err := settings.BrandOf(settings.Merge(settings.Layer{Object: c.object}))
		if c.pointer == "" {
			if err != nil || len(problems) > 0 {
				t.Errorf("%s: %v, %v", what, err, problems)
			}
			continue
		}
		if !errors.Is(err, settings.ErrBrand) || len(problems) == 0 || problems[0].Pointer != c.pointer {
			t.Errorf("%s: %v, %v, want a problem at %s", what, err, problems, c.pointer)
		}
	}
}
