package gitops

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// MaxFile bounds a file; a document has at most a quarter of it, the rest is white space and comments.
const MaxFile = 4 * settings.MaxBytes

// fileError is a mistake in a file, at a line unless that is 0.
type fileError struct {
	path    string
	line    int
	pointer string
	why     string
}

// Error implements error.
func (e *fileError) Error() string {
	where := e.path
	if e.line > 0 {
		where = fmt.Sprintf("%s:%d", where, e.line)
	}
	if e.pointer != "" {
		where += ": " + e.pointer
	}
	return where + ": " + e.why
}

// Decode reads a document from a file of YAML, or of JSON where the path ends in ".json", and returns its canonical text.
// It reads a part of YAML that nobody can take for something else: what other readers of YAML hold for a date, an octal
// number or a truth value has to be quoted, and there are no anchors, tags or second documents. Errors name path and line.
func Decode(path string, text []byte) (string, error) {
	if len(text) > MaxFile {
		return "", &fileError{path: path, why: fmt.Sprintf("has more than %d bytes", MaxFile)}
	}
	if strings.HasSuffix(path, ".json") {
		return decodeJSON(path, text)
	}
	if i := bytes.IndexAny(text, "\u0085\u2028\u2029"); i >= 0 {
		line := 1 + bytes.Count(text[:i], []byte("\n"))
		const why = `has a character that some readers of YAML take for the end of a line; write "\u0085", "\u2028" or "\u2029"`
		return "", &fileError{path: path, line: line, why: why}
	}
	root, err := nodeOf(path, text)
	if err != nil {
		return "", err
	}
	d := &decoder{path: path}
	if root.Kind != yaml.MappingNode {
		return "", d.wrong(root, "", "is not an object")
	}
	if err := d.value(root, "", 0); err != nil {
		return "", err
	}
	o, err := settings.Parse(d.out.Bytes())
	if err != nil {
		pointer := settings.Place(err)
		return "", &fileError{path, lineOf(root, pointer), pointer, reasonOf(err)}
	}
	return string(settings.Canonical(o)), nil
}

// reasonOf is why a document was refused, without its place.
func reasonOf(err error) string {
	why := err.Error()
	why = strings.TrimPrefix(why, settings.ErrDocument.Error()+": ")
	return strings.TrimPrefix(why, settings.Place(err)+": ")
}

func decodeJSON(path string, text []byte) (string, error) {
	var syntax *json.SyntaxError
	if err := json.Unmarshal(text, new(any)); errors.As(err, &syntax) {
		at := min(int(syntax.Offset), len(text))
		return "", &fileError{path: path, line: 1 + bytes.Count(text[:at], []byte("\n")), why: "is no JSON: " + syntax.Error()}
	}
	var compact bytes.Buffer // the bound is about what is said, not about how it is indented
	if err := json.Compact(&compact, text); err != nil {
		return "", &fileError{path: path, why: "is no JSON: " + err.Error()}
	}
	o, err := settings.Parse(compact.Bytes())
	if err != nil {
		return "", &fileError{path: path, pointer: settings.Place(err), why: reasonOf(err)}
	}
	return string(settings.Canonical(o)), nil
}

// nodeOf reads the only YAML document of a file.
func nodeOf(path string, text []byte) (*yaml.Node, error) {
	d := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	if err := d.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		return nil, located(path, err)
	}
	switch err := d.Decode(new(yaml.Node)); {
	case err == nil:
		return nil, &fileError{path: path, why: "has more than one YAML document"}
	case !errors.Is(err, io.EOF):
		return nil, located(path, err)
	}
	if len(doc.Content) == 0 {
		return nil, &fileError{path: path, line: 1, why: "is empty; an object without members is written {}"}
	}
	return doc.Content[0], nil
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// located puts the path before the line that the library names.
func located(path string, err error) error {
	e := &fileError{path: path, why: yamlLine.ReplaceAllString(err.Error(), "")}
	if found := yamlLine.FindStringSubmatch(err.Error()); found != nil && found[1] != "" {
		_, _ = fmt.Sscan(found[1], &e.line) // digits
	}
	return e
}

// decoder writes nodes as JSON.
type decoder struct {
	path string
	out  bytes.Buffer
}

func (d *decoder) wrong(n *yaml.Node, pointer, format string, args ...any) error {
	return &fileError{d.path, n.Line, pointer, fmt.Sprintf(format, args...)}
}

// value writes a node below depth others.
func (d *decoder) value(n *yaml.Node, pointer string, depth int) error {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		return d.wrong(n, pointer, "anchors and aliases are not supported")
	case n.Style&yaml.TaggedStyle != 0 || !strings.HasPrefix(n.Tag, "!!"):
		return d.wrong(n, pointer, "the tag %s is not supported", n.Tag)
	case n.Kind == yaml.ScalarNode:
		return d.scalar(n, pointer)
	case depth >= settings.MaxDepth:
		return d.wrong(n, pointer, "is deeper than %d", settings.MaxDepth)
	case n.Kind == yaml.MappingNode:
		return d.mapping(n, pointer, depth)
	default:
		return d.sequence(n, pointer, depth)
	}
}

func (d *decoder) mapping(n *yaml.Node, pointer string, depth int) error {
	lines := make(map[string]int, len(n.Content)/2)
	d.out.WriteByte('{')
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, below := n.Content[i], n.Content[i+1]
		at := pointer + settings.Pointer(key.Value)
		switch {
		case key.Kind == yaml.AliasNode || key.Anchor != "":
			return d.wrong(key, pointer, "anchors and aliases are not supported")
		case key.Kind != yaml.ScalarNode || key.Style&yaml.TaggedStyle != 0:
			return d.wrong(key, pointer, "a name is not a text")
		case key.Value == "<<" && plain(key):
			return d.wrong(key, at, "merge keys are not supported")
		case plain(key) && (ambiguous(key.Value) || number.MatchString(key.Value) || literal(key.Value)):
			return d.wrong(key, at, "the name %s is not a text for every reader of YAML; quote it", key.Value)
		}
		if first, twice := lines[key.Value]; twice {
			return d.wrong(key, at, "stands twice; the first is in line %d", first)
		}
		lines[key.Value] = key.Line
		if i > 0 {
			d.out.WriteByte(',')
		}
		d.out.Write(settings.Canonical(key.Value))
		d.out.WriteByte(':')
		if err := d.value(below, at, depth+1); err != nil {
			return err
		}
	}
	d.out.WriteByte('}')
	return nil
}

func (d *decoder) sequence(n *yaml.Node, pointer string, depth int) error {
	d.out.WriteByte('[')
	for i, below := range n.Content {
		if i > 0 {
			d.out.WriteByte(',')
		}
		if err := d.value(below, fmt.Sprintf("%s/%d", pointer, i), depth+1); err != nil {
			return err
		}
	}
	d.out.WriteByte(']')
	return nil
}

var (
	// number is one of JSON.
	number = regexp.MustCompile(`^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$`)
	// numeric is what some version of YAML reads as a number or a time and JSON does not.
	numeric = regexp.MustCompile(`^[-+]?(0[xob]?[0-9a-fA-F_]+|[0-9][0-9_]*(\.[0-9_]*)?([eE][-+]?[0-9]*)?|\.[0-9_]+([eE][-+]?[0-9]+)?` +
		`|[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?|\.(?i:inf|nan))$`)
	date = regexp.MustCompile(`^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt \t].*)?$`)
)

func plain(n *yaml.Node) bool {
	const quoted = yaml.DoubleQuotedStyle | yaml.SingleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
	return n.Style&quoted == 0
}

func literal(text string) bool { return text == "true" || text == "false" || text == "null" }

// ambiguous says whether readers of YAML differ about an unquoted text. What JSON says is not ambiguous.
func ambiguous(text string) bool {
	if literal(text) || number.MatchString(text) {
		return false
	}
	switch strings.ToLower(text) {
	case "", "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n", "=", "<<":
		return true
	}
	return numeric.MatchString(text) || date.MatchString(text)
}

func (d *decoder) scalar(n *yaml.Node, pointer string) error {
	text := n.Value
	switch {
	case !plain(n):
		d.out.Write(settings.Canonical(text))
	case literal(text) || number.MatchString(text):
		d.out.WriteString(text)
	case text == "" || text == "~" || strings.EqualFold(text, "null"):
		return d.wrong(n, pointer, `has no value; write null, or "" for an empty text`)
	case ambiguous(text):
		return d.wrong(n, pointer, "%s is a text for some readers of YAML only; quote it, or write a number or true or false as in JSON", text)
	default:
		d.out.Write(settings.Canonical(text))
	}
	return nil
}

// lineOf is where the value at a JSON pointer stands.
func lineOf(n *yaml.Node, pointer string) int {
	line := n.Line
	for _, name := range strings.Split(pointer, "/")[1:] {
		name = strings.NewReplacer("~1", "/", "~0", "~").Replace(name)
		var below *yaml.Node
		for i, child := range n.Content {
			switch {
			case n.Kind == yaml.SequenceNode && strconv.Itoa(i) == name:
				below = child
			case n.Kind == yaml.MappingNode && i%2 == 1 && n.Content[i-1].Value == name:
				below = child
			}
		}
		if below == nil {
			break
		}
		n, line = below, below.Line
	}
	return line
}
