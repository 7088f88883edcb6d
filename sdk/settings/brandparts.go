package settings

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/rowhouse-platform/rowhouse/sdk/mail"
)

// BrandPath is where the gateway serves what a brand consists of, on the tenant's own domains: "brand.css",
// "brand.json", "brand.tokens.json" and "brand.resolver.json", and below "b/" the assets.
const BrandPath = "/.well-known/rowhouse/"

// Asset names a file of a brand: the SHA-256 of its content in hex, a dot, and what it is: "png", "jpg", "gif", "svg",
// "ico", "woff2" or "css".
type Asset string

var assetPattern = regexp.MustCompile(`^[0-9a-f]{64}\.(png|jpg|gif|svg|ico|woff2|css)$`)

// ParseAsset reads the name of an asset.
func ParseAsset(name string) (Asset, bool) { return Asset(name), assetPattern.MatchString(name) }

// Path is where the gateway serves the asset, "" for none.
func (a Asset) Path() string {
	if a == "" {
		return ""
	}
	return BrandPath + "b/" + string(a)
}

// Extension is what the asset is: "png".
func (a Asset) Extension() string {
	_, extension, _ := strings.Cut(string(a), ".")
	return extension
}

// Typography is how a brand sets text.
type Typography struct {
	// Body, Heading and Mono are families: one of Faces, or one that readers have; may be empty.
	Body, Heading, Mono string
	// Size of body text and Radius of corners are in CSS pixels; nil where the brand says nothing.
	Size, Radius *int
	// Faces are the brand's own typefaces.
	Faces []Face
}

// Face is a typeface of a brand's own.
type Face struct {
	// Family is its name; File is a woff2.
	Family string
	File   Asset
	// Weight is "400", or "100 900" for a variable one; Style is "normal" or "italic".
	Weight, Style string
}

// Files lists all assets that the brand uses, in order and each once. The gateway serves no others.
func (b Brand) Files() []Asset {
	all := slices.Clone(b.Assets)
	all = slices.AppendSeq(all, maps.Values(b.Logos))
	all = slices.AppendSeq(all, maps.Values(b.Icons))
	for _, f := range b.Typography.Faces {
		all = append(all, f.File)
	}
	if b.Styles != "" {
		all = append(all, b.Styles)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Empty reports whether nothing is set that shows.
func (b Brand) Empty() bool {
	return b.Name == "" && b.Logo == "" && b.Light == Palette{} && b.Dark == Palette{} && b.LightContrast == Palette{} &&
		b.DarkContrast == Palette{} && len(b.Files()) == 0 && b.Typography.plain() && len(b.Links)+len(b.Texts)+len(b.Terms)+len(b.Messages) == 0
}

func (t Typography) plain() bool {
	return t.Body == "" && t.Heading == "" && t.Mono == "" && t.Size == nil && t.Radius == nil
}

var (
	familyPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9 _-]{0,63}$`)
	weightPattern = regexp.MustCompile(`^[1-9]00( [1-9]00)?$`)
)

// families are what readers' systems have, each with what stands in for it.
func families() map[string]string {
	return map[string]string{
		"system-ui": "system-ui, sans-serif", "sans-serif": "sans-serif", "serif": "serif", "monospace": "monospace",
		"ui-rounded": "ui-rounded, system-ui, sans-serif", "ui-serif": "ui-serif, serif", "ui-monospace": "ui-monospace, monospace",
		"Arial": "Arial, Helvetica, sans-serif", "Helvetica": "Helvetica, Arial, sans-serif", "Verdana": "Verdana, sans-serif",
		"Tahoma": "Tahoma, Verdana, sans-serif", "Trebuchet MS": `"Trebuchet MS", sans-serif`, "Georgia": "Georgia, serif",
		"Times New Roman": `"Times New Roman", Times, serif`, "Courier New": `"Courier New", monospace`,
	}
}

// FontStack is a family with what stands in for it, as CSS writes it; "" for "".
func FontStack(family string) string {
	if family == "" {
		return ""
	}
	if known, ok := families()[family]; ok {
		return known
	}
	return `"` + family + `", system-ui, sans-serif`
}

// object reads a member that is an object; a missing one is nil.
func (r *brandReader) object(o Object, above, name string) Object {
	v, ok := o[name]
	if !ok {
		return nil
	}
	in, ok := v.(Object)
	if !ok {
		r.refuse(above+"/"+name, "type", "is not an object")
	}
	return in
}

// lines reads an object of texts.
func (r *brandReader) lines(o Object, above, name string, check func(string) error) map[string]string {
	in := r.object(o, above, name)
	if len(in) == 0 {
		return nil
	}
	out := make(map[string]string, len(in))
	for _, key := range slices.Sorted(maps.Keys(in)) {
		at := above + Pointer(name, key)
		s, ok := in[key].(string)
		if !ok {
			r.refuse(at, "type", "is not a string")
		} else if err := check(s); err != nil {
			r.refuse(at, "text", err.Error())
		}
		out[key] = s
	}
	return out
}

// asset reads the name of an asset of some kinds.
func (r *brandReader) asset(at string, v any, kinds ...string) Asset {
	s, _ := v.(string)
	a, ok := ParseAsset(s)
	if !ok || !slices.Contains(kinds, a.Extension()) {
		r.refuse(at, "asset", "is not the name of an asset of the kind "+strings.Join(kinds, ", "))
	}
	return a
}

// files reads what names assets. What a place may hold, the schema says more narrowly.
func (r *brandReader) files(o Object, b *Brand) {
	pictures := []string{"png", "jpg", "gif", "svg"}
	read := func(name string, kinds []string) map[string]Asset {
		in := r.object(o, "", name)
		if len(in) == 0 {
			return nil
		}
		out := make(map[string]Asset, len(in))
		for _, key := range slices.Sorted(maps.Keys(in)) {
			out[key] = r.asset(Pointer(name, key), in[key], kinds...)
		}
		return out
	}
	b.Logos, b.Icons = read("logos", pictures), read("icons", []string{"ico", "png", "svg"})
	if v, ok := o["styles"]; ok {
		b.Styles = r.asset("/styles", v, "css")
	}
	if v, ok := o["assets"]; ok {
		list, ok := v.([]any)
		if !ok {
			r.refuse("/assets", "type", "is not an array")
		}
		for i, v := range list {
			b.Assets = append(b.Assets, r.asset(Pointer("assets", strconv.Itoa(i)), v, append(pictures, "woff2")...))
		}
	}
}

// typography reads how text is set.
func (r *brandReader) typography(o Object, t *Typography) {
	in := r.object(o, "", "typography")
	t.Size = r.pixels(in, "size", 12, 24)
	t.Radius = r.pixels(in, "radius", 0, 32)
	own := families()
	if v, ok := in["faces"]; ok {
		list, ok := v.([]any)
		if !ok {
			r.refuse("/typography/faces", "type", "is not an array")
		}
		for i, v := range list {
			f := r.face(Pointer("typography", "faces", strconv.Itoa(i)), v)
			t.Faces, own[f.Family] = append(t.Faces, f), ""
		}
	}
	for name, into := range map[string]*string{"body": &t.Body, "heading": &t.Heading, "mono": &t.Mono} {
		*into = r.text(in, "/typography", name)
		if _, ok := own[*into]; !ok && *into != "" {
			r.refuse("/typography/"+name, "family", "is neither one of the brand's faces nor one that readers have")
		}
	}
}

func (r *brandReader) face(at string, v any) Face {
	in, ok := v.(Object)
	if !ok {
		r.refuse(at, "type", "is not an object")
		return Face{}
	}
	f := Face{Family: r.text(in, at, "family"), Weight: "400", Style: "normal", File: r.asset(at+"/file", in["file"], "woff2")}
	if !familyPattern.MatchString(f.Family) {
		r.refuse(at+"/family", "family", "is not the name of a family")
	}
	if _, ok := in["weight"]; ok {
		if f.Weight = r.text(in, at, "weight"); !weightPattern.MatchString(f.Weight) {
			r.refuse(at+"/weight", "weight", `is not a weight such as "400" or "100 900"`)
		}
	}
	if _, ok := in["style"]; ok {
		if f.Style = r.text(in, at, "style"); f.Style != "normal" && f.Style != "italic" {
			r.refuse(at+"/style", "style", "is neither normal nor italic")
		}
	}
	return f
}

func (r *brandReader) pixels(o Object, name string, least, most int) *int {
	v, ok := o[name]
	if !ok {
		return nil
	}
	n, ok := v.(float64)
	if !ok || n != math.Trunc(n) || n < float64(least) || n > float64(most) {
		r.refuse("/typography/"+name, "size", fmt.Sprintf("is not a whole number from %d to %d", least, most))
		return nil
	}
	return new(int(n))
}

// checkText takes text of some lines with nothing in it that is not seen or turns the direction of what follows.
func checkText(s string) error {
	const most = 2000
	if strings.TrimSpace(s) == "" || utf8.RuneCountInString(s) > most ||
		strings.ContainsFunc(strings.ReplaceAll(s, "\n", ""), mail.Unseen) {
		return fmt.Errorf("is not text of at most %d characters", most)
	}
	return nil
}

// checkTerm takes one line.
func checkTerm(s string) error {
	if strings.TrimSpace(s) == "" || !soundName(s) {
		return fmt.Errorf("is not a line of at most %d characters", maxBrandName)
	}
	return nil
}
