package settings

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"github.com/rowhouse-platform/rowhouse/sdk/flags"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/cel"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/flagset"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/jsonlogic"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
)

const (
	// maxSchema bounds the text of a schema.
	maxSchema = 128 << 10
	dialect   = "https://json-schema.org/draft/2020-12/schema"
	// base is where a schema without an $id is said to be; nothing is ever loaded.
	base = "https://schema.invalid/"
)

// ErrSchema is wrapped by what [Compile] refuses.
var ErrSchema = errors.New("settings: not an acceptable JSON Schema")

// Schema is a compiled JSON Schema 2020-12. It is immutable.
type Schema struct {
	// Merge is what it says about merging, Text its canonical text.
	Merge *sdk.Schema
	Text  string

	namespace string
	compiled  *jsonschema.Schema
	rules     []rule
	// conditions are those of flags.
	conditions jsonlogic.Conditions
	// meter bounds what checks cost; heavy says that those of the defaults are stopped by it.
	meter *meter
	heavy bool
}

// Compile reads the schema of a namespace. It refuses other dialects, references that
// lead outside, keywords of ours that do not act where they stand, and defaults that do not satisfy the schema themselves: what holds for
// a tenant without any document must be valid too. The error wraps [ErrSchema].
func Compile(namespace, text string) (*Schema, error) {
	if len(text) > maxSchema {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrSchema, maxSchema)
	}
	o, canonical, err := Content(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSchema, err)
	}
	if d, ok := o["$schema"]; ok && d != dialect {
		return nil, fmt.Errorf("%w: $schema is not %s", ErrSchema, dialect)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.UseLoader(noLoader{})
	c.RegisterVocabulary(namesVocabulary())
	work := new(meter)
	c.RegisterVocabulary(work.vocabulary())
	c.AssertVocabs()
	if err := c.AddResource(base, sdk.WithReferences(o)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSchema, err)
	}
	compiled, err := c.Compile(base)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSchema, err)
	}
	if found := sdk.CheckKeywords(o); len(found) > 0 {
		return nil, fmt.Errorf("%w: %s %s", ErrSchema, quotePointer(found[0].Pointer), found[0].Text)
	}
	rules, err := compileRules(o)
	if err != nil {
		return nil, err
	}
	s := &Schema{Merge: sdk.NewSchema(o), Text: canonical, namespace: namespace, compiled: compiled, rules: rules, meter: work}
	if namespace == sdk.FlagsNamespace {
		if s.conditions, err = Conditions(); err != nil {
			return nil, err
		}
	}
	if found := s.Merge.Refused(sdk.LevelSchema, s.Merge.Defaults()); len(found) > 0 {
		return nil, fmt.Errorf("%w: its defaults cannot be merged: %s %s", ErrSchema, quotePointer(found[0].Pointer), found[0].Text)
	}
	if found := s.checkOwn(sdk.Stack{Schema: s.Merge}); len(found) > 0 {
		return nil, fmt.Errorf("%w: its defaults are not valid: %s %s", ErrSchema, quotePointer(found[0].Pointer), found[0].Text)
	}
	if err := s.checkSafe(c, o); err != nil {
		return nil, err
	}
	return s, nil
}

// KeywordsError says which keywords of a schema are refused. It wraps [ErrSchema].
type KeywordsError struct{ Found []sdk.Problem }

// Error names the first.
func (e *KeywordsError) Error() string {
	return fmt.Sprintf("%v: %s %s", ErrSchema, quotePointer(e.Found[0].Pointer), e.Found[0].Text)
}

// Unwrap returns ErrSchema.
func (*KeywordsError) Unwrap() error { return ErrSchema }

// CompileNew is [Compile] for a schema that somebody writes now, in place of the stored one, "" for none. It refuses
// keywords that nobody knows, too, with a [KeywordsError]: JSON Schema passes over them, so a misspelt lock would lock nothing. It
// refuses as well what would cost too much to check. Whoever leaves a schema as it is stored may go on with what it has.
func CompileNew(namespace, text, stored string) (*Schema, error) {
	o, canonical, err := Content(text)
	anew := err == nil && canonical != stored
	if anew {
		if found := sdk.CheckNewKeywords(o); len(found) > 0 {
			return nil, &KeywordsError{found}
		}
	}
	s, err := Compile(namespace, text)
	if err != nil || !anew {
		return s, err
	}
	if err := s.meter.checkExpansion(); err != nil {
		return nil, err
	}
	if s.heavy {
		return nil, fmt.Errorf("%w: to check its defaults %s", ErrSchema, costly)
	}
	return s, nil
}

// Conditions evaluates the conditions of flags in CEL. It is made once, and keeps what it compiled.
var Conditions = sync.OnceValues(cel.New) //nolint:gochecknoglobals // it never changes

func quotePointer(pointer string) string { return strconv.Quote(pointer) }

// noLoader loads nothing.
type noLoader struct{}

// Load refuses.
func (noLoader) Load(string) (any, error) {
	return nil, errors.New("references must stay within the schema")
}

// Check says what an effective value breaks: of the schema, of the bounds that hold for
// a single document too, of its rules, and of what every reader of brands and flags
// demands.
func (s *Schema) Check(e sdk.Effective) []sdk.Problem {
	var found []sdk.Problem
	if _, err := sdk.Parse(sdk.Canonical(e.Object)); err != nil {
		found = append(found, sdk.Problem{Rule: ruleBounds, Text: err.Error()})
	}
	if where, err := s.meter.validate(s.compiled, e.Object); errors.Is(err, errWork) {
		found = append(found, sdk.Problem{Pointer: where, Rule: ruleBounds, Text: costly})
	} else if invalid, ok := errors.AsType[*jsonschema.ValidationError](err); ok {
		before := len(found)
		if found = appendProblems(found, invalid); len(found) == before {
			found = append(found, sdk.Problem{Rule: "schema", Text: "breaks the schema"}) // whatever it is, it is not accepted
		}
	} else if err != nil {
		found = append(found, sdk.Problem{Rule: "schema", Text: "cannot be checked"})
	}
	switch s.namespace {
	case sdk.BrandNamespace:
		found = append(found, sdk.CheckBrand(e.Object)...)
		found = append(found, contrast(e.Object)...)
	case sdk.FlagsNamespace:
		found = append(found, flags.Check(e, flagset.WithConditions(s.conditions))...)
	}
	for _, r := range s.rules {
		if p, broken := r.problem(e.Object); broken {
			found = append(found, p)
		}
	}
	slices.SortFunc(found, func(a, b sdk.Problem) int {
		return strings.Compare(a.Pointer+"\x00"+a.Rule+"\x00"+a.Text, b.Pointer+"\x00"+b.Rule+"\x00"+b.Text)
	})
	return slices.Compact(found)
}

// checkOwn checks what the schema itself says. A stored schema that costs too much is read all the same, so that another can
// take its place.
func (s *Schema) checkOwn(stack sdk.Stack) []sdk.Problem {
	found := s.Check(stack.Effective())
	all := len(found)
	found = slices.DeleteFunc(found, isCostly)
	s.heavy = s.heavy || len(found) < all
	return found
}

func isCostly(p sdk.Problem) bool { return p.Rule == ruleBounds && p.Text == costly }

// appendProblems collects what broke at the ends of the tree of errors. Of alternatives
// it tells that none fits, not what each of them would want.
func appendProblems(found []sdk.Problem, e *jsonschema.ValidationError) []sdk.Problem {
	switch k := e.ErrorKind.(type) {
	case *kind.AnyOf, *kind.OneOf, *kind.Not, *kind.Contains:
		return append(found, problemOf(e))
	case *kind.PropertyNames:
		return found // its location may be another's; badName tells the same
	case badName:
		return append(found, sdk.Problem{
			Pointer: sdk.Pointer(e.InstanceLocation...) + sdk.Pointer(string(k)), Rule: "propertyNames", Text: k.LocalizedString(nil),
		})
	}
	if k, ok := e.ErrorKind.(*kind.AdditionalProperties); ok {
		return appendUnknown(found, e, k.Properties)
	}
	if len(e.Causes) == 0 {
		return append(found, problemOf(e))
	}
	for _, cause := range e.Causes {
		found = appendProblems(found, cause)
	}
	return found
}

// appendUnknown tells of each member that the schema does not know, in its place, up to a number.
func appendUnknown(found []sdk.Problem, e *jsonschema.ValidationError, names []string) []sdk.Problem {
	const most = 20
	for _, name := range names[:min(len(names), most)] {
		found = append(found, sdk.Problem{
			Pointer: sdk.Pointer(e.InstanceLocation...) + sdk.Pointer(name), Rule: "additionalProperties", Text: "is not known to the schema",
		})
	}
	return found
}

// problemOf tells what broke without the value that broke it.
func problemOf(e *jsonschema.ValidationError) sdk.Problem {
	p := sdk.Problem{Pointer: sdk.Pointer(e.InstanceLocation...), Rule: "schema"}
	if path := e.ErrorKind.KeywordPath(); len(path) > 0 {
		p.Rule = path[0]
	}
	switch k := e.ErrorKind.(type) {
	case *kind.Not:
		p.Rule, p.Text = "not", "is what the schema excludes"
	case *kind.FalseSchema:
		p.Rule, p.Text = "false", "must not be there"
	case *kind.Type:
		p.Text = "must be " + strings.Join(k.Want, " or ")
	case *kind.Required:
		p.Text = "lacks " + strings.Join(quoted(k.Missing), ", ")
	case *kind.DependentRequired:
		p.Text = fmt.Sprintf("lacks %s, which must stand beside %q", strings.Join(quoted(k.Missing), ", "), k.Prop)
	case *kind.MinLength:
		p.Text = fmt.Sprintf("is shorter than %d characters", k.Want)
	case *kind.MaxLength:
		p.Text = fmt.Sprintf("is longer than %d characters", k.Want)
	case *kind.Minimum:
		p.Text = "is less than " + k.Want.RatString()
	case *kind.Maximum:
		p.Text = "is more than " + k.Want.RatString()
	case *kind.Pattern:
		p.Text = "does not match " + strconv.Quote(k.Want)
	default:
		p.Text = "breaks the rule " + strconv.Quote(p.Rule)
	}
	return p
}

func quoted(names []string) []string {
	const most = 10
	out := make([]string, 0, most)
	for _, name := range names[:min(len(names), most)] {
		out = append(out, strconv.Quote(name))
	}
	return out
}
