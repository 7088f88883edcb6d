package css_test

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/rowhouse-platform/rowhouse/internal/brand"
	"github.com/rowhouse-platform/rowhouse/internal/brand/brandtest"
	"github.com/rowhouse-platform/rowhouse/internal/brand/css"
)

const asset = "/.well-known/rowhouse/b/0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.png"

func own(path string) bool { return path == asset }

func TestHostileSheetsAreRefused(t *testing.T) {
	t.Parallel()
	all := brandtest.CSS(asset)
	for _, a := range all {
		out, err := css.Sanitise([]byte(a.Input), own)
		var refusal *brand.Refusal
		if !errors.As(err, &refusal) {
			t.Errorf("%s: %.300q became %.300q, %v", a.Name, a.Input, out, err)
			continue
		}
		if (refusal.Line < 1 || refusal.Column < 1) && refusal.Rule != "size" {
			t.Errorf("%s: no place: %v", a.Name, err)
		}
	}
	t.Logf("%d sheets", len(all))
}

// Whoever owns it, what does not look like an asset is not even asked for.
func TestOnlyAssetsAreAskedFor(t *testing.T) {
	t.Parallel()
	asked := 0
	for _, a := range brandtest.CSS(asset) {
		_, _ = css.Sanitise([]byte(a.Input), func(path string) bool {
			asked++
			if !brand.IsAssetPath(path) {
				t.Errorf("%s: asks whose %q is", a.Name, path)
			}
			return true
		})
	}
	if asked == 0 {
		t.Error("nothing is asked for")
	}
}

func TestHarmlessSheetsAreWrittenAnew(t *testing.T) {
	t.Parallel()
	for _, a := range brandtest.Sheets(asset) {
		out, err := css.Sanitise([]byte(a.Input), own)
		if err != nil {
			t.Errorf("%s: %q: %v", a.Name, a.Input, err)
			continue
		}
		check(t, out)
	}
	for in, want := range map[string]string{
		``: ``,
		`/* x */ .rh-a , .rh-b >.rh-c::part( x ) { COLOR : r\65 d ;; }`:                                  `.rh-brand .rh-a,.rh-brand .rh-b>.rh-c::part(x){color:red}`,
		`.rh-brand{color:red}.rh-brand .rh-a{}.rh-brand.rh-b>.rh-c{}`:                                    `.rh-brand{color:red}.rh-brand .rh-a{}.rh-brand.rh-b>.rh-c{}`,
		`.rh-a{font:12px/1.5 "A B",serif;width:calc( (1px + 2px)*3 )}`:                                   `.rh-brand .rh-a{font:12px / 1.5 "A B",serif;width:calc((1px + 2px) * 3)}`,
		`.rh-a{background:u\rl( '\2f ` + asset[1:] + `' )}`:                                              `.rh-brand .rh-a{background:url("` + asset + `")}`,
		`@media (min-width:3px) and (orientation:portrait){.rh-a{gap:1px}}`:                              `@media (min-width:3px) and (orientation:portrait){.rh-brand .rh-a{gap:1px}}`,
		`.rh-a{box-shadow:0 -25px 50px -12px rgb(255 99 0 / 90%);outline:.25rem solid var(--rh-x, 2px)}`: `.rh-brand .rh-a{box-shadow:0 -25px 50px -12px rgb(255 99 0 / 90%);outline:.25rem solid var(--rh-x,2px)}`,
		`.rh-a{padding:1px/**/2px}`:                                                                      `.rh-brand .rh-a{padding:1px 2px}`,
	} {
		out, err := css.Sanitise([]byte(in), own)
		if want := "@layer rh-tenant{" + want + "}\n"; err != nil || string(out) != want {
			t.Errorf("%q became\n%s, %v; want\n%s", in, out, err, want)
		}
	}
}

func TestRefusalsSayWhereAndWhy(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		".rh-a{\n  position: fixed}":         "2:3: property: position",
		".rh-a{color:red}\n@import 'x';":     "2:1: at-rule: @import",
		".rh-a{color:red !important}":        `1:17: important: "!" in color`,
		"/* ü */ .rh-a{background:url(//x)}": `1:27: url: "//x" in background`,
		".rh-a{color:e\\78 pression(1)}":     `1:13: function: "expression" in color`,
		".rh-a,\nbody{}":                     `2:1: selector: "body", want a class of ours`,
		".rh-a{color:red;\n\n  z-index:1}":   "3:3: property: z-index",
		".rh-a[value^=a]{}":                  `1:12: syntax: "^="`,
	} {
		if _, err := css.Sanitise([]byte(in), own); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", in, err, want)
		}
	}
}

var (
	address  = regexp.MustCompile(`url\("([^"]*)"\)`)
	selector = regexp.MustCompile(`(?:^@layer rh-tenant\{|[{},])(?:@media [^{]*\{)*([^{}@]*)\{`)
	allowed  = regexp.MustCompile(`^(?:\.rh-brand(?:[ >]?\.rh-[a-z0-9-]+)*(?:::part\([a-z0-9-]+\))?,?)+$`)
)

// check holds of whatever Sanitise returns.
func check(t *testing.T, out []byte) {
	t.Helper()
	if again, err := css.Sanitise(out, own); err != nil || !bytes.Equal(again, out) {
		t.Fatalf("not the same twice:\n%q\n%q %v", out, again, err)
	}
	s := string(out)
	if !strings.HasPrefix(s, "@layer rh-tenant{") || strings.Count(s, "{") != strings.Count(s, "}") {
		t.Fatalf("%q is not in the layer", s)
	}
	for _, m := range address.FindAllStringSubmatch(s, -1) {
		if !own(m[1]) {
			t.Fatalf("%q asks for %s", s, m[1])
		}
	}
	rest := address.ReplaceAllString(s, "")
	if strings.Contains(strings.ToLower(rest), "url(") || strings.Contains(rest, "//") || strings.ContainsAny(rest, "\\<'`[]!~|$^&=?") {
		t.Fatalf("%q has what is not ours", s)
	}
	for _, word := range []string{"expression(", "position:", "z-index", "content:", "behavior", "binding", "@import", "@charset",
		"animation"} {
		if strings.Contains(strings.ToLower(rest), word) && !strings.Contains(strings.ToLower(rest), "-"+word) {
			t.Fatalf("%q has %s", s, word)
		}
	}
	for _, m := range selector.FindAllStringSubmatch(s, -1) {
		if m[1] != "" && !allowed.MatchString(m[1]) {
			t.Fatalf("%q selects %q", s, m[1])
		}
	}
}

func FuzzSanitise(f *testing.F) {
	for _, a := range brandtest.Sheets(asset) {
		f.Add([]byte(a.Input))
	}
	for i, a := range brandtest.CSS(asset) {
		if i%7 == 0 && len(a.Input) < 4096 {
			f.Add([]byte(a.Input))
		}
	}
	f.Fuzz(func(t *testing.T, upload []byte) {
		out, err := css.Sanitise(upload, own)
		if err == nil {
			check(t, out)
		}
	})
}
