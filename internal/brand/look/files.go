package look

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// Files are what the gateway publishes of a brand. Nothing in them was written by a tenant but names of families, hashes,
// colours, numbers, and in JSON text, each checked by [settings.BrandOn].
type Files struct {
	// CSS is a style sheet of custom properties "--rh-…", with the brand's typefaces and its own sheet.
	CSS []byte
	// JSON is what a program in the page may want: names, links, addresses of logos, texts.
	JSON []byte
	// Tokens are design tokens in the format of the W3C's community group, 2025.10.
	Tokens []byte
	// Resolver is the same as one set of tokens that has other values by theme, in that group's format for it, 2025.10.
	Resolver []byte
}

// Publish writes the files of a brand; the same brand gives the same bytes.
func Publish(b settings.Brand) (Files, error) {
	sides := Of(b)
	text, err := json.Marshal(document(b, sides))
	if err != nil {
		return Files{}, fmt.Errorf("brand.json: %w", err)
	}
	tokens, err := json.Marshal(tokens(b, sides))
	if err != nil {
		return Files{}, fmt.Errorf("brand.tokens.json: %w", err)
	}
	resolver, err := json.Marshal(resolver(b, sides))
	if err != nil {
		return Files{}, fmt.Errorf("brand.resolver.json: %w", err)
	}
	return Files{CSS: []byte(sheet(b, sides)), JSON: text, Tokens: tokens, Resolver: resolver}, nil
}

// sheet writes the style sheet. A page chooses a side by data-theme on its root element; otherwise the reader's
// preference does.
func sheet(b settings.Brand, sides []Side) string {
	var css strings.Builder
	if b.Styles != "" {
		fmt.Fprintf(&css, "@import url(%q);\n", b.Styles.Path())
	}
	for _, f := range b.Typography.Faces {
		fmt.Fprintf(&css, "@font-face{font-family:%q;src:url(%q) format(\"woff2\");font-weight:%s;font-style:%s;font-display:swap}\n",
			f.Family, f.File.Path(), f.Weight, f.Style)
	}
	common := typography(b.Typography) + logos(b.Logos)
	for _, s := range sides {
		own := s.declarations()
		switch s.Name {
		case "light":
			fmt.Fprintf(&css, ":root{color-scheme:light dark;%s%s}\n:root[data-theme=light]{color-scheme:light}\n", common, own)
		case "dark":
			fmt.Fprintf(&css, "@media (prefers-color-scheme:dark){:root:not([data-theme=light]){%s}}\n", own)
			fmt.Fprintf(&css, ":root[data-theme=dark]{color-scheme:dark;%s}\n", own)
		case "light-contrast":
			fmt.Fprintf(&css, "@media (prefers-contrast:more) and (prefers-color-scheme:light){:root:not([data-theme=dark]){%s}}\n", own)
			fmt.Fprintf(&css, "@media (prefers-contrast:more){:root[data-theme=light]{%s}}\n", own)
		case "dark-contrast":
			fmt.Fprintf(&css, "@media (prefers-contrast:more) and (prefers-color-scheme:dark){:root:not([data-theme=light]){%s}}\n", own)
			fmt.Fprintf(&css, "@media (prefers-contrast:more){:root[data-theme=dark]{%s}}\n", own)
		}
	}
	return css.String()
}

func (s *Side) declarations() string {
	var b strings.Builder
	for _, r := range s.Palette.Roles() {
		fmt.Fprintf(&b, "--rh-%s:%s;", r.Name, strings.ToLower(*r.Colour))
	}
	fmt.Fprintf(&b, "--rh-primary-hover:%s;--rh-primary-active:%s", s.Hover, s.Active)
	return b.String()
}

func logos(all map[string]settings.Asset) string {
	var b strings.Builder
	for _, name := range []string{"light", "dark"} {
		if logo := all[name]; logo != "" {
			fmt.Fprintf(&b, "--rh-logo-%s:url(%q);", name, logo.Path())
		}
	}
	return b.String()
}

func typography(t settings.Typography) string {
	var b strings.Builder
	for _, f := range fonts(t) {
		fmt.Fprintf(&b, "--rh-font-%s:%s;", f.use, settings.FontStack(f.family))
	}
	if t.Size != nil {
		fmt.Fprintf(&b, "--rh-size:%dpx;", *t.Size)
	}
	if t.Radius != nil {
		fmt.Fprintf(&b, "--rh-radius:%dpx;", *t.Radius)
	}
	return b.String()
}

// font is a family and what it is for.
type font struct{ use, family string }

func fonts(t settings.Typography) []font {
	return slices.DeleteFunc([]font{{"body", t.Body}, {"heading", t.Heading}, {"mono", t.Mono}}, func(f font) bool { return f.family == "" })
}

// paths are the addresses of assets.
func paths(assets map[string]settings.Asset) map[string]string {
	out := make(map[string]string, len(assets))
	for name, a := range assets {
		out[name] = a.Path()
	}
	return out
}

// document is brand.json. Why an exception was made for a pair of colours stays inside.
func document(b settings.Brand, sides []Side) any {
	colours := map[string]any{}
	for _, s := range sides {
		of := map[string]string{"primary-hover": s.Hover, "primary-active": s.Active}
		for _, r := range s.Palette.Roles() {
			of[r.Name] = strings.ToLower(*r.Colour)
		}
		colours[s.Name] = of
	}
	out := map[string]any{"name": b.Name, "colours": colours}
	for name, value := range map[string]map[string]string{"logos": paths(b.Logos), "icons": paths(b.Icons), "links": b.Links} {
		if len(value) > 0 {
			out[name] = value
		}
	}
	for name, value := range map[string]map[string]map[string]string{"texts": b.Texts, "terms": b.Terms, "messages": b.Messages} {
		if len(value) > 0 {
			out[name] = value
		}
	}
	for name, value := range map[string]string{"locale": b.Locale, "styles": b.Styles.Path()} {
		if value != "" {
			out[name] = value
		}
	}
	return out
}
