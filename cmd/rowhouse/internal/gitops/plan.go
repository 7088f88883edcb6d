package gitops

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// Action is what a change does.
type Action string

// The actions.
const (
	Create Action = "create"
	Update Action = "update"
	Delete Action = "delete"
)

// Change makes one document, or one schema, in the house as the files say.
type Change struct {
	Action Action `json:"action"`
	Name   string `json:"name"`
	File   string `json:"file,omitempty"`
	// Differences are the leaves in which house and file differ; arrays are leaves.
	Differences []Difference `json:"differences"`
	// Check is what the house said when it was asked without changing anything.
	Check Check `json:"check,omitempty"`
	// Why says why the house refuses it, or would today.
	Why string `json:"why,omitempty"`
	// Done says that it was made.
	Done bool `json:"done,omitempty"`

	// Content is what shall be, canonical; Etag the state that the change is of, "" for what did not exist.
	Content string `json:"-"`
	Etag    string `json:"-"`
	// Revision is that of the state, 0 for what did not exist.
	Revision int64 `json:"-"`
}

// Difference is a leaf in which house and file differ.
type Difference struct {
	Pointer string `json:"pointer"`
	// House and File are the values as JSON, empty where there is none.
	House string `json:"house,omitempty"`
	File  string `json:"file,omitempty"`
}

// Check is what is known of a change before it is made.
type Check string

// Results of checks.
const (
	// Accepted changes would be taken today.
	Accepted Check = "accepted"
	// Refused changes would not.
	Refused Check = "refused"
	// Open is a change that may be taken once earlier ones of the plan are made.
	Open Check = "open"
	// Unchecked is a change that the caller has no right to make, and therefore none to have checked.
	Unchecked Check = "unchecked"
)

// ErrUnchecked is returned by a [House] whose caller may read and not write.
var ErrUnchecked = errors.New("not checked: that needs the right to write")

// Plan is what has to be done, in order.
type Plan struct {
	Changes []Change `json:"changes"`
	// Unmanaged are in the house, in the scope and in no file.
	Unmanaged []string `json:"unmanaged"`
	// Proposed is the name of the change that was made of the plan.
	Proposed string `json:"proposed,omitempty"`
}

// Compare says what makes the house like the tree. What is in the house alone is Unmanaged, and with prune deleted as well.
func Compare(t Tree, house map[string]Item, prune bool) (Plan, error) {
	p := Plan{Changes: []Change{}, Unmanaged: []string{}}
	for _, name := range sortedNames(t.Items) {
		file := t.Items[name]
		was, known := house[name]
		if known && was.Content == file.Content {
			continue
		}
		if _, namespace := split(name); isRule(name) && !known {
			was = Item{Etag: house[schemas+"/"+namespace].Etag, Revision: house[schemas+"/"+namespace].Revision}
		}
		c := Change{Action: Create, Name: name, File: file.File, Content: file.Content, Etag: was.Etag, Revision: was.Revision}
		if known {
			c.Action = Update
		}
		var err error
		if c.Differences, err = differences(was.Content, file.Content); err != nil {
			return p, fmt.Errorf("%s: %w", name, err)
		}
		p.Changes = append(p.Changes, c)
	}
	gone := slices.Collect(maps.Keys(house))
	slices.SortFunc(gone, compareNames)
	for _, name := range gone {
		if _, ok := t.Items[name]; !ok && !house[name].Ours {
			p.Unmanaged = append(p.Unmanaged, name)
		}
	}
	if !prune {
		return p, nil
	}
	for _, name := range slices.Backward(p.Unmanaged) { // the narrowest first, namespaces last
		c := Change{Action: Delete, Name: name, Etag: house[name].Etag, Revision: house[name].Revision}
		var err error
		if c.Differences, err = differences(house[name].Content, ""); err != nil {
			return p, fmt.Errorf("%s: %w", name, err)
		}
		p.Changes = append(p.Changes, c)
	}
	return p, nil
}

// differences compares two contents, "" for none.
func differences(house, file string) ([]Difference, error) {
	was, err := object(house)
	if err != nil {
		return nil, err
	}
	shall, err := object(file)
	if err != nil {
		return nil, err
	}
	out := []Difference{}
	for _, d := range settings.Diff(was, shall) {
		out = append(out, Difference{Pointer: d.Pointer, House: d.Before, File: d.After})
	}
	return out, nil
}

func object(content string) (settings.Object, error) {
	if content == "" {
		return settings.Object{}, nil
	}
	return settings.Parse([]byte(content))
}

// Ask asks the house about each change. What the house can only judge once an earlier change of the same namespace is made
// is left open when it is refused now. It stops when the house cannot be asked.
func (p *Plan) Ask(ctx context.Context, h House) error {
	before := make(map[string]bool)
	for i := range p.Changes {
		c := &p.Changes[i]
		_, namespace := split(c.Name)
		found, err := h.Check(ctx, *c)
		var refusal *RefusalError
		switch {
		case err == nil:
			c.Check = Accepted
			if c.Action == Create && !isRule(c.Name) {
				c.Etag = found
			}
		case errors.Is(err, ErrUnchecked):
			c.Check = Unchecked
		case !errors.As(err, &refusal):
			return err
		case before[namespace]:
			c.Check, c.Why = Open, refusal.Error()
		default:
			c.Check, c.Why = Refused, refusal.Error()
		}
		before[namespace] = true
	}
	return nil
}

// Refused says whether the house would not take some change.
func (p *Plan) Refused() bool {
	return slices.ContainsFunc(p.Changes, func(c Change) bool { return c.Check == Refused })
}

// Apply makes the changes one after the other and tells each by done. It stops at the first that the house refuses. What
// was made stays; a new plan begins where this one ended.
func (p *Plan) Apply(ctx context.Context, h House, done func(Change)) error {
	moved := make(map[string]bool) // namespaces whose etag is another one by what was made of the plan
	for i := range p.Changes {
		c := &p.Changes[i]
		_, namespace := split(c.Name)
		if isRule(c.Name) && moved[namespace] {
			c.Etag = ""
		}
		moved[namespace] = moved[namespace] || isSchema(c.Name)
		// What was open has no etag: nobody looked yet what is there.
		if (c.Action == Create || isRule(c.Name)) && c.Etag == "" && !isSchema(c.Name) {
			etag, err := h.Check(ctx, *c)
			if err != nil && !errors.Is(err, ErrUnchecked) { // who may not write is told so by Do
				return fmt.Errorf("%s: %w", c.Name, err)
			}
			c.Etag = etag
		}
		if err := h.Do(ctx, *c); err != nil {
			return fmt.Errorf("%s: %w", c.Name, err)
		}
		c.Done = true
		done(*c)
	}
	return nil
}

// MaxEdits is how many edits a change of the house may have.
const MaxEdits = 20

// Form is what the content of an edit is.
type Form string

// The forms that are needed.
const (
	Whole   Form = "replace"
	Patch   Form = "json-patch"
	Removal Form = "delete"
)

// Edit is what a change of the house does to one document, or to one namespace with its schema and its rule.
type Edit struct {
	Name, Content string
	Form          Form
	// Revision is what the edit starts from, 0 for what is there.
	Revision int64
}

// Edits are the plan as the edits of one change. Not every plan can be one.
func (p *Plan) Edits() ([]Edit, error) {
	var out []Edit
	namespaces := make(map[string]*namespaceEdit)
	for _, c := range p.Changes {
		_, namespace := split(c.Name)
		switch {
		case isSchema(c.Name) && c.Action != Update:
			return nil, fmt.Errorf("a change cannot %s %s: nobody has to approve that, so do it first, by apply --namespaces %s without "+
				"--as-change", c.Action, c.Name, namespace)
		case isSchema(c.Name), isRule(c.Name):
			if namespaces[namespace] == nil {
				namespaces[namespace] = &namespaceEdit{at: len(out)}
				out = append(out, Edit{Name: schemas + "/" + namespace, Form: Patch, Revision: c.Revision})
			}
			namespaces[namespace].add(c)
		case c.Action == Delete:
			out = append(out, Edit{Name: c.Name, Form: Removal, Revision: c.Revision})
		default:
			out = append(out, Edit{Name: c.Name, Content: c.Content, Form: Whole, Revision: c.Revision})
		}
	}
	for _, n := range namespaces {
		out[n.at].Content = "[" + strings.Join(n.operations, ",") + "]"
	}
	if len(out) > MaxEdits {
		return nil, fmt.Errorf("the plan has %d edits, and a change holds %d: propose a part of it, by --layers or --namespaces (%s)",
			len(out), MaxEdits, perNamespace(out))
	}
	return out, nil
}

// namespaceEdit is the one edit of a namespace: a patch of {"schema": …, "approval": …}, so that what the plan says nothing
// of stays as it is.
type namespaceEdit struct {
	at         int
	operations []string
}

func (n *namespaceEdit) add(c Change) {
	path := "/schema"
	if isRule(c.Name) {
		path = "/approval"
	}
	if c.Action == Delete {
		n.operations = append(n.operations, `{"op":"remove","path":"`+path+`"}`)
		return
	}
	n.operations = append(n.operations, `{"op":"add","path":"`+path+`","value":`+c.Content+`}`)
}

// perNamespace counts edits by namespace.
func perNamespace(edits []Edit) string {
	counts := make(map[string]int)
	for _, e := range edits {
		_, namespace := split(e.Name)
		counts[namespace]++
	}
	var out []string
	for _, namespace := range slices.Sorted(maps.Keys(counts)) {
		out = append(out, fmt.Sprintf("%s: %d", namespace, counts[namespace]))
	}
	return strings.Join(out, ", ")
}

// RefusalError says that a house does not take a change as it is. Other errors of a [House] say that it could not be asked.
type RefusalError struct{ Err error }

// Error implements error.
func (e *RefusalError) Error() string { return e.Err.Error() }

// Unwrap returns what the house said.
func (e *RefusalError) Unwrap() error { return e.Err }
