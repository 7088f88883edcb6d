package look

import (
	"math"
	"strings"

	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// token is a design token.
type token struct {
	Type  string `json:"$type"`
	Value any    `json:"$value"`
}

// tokens is brand.tokens.json: a group for each side, and the typography.
// See https://www.designtokens.org/TR/2025.10/format/ and https://www.designtokens.org/TR/2025.10/color/.
func tokens(b settings.Brand, sides []Side) any {
	out := map[string]any{}
	for _, s := range sides {
		out[s.Name] = s.tokens()
	}
	if set := typographyTokens(b.Typography); len(set) > 0 {
		out["typography"] = set
	}
	return out
}

// resolver is brand.resolver.json: the tokens in one shape, "color" and "typography", whose colours depend on the theme. All
// stands in the document itself, since tools need not load others.
// See https://www.designtokens.org/TR/2025.10/resolver/.
func resolver(b settings.Brand, sides []Side) any {
	type object = map[string]any
	contexts := object{}
	for _, s := range sides {
		contexts[s.Name] = []any{object{"color": s.tokens()}}
	}
	order := []any{object{"$ref": "#/modifiers/theme"}}
	out := object{
		"version":   "2025.10",
		"modifiers": object{"theme": object{"contexts": contexts, "default": "light"}},
	}
	if set := typographyTokens(b.Typography); len(set) > 0 {
		out["sets"] = object{"typography": object{"sources": []any{object{"typography": set}}}}
		order = append([]any{object{"$ref": "#/sets/typography"}}, order...)
	}
	if b.Name != "" {
		out["name"] = b.Name
	}
	out["resolutionOrder"] = order
	return out
}

// tokens are the colours of a side.
func (s *Side) tokens() map[string]any {
	group := map[string]any{"primary-hover": colourToken(s.Hover), "primary-active": colourToken(s.Active)}
	for _, r := range s.Palette.Roles() {
		group[r.Name] = colourToken(*r.Colour)
	}
	return group
}

// typographyTokens are what a brand says of how text is set.
func typographyTokens(t settings.Typography) map[string]any {
	set := map[string]any{}
	for _, f := range fonts(t) {
		var stack []string
		for family := range strings.SplitSeq(settings.FontStack(f.family), ",") {
			stack = append(stack, strings.Trim(family, ` "`))
		}
		set["font-"+f.use] = token{"fontFamily", stack}
	}
	for name, n := range map[string]*int{"size": t.Size, "radius": t.Radius} {
		if n != nil {
			set[name] = token{"dimension", map[string]any{"value": *n, "unit": "px"}}
		}
	}
	return set
}

func colourToken(s string) token {
	c := parse(s)
	share := func(channel uint8) float64 { return math.Round(float64(channel)/255*1e4) / 1e4 }
	return token{"color", map[string]any{
		"colorSpace": "srgb", "components": []float64{share(c.R), share(c.G), share(c.B)}, "alpha": 1, "hex": c.String(),
	}}
}
