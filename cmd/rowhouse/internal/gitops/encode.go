package gitops

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// Encode writes a document as YAML for people: the same bytes for the same content, whatever made it and whatever a
// library's next version would do. [Decode] gives the content back.
func Encode(o settings.Object) []byte {
	if len(o) == 0 {
		return []byte("{}\n")
	}
	var e encoder
	e.object(o, 0)
	return e.out.Bytes()
}

const step = 2

// encoder writes YAML. A container begins where the cursor stands: behind the indentation of its first line.
type encoder struct{ out bytes.Buffer }

func (e *encoder) indent(n int) { e.out.WriteString(strings.Repeat(" ", n)) }

func (e *encoder) object(o settings.Object, at int) {
	for i, name := range sorted(o) {
		if i > 0 {
			e.indent(at)
		}
		e.name(scalarText(name), at)
		switch v := o[name].(type) {
		case settings.Object:
			if len(v) > 0 {
				e.out.WriteByte('\n')
				e.indent(at + step)
				e.object(v, at+step)
				continue
			}
		case []any:
			if len(v) > 0 {
				e.out.WriteByte('\n')
				e.indent(at + step)
				e.array(v, at+step)
				continue
			}
		}
		e.leaf(o[name], at+step)
	}
}

// name writes the name of a member. A long one needs a line of its own: readers look for its colon in the first 1,024
// characters only.
func (e *encoder) name(text string, at int) {
	const most = 1000
	if len(text) > most {
		e.out.WriteString("? " + text + "\n")
		e.indent(at)
		text = ""
	}
	e.out.WriteString(text + ":")
}

func (e *encoder) array(a []any, at int) {
	for i, v := range a {
		if i > 0 {
			e.indent(at)
		}
		e.out.WriteByte('-')
		switch v := v.(type) {
		case settings.Object:
			if len(v) > 0 {
				e.out.WriteByte(' ')
				e.object(v, at+step)
				continue
			}
		case []any:
			if len(v) > 0 {
				e.out.WriteByte(' ')
				e.array(v, at+step)
				continue
			}
		}
		e.leaf(v, at+step)
	}
}

// leaf writes a value behind its name or dash, and the end of its line.
func (e *encoder) leaf(v any, at int) {
	text, ok := v.(string)
	switch {
	case !ok: // numbers, truth values, null and what is empty are as in JSON
		e.out.WriteString(" " + string(settings.Canonical(v)) + "\n")
	case block(text):
		mark := " |"
		if !strings.HasSuffix(text, "\n") {
			mark = " |-"
		}
		e.out.WriteString(mark + "\n")
		for line := range strings.Lines(text) {
			if line != "\n" {
				e.indent(at)
			}
			e.out.WriteString(line)
		}
		if !strings.HasSuffix(text, "\n") {
			e.out.WriteByte('\n')
		}
	default:
		e.out.WriteString(" " + scalarText(text) + "\n")
	}
}

// sorted are the names in the canonical order.
func sorted(o settings.Object) []string {
	names := make([]string, 0, len(o))
	for name := range o {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// bare is what is written without quotes: it begins with a letter, and no sign in it means anything in YAML.
var bare = regexp.MustCompile(`^[\pL_/$][\pL\pN_./$@+-]*((:|, | )[\pL\pN_./$@+-]+)*$`)

func scalarText(text string) string {
	if bare.MatchString(text) && !ambiguous(text) && !literal(text) {
		return text
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case printable(r):
			b.WriteRune(r)
		case r > 0xFFFF:
			fmt.Fprintf(&b, `\U%08X`, r)
		default:
			fmt.Fprintf(&b, `\u%04X`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// printable says whether a rune is seen, and read back by every reader: not a byte order mark, not what orders text.
func printable(r rune) bool {
	return r == ' ' || unicode.IsGraphic(r) && !unicode.IsSpace(r) && r != '\uFEFF' && r != '\uFFFD'
}

// block says whether a text of several lines can stand as it is.
func block(text string) bool {
	first, _, more := strings.Cut(text, "\n")
	if !more || first == "" || strings.HasPrefix(first, " ") || strings.HasSuffix(text, "\n\n") {
		return false
	}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasSuffix(line, " ") || strings.ContainsFunc(line, func(r rune) bool { return !printable(r) }) {
			return false
		}
	}
	return true
}
