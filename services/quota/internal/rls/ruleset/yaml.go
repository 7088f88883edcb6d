package ruleset

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/rowhouse-platform/rowhouse/sdk/limits/gcra"
	"github.com/rowhouse-platform/rowhouse/sdk/nearest"
)

const (
	// MaxRules is how many descriptors a file may have.
	MaxRules = 50_000
	// maxErrors is how many defects of one file are told at once.
	maxErrors = 20
	// MaxText is how long a key, a value or a name may be.
	MaxText = 1024
)

// Error is a defect of a file.
type Error struct {
	File string
	Line int
	Text string
}

// Error is "file:line: what is wrong".
func (e Error) Error() string { return e.File + ":" + strconv.Itoa(e.Line) + ": " + e.Text }

// Errors are the defects of a file, in its order.
type Errors []Error

// Error has a line for each defect.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// parser collects a file's rules and defects.
type parser struct {
	file    string
	faults  Errors
	set     *Set
	visited int
}

// errStop ends the reading of a file that has too many defects or descriptors.
var errStop = errors.New("enough")

// Parse reads a file of envoyproxy/ratelimit. What is wrong is an [Errors].
func Parse(file string, content []byte) (*Set, error) {
	p := &parser{file: file, set: &Set{File: file}}
	root, err := p.document(content)
	if err == nil {
		err = p.domain(root)
	}
	if err != nil && !errors.Is(err, errStop) {
		return nil, err
	}
	if len(p.faults) > 0 {
		return nil, p.faults
	}
	return p.set, nil
}

// fault notes a defect.
func (p *parser) fault(n *yaml.Node, format string, args ...any) error {
	p.faults = append(p.faults, Error{p.file, max(n.Line, 1), fmt.Sprintf(format, args...)})
	if len(p.faults) >= maxErrors {
		return errStop
	}
	return nil
}

var lineOf = regexp.MustCompile(`line (\d+): `)

// document reads the one document of a file.
func (p *parser) document(content []byte) (*yaml.Node, error) {
	d := yaml.NewDecoder(bytes.NewReader(content))
	var doc yaml.Node
	if err := d.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, Errors{{p.file, 1, "the file is empty"}}
		}
		text, line := strings.TrimPrefix(err.Error(), "yaml: "), 1
		if m := lineOf.FindStringSubmatch(text); m != nil {
			line, _ = strconv.Atoi(m[1]) // digits
			text = strings.Replace(text, m[0], "", 1)
		}
		return nil, Errors{{p.file, line, "no YAML: " + text}}
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, Errors{{p.file, 1, "there is more than one YAML document"}}
	}
	if len(doc.Content) == 0 {
		return nil, Errors{{p.file, 1, "the file is empty"}}
	}
	return doc.Content[0], nil
}

// resolve follows an alias. An alias in its own anchor ends by the bound on descriptors.
func resolve(n *yaml.Node) *yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// mapping returns the values of a mapping by their keys, of which it takes the known ones only, each once.
func (p *parser) mapping(n *yaml.Node, what string, known ...string) (map[string]*yaml.Node, error) {
	n = resolve(n)
	if n.Kind != yaml.MappingNode {
		return nil, p.fault(n, "%s must have keys and values", what)
	}
	found := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := resolve(n.Content[i])
		if key.Kind != yaml.ScalarNode || key.Tag != "!!str" {
			if err := p.fault(key, "the key %q is no text", key.Value); err != nil {
				return nil, err
			}
			continue
		}
		if err := p.key(key, what, found, known); err != nil {
			return nil, err
		}
		found[key.Value] = resolve(n.Content[i+1])
	}
	return found, nil
}

// key judges one key.
func (p *parser) key(key *yaml.Node, what string, found map[string]*yaml.Node, known []string) error {
	switch _, twice := found[key.Value]; {
	case twice:
		return p.fault(key, "the key %q is there twice", key.Value)
	case slices.Contains(known, key.Value):
		return nil
	}
	hint := ""
	if near := nearest.Name(key.Value, known); near != "" {
		hint = fmt.Sprintf("; the nearest known key is %q", near)
	}
	return p.fault(key, "unknown key %q in %s%s", key.Value, what, hint)
}

// text reads a scalar as it is written; nothing and null are "".
func (p *parser) text(n *yaml.Node, what string) (string, error) {
	switch {
	case n == nil || n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return "", nil
	case n.Kind != yaml.ScalarNode:
		return "", p.fault(n, "%s must be text", what)
	case len(n.Value) > MaxText:
		return "", p.fault(n, "%s is longer than %d bytes", what, MaxText)
	}
	return n.Value, nil
}

// truth reads a boolean; nothing is false.
func (p *parser) truth(n *yaml.Node, what string) (bool, error) {
	if n == nil {
		return false, nil
	}
	var b bool
	if n.Kind != yaml.ScalarNode || n.Decode(&b) != nil {
		return false, p.fault(n, "%s must be true or false", what)
	}
	return b, nil
}

// domain reads the whole file.
func (p *parser) domain(root *yaml.Node) error {
	m, err := p.mapping(root, "the file", "domain", "descriptors")
	if err != nil {
		return err
	}
	if m == nil {
		return nil
	}
	if p.set.Domain, err = p.text(m["domain"], "domain"); err != nil {
		return err
	}
	if p.set.Line = resolve(root).Line; m["domain"] != nil {
		p.set.Line = m["domain"].Line
	}
	if p.set.Domain == "" {
		if err := p.fault(resolve(root), "the domain is empty"); err != nil {
			return err
		}
	}
	return p.children(&p.set.root, nil, m["descriptors"])
}

// children reads the descriptors below a node.
func (p *parser) children(n *node, above []Level, list *yaml.Node) error {
	if list == nil || list.Kind == yaml.ScalarNode && list.Tag == "!!null" {
		return nil
	}
	if list.Kind != yaml.SequenceNode {
		return p.fault(list, "descriptors must be a list")
	}
	if len(above) == MaxDepth && len(list.Content) > 0 {
		return p.fault(list, "descriptors are nested deeper than %d levels", MaxDepth)
	}
	for _, item := range list.Content {
		if p.visited++; p.visited > MaxRules {
			return errors.Join(p.fault(item, "there are more than %d descriptors", MaxRules), errStop)
		}
		if err := p.descriptor(n, above, resolve(item)); err != nil {
			return err
		}
	}
	return nil
}

// descriptor reads one descriptor and those below it.
func (p *parser) descriptor(parent *node, above []Level, item *yaml.Node) error {
	m, err := p.mapping(item, "a descriptor", "key", "value", "rate_limit", "shadow_mode", "quota_mode", "detailed_metric",
		"value_to_metric", "share_threshold", "descriptors")
	if m == nil {
		return err
	}
	var l Level
	var shadow, quota, detailed bool
	err = first(
		func() (err error) { l.Key, err = p.text(m["key"], "key"); return err },
		func() (err error) { l.Value, err = p.text(m["value"], "value"); return err },
		func() (err error) { shadow, err = p.truth(m["shadow_mode"], "shadow_mode"); return err },
		func() (err error) { quota, err = p.truth(m["quota_mode"], "quota_mode"); return err },
		func() (err error) { detailed, err = p.truth(m["detailed_metric"], "detailed_metric"); return err },
		func() (err error) { l.ToMetric, err = p.truth(m["value_to_metric"], "value_to_metric"); return err },
		func() (err error) { l.Share, err = p.truth(m["share_threshold"], "share_threshold"); return err },
	)
	if err != nil {
		return err
	}
	if l.Key == "" {
		return p.fault(item, "a descriptor has an empty key")
	}
	if l.Share && !strings.HasSuffix(l.Value, "*") {
		if err := p.fault(m["share_threshold"], "share_threshold is for values that end with *, and this is %q", l.Value); err != nil {
			return err
		}
	}
	child, ok := parent.add(l)
	if !ok {
		return p.fault(item, "the descriptor %s is there twice", Entry{l.Key, l.Value})
	}
	levels := append(slices.Clone(above), l)
	if limit := m["rate_limit"]; limit != nil && limit.Tag != "!!null" {
		rule := &Rule{Shadow: shadow, Quota: quota, Detailed: detailed, Levels: levels, Line: limit.Line}
		if err := p.limit(rule, limit); err != nil {
			return err
		}
		rule.ID = len(p.set.Rules)
		p.set.Rules = append(p.set.Rules, rule)
		child.rule = rule
	}
	return p.children(child, levels, m["descriptors"])
}

// first calls functions until one fails.
func first(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// String is the entry as people write it.
func (e Entry) String() string {
	if e.Value == "" {
		return strconv.Quote(e.Key)
	}
	return strconv.Quote(e.Key) + ", " + strconv.Quote(e.Value)
}

// add makes a child. It reports false when there is one for the same key and value.
func (n *node) add(l Level) (*node, bool) {
	child := &node{share: l.Share, value: l.Value}
	if l.Value == "" {
		if _, twice := n.bare[l.Key]; twice {
			return nil, false
		}
		if n.bare == nil {
			n.bare = map[string]*node{}
		}
		n.bare[l.Key] = child
		return child, true
	}
	e := Entry{l.Key, l.Value}
	if _, twice := n.exact[e]; twice {
		return nil, false
	}
	if n.exact == nil {
		n.exact = map[Entry]*node{}
	}
	n.exact[e] = child
	if prefix, ok := strings.CutSuffix(l.Value, "*"); ok {
		n.wild = append(n.wild, wildcard{l.Key, prefix, child})
	}
	return child, true
}

// limit reads a rate_limit.
func (p *parser) limit(r *Rule, n *yaml.Node) error {
	m, err := p.mapping(n, "rate_limit", "unit", "requests_per_unit", "unlimited", "name", "replaces")
	if m == nil {
		return err
	}
	var unit string
	if err := first(
		func() (err error) { r.Name, err = p.text(m["name"], "name"); return err },
		func() (err error) { unit, err = p.text(m["unit"], "unit"); return err },
		func() (err error) { r.Unlimited, err = p.truth(m["unlimited"], "unlimited"); return err },
		func() error { return p.replaces(r, m["replaces"]) },
	); err != nil {
		return err
	}
	if r.Requests, err = p.count(m["requests_per_unit"]); err != nil {
		return err
	}
	r.Unit = parseUnit(unit)
	switch {
	case r.Unlimited && unit != "":
		return p.fault(m["unit"], "an unlimited rate_limit has no unit")
	case r.Unlimited:
		r.Requests = 0
		return nil
	case r.Unit == Unknown && unit == "":
		return p.fault(n, "the rate_limit has no unit")
	case r.Unit == Unknown:
		return p.fault(m["unit"], "%q is no unit; there are second, minute, hour, day, week, month and year", unit)
	}
	if r.Limit, err = gcra.New(int64(r.Requests), r.Unit.Duration(), 0); err != nil {
		return p.fault(n, "%v", err)
	}
	return nil
}

// count reads requests_per_unit; nothing is 0, which refuses everything.
func (p *parser) count(n *yaml.Node) (uint32, error) {
	if n == nil {
		return 0, nil
	}
	var c int64
	if n.Kind != yaml.ScalarNode || n.Tag != "!!int" || n.Decode(&c) != nil || c < 0 || c > math.MaxUint32 {
		return 0, p.fault(n, "requests_per_unit must be a whole number from 0 to %d", uint32(math.MaxUint32))
	}
	return uint32(c), nil
}

// replaces reads the names of the limits that a rule replaces.
func (p *parser) replaces(r *Rule, n *yaml.Node) error {
	if n == nil || n.Tag == "!!null" {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		return p.fault(n, "replaces must be a list")
	}
	for _, item := range n.Content {
		if p.visited++; p.visited > MaxRules { // an alias may repeat a long list often
			return errors.Join(p.fault(item, "there are more than %d descriptors and replaced names", MaxRules), errStop)
		}
		m, err := p.mapping(item, "an entry of replaces", "name")
		if err != nil {
			return err
		}
		name, err := p.text(m["name"], "name")
		if err != nil {
			return err
		}
		switch {
		case m == nil: // told already
		case name == "":
			err = p.fault(resolve(item), "an entry of replaces has no name")
		case name == r.Name:
			err = p.fault(resolve(item), "a rate_limit cannot replace itself, %q", name)
		default:
			r.Replaces, p.set.Replacing = append(r.Replaces, name), true
		}
		if err != nil {
			return err
		}
	}
	return nil
}
