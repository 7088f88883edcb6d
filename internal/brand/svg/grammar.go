package svg

import (
	"regexp"
	"strings"
)

// A grammar says whether a value is good and returns it as we write it.
type grammar func(value string) (clean string, good bool)

// The values, with white space already collapsed to single blanks. None has a quote, backslash, semicolon, angle
// bracket or colon, and a bracket only where it is named. RE2 takes linear time.
const (
	num  = `[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?`
	unit = `(?:px|em|rem|ex|pt|pc|cm|mm|in|%)?`
	sep  = `(?: ?, ?| )`
	nums = num + `(?:` + sep + `?` + num + `)*`
	rgb  = `(?:#[0-9a-fA-F]{3,4}|#[0-9a-fA-F]{6}|#[0-9a-fA-F]{8}|[a-zA-Z]{3,24}|` +
		`(?:rgb|hsl)a?\( ?` + num + `%?(?:(?:` + sep + `| / )` + num + `%?){2,3} ?\))`
	name = `[A-Za-z_][A-Za-z0-9_.-]{0,99}`
)

var (
	number     = regexp.MustCompile(`^` + num + `$`)
	portion    = regexp.MustCompile(`^` + num + `%?$`)
	length     = regexp.MustCompile(`^` + num + unit + `$`)
	lengths    = regexp.MustCompile(`^(?:none|` + num + unit + `(?:` + sep + num + unit + `)*)$`)
	numbers    = regexp.MustCompile(`^` + nums + `$`)
	fourOf     = regexp.MustCompile(`^` + num + `(?:` + sep + num + `){3}$`)
	path       = regexp.MustCompile(`^(?:none|[MmZzLlHhVvCcSsQqTtAa0-9eE+\-., ]*)$`)
	transforms = regexp.MustCompile(`^(?:none|(?:(?:matrix|translate|scale|rotate|skewX|skewY) ?\( ?` + nums + ` ?\)[ ,]*)*)$`)
	colours    = regexp.MustCompile(`^` + rgb + `$`)
	identifier = regexp.MustCompile(`^` + name + `$`)
	fragment   = regexp.MustCompile(`^#` + name + `$`)
	reference  = regexp.MustCompile(`^url\( ?(?:#(` + name + `)|"#(` + name + `)"|'#(` + name + `)') ?\)(?: (none|` + rgb + `))?$`)
	families   = regexp.MustCompile(`^[A-Za-z0-9 _,-]{1,200}$`)
	aspect     = regexp.MustCompile(`^(?:none|x(?:Min|Mid|Max)Y(?:Min|Mid|Max)(?: (?:meet|slice))?)$`)
	version    = regexp.MustCompile(`^[12]\.[0-2]$`)
)

func like(pattern *regexp.Regexp) grammar {
	return func(value string) (string, bool) { return value, pattern.MatchString(value) }
}

func oneOf(words string) grammar {
	return func(value string) (string, bool) {
		for word := range strings.FieldsSeq(words) {
			if word == value {
				return value, true
			}
		}
		return "", false
	}
}

// paint is none, a colour, or url(#id) with a colour behind it.
func paint(value string) (string, bool) {
	if m := reference.FindStringSubmatch(value); m != nil {
		return strings.TrimSpace("url(#" + m[1] + m[2] + m[3] + ") " + m[4]), true
	}
	return value, colours.MatchString(value)
}

// local is none, or url(#id) with nothing behind it.
func local(value string) (string, bool) {
	if m := reference.FindStringSubmatch(value); m != nil && m[4] == "" {
		return "url(#" + m[1] + m[2] + m[3] + ")", true
	}
	return value, value == "none"
}

// family drops the quotes of names: a name of words needs none.
func family(value string) (string, bool) {
	value = strings.Join(strings.Fields(strings.NewReplacer(`"`, "", `'`, "").Replace(value)), " ")
	return value, families.MatchString(value)
}

// mayContain reports which element may stand in which. There is no script, style, foreignObject, image, a, iframe,
// nested svg, animation or filter, and title and desc, which HTML takes for its own, hold text alone.
func mayContain(parent, child string) bool {
	switch parent {
	case "svg", "g", "defs", "symbol", "clipPath", "mask", "pattern":
		switch child {
		case "g", "defs", "symbol", "use", "title", "desc", "path", "rect", "circle", "ellipse", "line", "polyline", "polygon",
			"text", "linearGradient", "radialGradient", "clipPath", "mask", "pattern":
			return true
		}
	case "linearGradient", "radialGradient":
		return child == "stop"
	case "text", "tspan":
		return child == "tspan" || child == "title"
	case "use", "path", "rect", "circle", "ellipse", "line", "polyline", "polygon":
		return child == "title" || child == "desc"
	}
	return false
}

func hasText(element string) bool {
	return element == "text" || element == "tspan" || element == "title" || element == "desc"
}

// attributeOf is the grammar of an attribute of an element; known is false for one that is not on the list.
func attributeOf(element, attribute string) (check grammar, known bool) {
	if attribute == "id" {
		return like(identifier), true
	}
	if check = own(element, attribute); check != nil {
		return check, true
	}
	return presentation(attribute)
}

// own is the grammar of what an element has apart from the presentation attributes, or nil.
func own(element, attribute string) grammar {
	pattern := map[string]*regexp.Regexp{}
	switch element {
	case "svg":
		pattern = map[string]*regexp.Regexp{"viewBox": fourOf, "width": length, "height": length, "x": length, "y": length, "version": version,
			"preserveAspectRatio": aspect}
	case "symbol":
		pattern = map[string]*regexp.Regexp{"viewBox": fourOf, "preserveAspectRatio": aspect}
	case "use":
		pattern = map[string]*regexp.Regexp{"href": fragment, "x": length, "y": length, "width": length, "height": length}
	case "path":
		pattern = map[string]*regexp.Regexp{"d": path, "pathLength": number}
	case "rect":
		pattern = map[string]*regexp.Regexp{"x": length, "y": length, "width": length, "height": length, "rx": length, "ry": length}
	case "circle":
		pattern = map[string]*regexp.Regexp{"cx": length, "cy": length, "r": length}
	case "ellipse":
		pattern = map[string]*regexp.Regexp{"cx": length, "cy": length, "rx": length, "ry": length}
	case "line":
		pattern = map[string]*regexp.Regexp{"x1": length, "y1": length, "x2": length, "y2": length}
	case "polyline", "polygon":
		pattern = map[string]*regexp.Regexp{"points": numbers}
	case "text", "tspan":
		pattern = map[string]*regexp.Regexp{"x": lengths, "y": lengths, "dx": lengths, "dy": lengths, "rotate": numbers, "textLength": length}
	case "linearGradient":
		pattern = map[string]*regexp.Regexp{"x1": length, "y1": length, "x2": length, "y2": length, "href": fragment,
			"gradientTransform": transforms}
	case "radialGradient":
		pattern = map[string]*regexp.Regexp{"cx": length, "cy": length, "r": length, "fx": length, "fy": length, "fr": length, "href": fragment,
			"gradientTransform": transforms}
	case "stop":
		pattern = map[string]*regexp.Regexp{"offset": portion}
	case "pattern":
		pattern = map[string]*regexp.Regexp{"x": length, "y": length, "width": length, "height": length, "href": fragment, "viewBox": fourOf,
			"patternTransform": transforms}
	case "mask":
		pattern = map[string]*regexp.Regexp{"x": length, "y": length, "width": length, "height": length}
	}
	if pattern[attribute] != nil {
		return like(pattern[attribute])
	}
	return enumerated(element, attribute)
}

// enumerated is the grammar of an element's attribute whose values are words, or nil.
func enumerated(element, attribute string) grammar {
	switch element + " " + attribute {
	case "linearGradient gradientUnits", "radialGradient gradientUnits", "clipPath clipPathUnits", "mask maskUnits",
		"mask maskContentUnits", "pattern patternUnits", "pattern patternContentUnits":
		return oneOf("userSpaceOnUse objectBoundingBox")
	case "linearGradient spreadMethod", "radialGradient spreadMethod":
		return oneOf("pad reflect repeat")
	case "text lengthAdjust", "tspan lengthAdjust":
		return oneOf("spacing spacingAndGlyphs")
	}
	return nil
}

// presentation is the grammar of an attribute that CSS knows as a property, on any element and in a style attribute.
func presentation(attribute string) (check grammar, known bool) {
	switch attribute {
	case "fill", "stroke":
		return paint, true
	case "color", "stop-color":
		return like(colours), true
	case "clip-path", "mask":
		return local, true
	case "opacity", "fill-opacity", "stroke-opacity", "stop-opacity":
		return like(portion), true
	case "stroke-width", "stroke-dashoffset", "font-size", "letter-spacing", "word-spacing":
		return like(length), true
	case "stroke-dasharray":
		return like(lengths), true
	case "stroke-miterlimit":
		return like(number), true
	case "transform":
		return like(transforms), true
	case "font-family":
		return family, true
	}
	words := map[string]string{
		"fill-rule": "nonzero evenodd", "clip-rule": "nonzero evenodd", "stroke-linecap": "butt round square",
		"stroke-linejoin": "miter round bevel", "font-style": "normal italic oblique", "mask-type": "luminance alpha",
		"font-weight": "normal bold bolder lighter 100 200 300 400 500 600 700 800 900", "text-anchor": "start middle end",
		"dominant-baseline": "auto middle central hanging alphabetic mathematical", "display": "inline none",
		"visibility": "visible hidden", "overflow": "visible hidden", "paint-order": "normal fill stroke",
		"shape-rendering": "auto optimizeSpeed crispEdges geometricPrecision", "vector-effect": "none non-scaling-stroke",
		"text-rendering": "auto optimizeSpeed optimizeLegibility geometricPrecision", "isolation": "auto isolate",
		"mix-blend-mode": "normal multiply screen overlay darken lighten color-dodge color-burn hard-light soft-light difference exclusion",
	}
	if words[attribute] == "" {
		return nil, false
	}
	return oneOf(words[attribute]), true
}
