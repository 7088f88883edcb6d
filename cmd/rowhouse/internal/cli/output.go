package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	formatTable = "table"
	formatTSV   = "tsv"
	formatJSON  = "json"
	formatYAML  = "yaml"
	formatName  = "name"
)

func formats() []string { return []string{formatTable, formatTSV, formatJSON, formatYAML, formatName} }

// checkFormat refuses an output format that does not exist, before anything is sent.
func (a *app) checkFormat() error {
	if a.format == "" || slices.Contains(formats(), a.format) {
		return nil
	}
	return usagef("-o %s is none of %s%s", a.format, strings.Join(formats(), ", "), didYouMean(a.format, formats(), ""))
}

// formatFor is the chosen format, or the one that fits where the output goes.
func (a *app) formatFor(c *cobra.Command) string {
	switch {
	case a.format != "":
		return a.format
	case a.terminal(c.OutOrStdout()):
		return formatTable
	default:
		return formatTSV
	}
}

// printer writes resources in one format. A table's widths are those of its first rows, so that a long list begins at
// once. Call close at the end.
type printer struct {
	out     *bufio.Writer
	format  string
	columns []column
	bold    bool
	widths  []int
	header  bool // written
	listing bool
	count   int
}

// printer returns a printer of the chosen format.
func (a *app) printer(c *cobra.Command, columns string) *printer {
	p := &printer{out: bufio.NewWriter(c.OutOrStdout()), format: a.formatFor(c), columns: parseColumns(columns)}
	p.bold = a.terminal(c.OutOrStdout()) && a.getenv("NO_COLOR") == "" && a.getenv("TERM") != "dumb"
	return p
}

// rowsOf writes a page of a list.
func (p *printer) rowsOf(list protoreflect.List) error {
	p.listing = true
	var rows [][]string
	for i := range list.Len() {
		m := list.Get(i).Message().Interface()
		if p.format == formatTable {
			rows = append(rows, p.cells(m))
			p.count++
			continue
		}
		if err := p.element(m); err != nil {
			return err
		}
	}
	p.table(rows)
	return p.out.Flush()
}

// element writes one resource of a list in a format that needs no widths.
func (p *printer) element(m proto.Message) error {
	p.count++
	switch p.format {
	case formatTSV:
		p.tsv(p.cells(m)...)
		return nil
	case formatName:
		_, err := fmt.Fprintln(p.out, printable(nameOf(m.ProtoReflect())))
		return err
	case formatYAML:
		return p.yaml(m, true)
	}
	b, err := encode(m)
	if err != nil {
		return err
	}
	open := ",\n  "
	if p.count == 1 {
		open = "[\n  "
	}
	_, err = p.out.WriteString(open + strings.ReplaceAll(string(b), "\n", "\n  "))
	return err
}

// row writes one resource by its columns.
func (p *printer) row(m proto.Message) error {
	switch p.format {
	case formatTable:
		p.table([][]string{p.cells(m)})
		return nil
	case formatTSV:
		p.tsv(p.cells(m)...)
		return nil
	case formatName:
		_, err := fmt.Fprintln(p.out, printable(nameOf(m.ProtoReflect())))
		return err
	case formatYAML:
		return p.yaml(m, false)
	default:
		b, err := encode(m)
		_, _ = p.out.Write(append(b, '\n')) // Flush tells
		return err
	}
}

// detail writes one resource field by field for people, and as row otherwise.
func (p *printer) detail(m proto.Message) error {
	if p.format != formatTable {
		return p.row(m)
	}
	var lines [][]string
	flatten(m.ProtoReflect(), "", func(path, value string) { lines = append(lines, []string{path, value}) })
	p.header = true
	p.grid(lines)
	return nil
}

// close ends what was begun and gives everything to the output.
func (p *printer) close() error {
	if p.listing {
		switch {
		case p.format == formatJSON && p.count > 0:
			_, _ = p.out.WriteString("\n]\n") // Flush tells
		case p.format == formatJSON, p.format == formatYAML && p.count == 0:
			_, _ = p.out.WriteString("[]\n") // Flush tells
		case p.format == formatTable && p.count == 0:
			p.table(nil)
		}
	}
	return p.out.Flush()
}

// table writes rows below a header.
func (p *printer) table(rows [][]string) {
	if p.format != formatTable || p.header && len(rows) == 0 {
		return
	}
	if p.header {
		p.grid(rows)
		return
	}
	var head []string
	for _, c := range p.columns {
		head = append(head, c.header)
	}
	p.fit(append([][]string{head}, rows...))
	p.header = true
	if p.bold {
		_, _ = p.out.WriteString("\x1b[1m") // Flush tells
	}
	p.line(head, p.bold)
	p.grid(rows)
}

func (p *printer) fit(rows [][]string) {
	for _, row := range rows {
		for i, cell := range row {
			if i == len(p.widths) {
				p.widths = append(p.widths, 0)
			}
			p.widths[i] = max(p.widths[i], width(cell))
		}
	}
}

func (p *printer) grid(rows [][]string) {
	if p.widths == nil {
		p.fit(rows)
	}
	for _, row := range rows {
		p.line(row, false)
	}
}

func (p *printer) line(row []string, reset bool) {
	var b strings.Builder
	for i, cell := range row {
		b.WriteString(cell)
		if i < len(row)-1 {
			b.WriteString(strings.Repeat(" ", max(0, p.widths[i]-width(cell))+2))
		}
	}
	end := "\n"
	if reset {
		end = "\x1b[0m\n"
	}
	_, _ = p.out.WriteString(strings.TrimRight(b.String(), " ") + end) // Flush tells
}

func (p *printer) tsv(cells ...string) {
	_, _ = p.out.WriteString(strings.Join(cells, "\t") + "\n") // Flush tells
}

// cells are a resource's values in the columns.
func (p *printer) cells(m proto.Message) []string {
	var cells []string
	for _, c := range p.columns {
		cells = append(cells, c.of(m.ProtoReflect()))
	}
	return cells
}

// encode returns a message as indented JSON with proto's field names, the same bytes for the same message.
func encode(m proto.Message) ([]byte, error) {
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return nil, errors.New("show the answer: " + plain(err))
	}
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", "  "); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// yaml writes a message as YAML, as the element of a list if asked to.
func (p *printer) yaml(m proto.Message, element bool) error {
	b, err := encode(m)
	if err != nil {
		return err
	}
	if b, err = yamlOf(b); err != nil {
		return err
	}
	text := string(b)
	if element {
		text = "- " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n  ") + "\n"
	}
	_, err = p.out.WriteString(text)
	return err
}

// yamlOf writes JSON as YAML, with the fields in their order.
func yamlOf(b []byte) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return nil, err
	}
	block(&doc)
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	err := errors.Join(encoder.Encode(&doc), encoder.Close())
	return out.Bytes(), err
}

// block takes JSON's style off; strings that YAML would read as something else stay quoted by their tag.
func block(n *yaml.Node) {
	n.Style &^= yaml.FlowStyle | yaml.DoubleQuotedStyle
	for _, child := range n.Content {
		block(child)
	}
}

// nameOf is what tells a resource from others: its name, or the first text that it has.
func nameOf(m protoreflect.Message) string {
	d := m.Descriptor()
	if fd := d.Fields().ByName("name"); fd != nil {
		return m.Get(fd).String()
	}
	if fd := resourceField(d); fd != nil && !fd.IsList() {
		return nameOf(m.Get(fd).Message())
	}
	for i := range d.Fields().Len() {
		if fd := d.Fields().Get(i); fd.Kind() == protoreflect.StringKind && !fd.IsList() {
			return m.Get(fd).String()
		}
	}
	return ""
}
