package css

import (
	"regexp"
	"slices"
	"strings"
)

var (
	wordPattern   = regexp.MustCompile(`^-?[A-Za-z][A-Za-z0-9]*(?:-[A-Za-z0-9]+)*$`)
	customPattern = regexp.MustCompile(`^--rh-[a-z0-9]+(?:-[a-z0-9]+)*$`)
	colourPattern = regexp.MustCompile(`^#(?:[0-9a-fA-F]{3,4}|[0-9a-fA-F]{6}|[0-9a-fA-F]{8})$`)
	namePattern   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9 _-]{0,99}$`) // of a typeface or its format
	numberPattern = regexp.MustCompile(`^[+-]?(?:[0-9]+|[0-9]*\.[0-9]+)(?:e[+-]?[0-9]{1,2})?(|%|px|r?em|ex|ch|r?lh|[sld]?v[wh]|vmin|vmax|` +
		`cm|mm|in|pt|pc|deg|grad|rad|turn|m?s|fr|dpi|dppx)$`)
)

// isNumber reports whether it is a number, a percentage, or has a unit that we know.
func isNumber(s string) bool { return numberPattern.MatchString(s) }

// properties are what colours, spaces and sets in type. Whatever moves a thing over another (position, z-index, transform,
// float; for margins see isStill), hides it, writes text (content), or runs code in some browser (behavior, -moz-binding)
// is not here. Nor are custom properties: tokens are set in the brand, where their contrast is checked.
const properties = `
color background background-color background-image background-position background-size background-repeat background-clip
background-origin background-attachment background-blend-mode
border border-color border-style border-width border-radius border-collapse border-spacing
border-top border-top-color border-top-style border-top-width border-right border-right-color border-right-style border-right-width
border-bottom border-bottom-color border-bottom-style border-bottom-width border-left border-left-color border-left-style border-left-width
border-top-left-radius border-top-right-radius border-bottom-left-radius border-bottom-right-radius
outline outline-color outline-style outline-width outline-offset box-shadow text-shadow
font font-family font-size font-style font-weight font-variant font-variant-numeric font-stretch font-feature-settings font-kerning
line-height letter-spacing word-spacing text-align text-decoration text-decoration-color text-decoration-line text-decoration-style
text-decoration-thickness text-underline-offset text-transform text-indent text-wrap white-space hyphens
padding padding-top padding-right padding-bottom padding-left padding-block padding-inline
margin margin-top margin-right margin-bottom margin-left margin-block margin-inline
gap row-gap column-gap align-items align-content align-self justify-items justify-content justify-self
width height min-width min-height max-width max-height aspect-ratio box-sizing object-fit object-position
accent-color caret-color fill stroke stroke-width list-style-type vertical-align
transition transition-property transition-duration transition-timing-function transition-delay`

const descriptors = `font-family src font-weight font-style font-display font-stretch`

const functions = `rgb rgba hsl hsla hwb oklch oklab var calc min max clamp format linear-gradient radial-gradient conic-gradient
repeating-linear-gradient repeating-radial-gradient cubic-bezier steps`

const features = `min-width max-width min-height max-height orientation prefers-color-scheme prefers-reduced-motion prefers-contrast`

// isStill reports whether a property must not take what is below zero, for that would move a thing over its neighbour or text
// out of sight. Arithmetic could come to that, so it takes none.
func isStill(property string) bool {
	return strings.HasPrefix(property, "margin") || property == "text-indent" || property == "outline-offset"
}

// isColour reports whether a function makes a colour: its numbers are no lengths.
func isColour(function string) bool { return has("rgb rgba hsl hsla hwb oklch oklab", function) }

// reach is how far a property may paint beyond the thing that it is of, in px, rem and, where it is of text and grows with
// it, em; ok is false for properties that do not. Without a bound an outline or a shadow would cover the page.
func reach(property string) (most map[string]float64, ok bool) {
	const pixels, roots = 64, 4
	switch {
	case strings.HasPrefix(property, "outline"), property == "box-shadow":
		return map[string]float64{"px": pixels, "rem": roots, "": 0}, true
	case property == "text-shadow", strings.HasPrefix(property, "text-decoration"), property == "text-underline-offset":
		return map[string]float64{"px": pixels, "rem": roots, "em": 1, "%": 100, "": 0}, true
	}
	return nil, false
}

func has(words, word string) bool { return slices.Contains(strings.Fields(words), word) }

func property(name string) bool   { return has(properties, name) }
func descriptor(name string) bool { return has(descriptors, name) }
func isFunction(name string) bool { return has(functions, name) }
func isFeature(name string) bool  { return has(features, name) }
