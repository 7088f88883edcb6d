package jsonlogic

import (
	"errors"
	"math"
	"sync"
)

// Limits of one evaluation.
const (
	// MaxSteps bounds the work beyond evaluating each part of a rule once, which its length bounds: the parts of a shared
	// rule count one each time it is referred to, those of a body for each element of a list that is walked over, and so
	// do the elements of a list that is searched or made and 64 bytes of text that is made or read through.
	MaxSteps = 10_000
	// MaxDepth bounds how many operators and lists stand inside one another, references followed.
	MaxDepth = 64
	stepText = 64
)

// ErrBudget is returned by an evaluation that would exceed [MaxSteps] or [MaxDepth]. A rule cannot catch it.
var ErrBudget = errors.New("jsonlogic: the rule does too much")

// Error is what a rule threw, or an operator because of its arguments. Rules catch it with "try".
type Error struct {
	// Thrown is an object whose member "type" says what: "NaN", "Invalid Arguments", "Unknown Operator", or what the
	// rule chose.
	Thrown Value

	cause error
}

// Unwrap is what a [Condition] said, nil where none failed. It may quote the data.
func (e *Error) Unwrap() error { return e.cause }

// Error implements error.
func (e *Error) Error() string {
	what, _ := e.Thrown.Member("type")
	return "jsonlogic: " + what.String()
}

// Types of errors that operators throw.
const (
	notANumber      = "NaN"
	invalidArgs     = "Invalid Arguments"
	unknownOperator = "Unknown Operator"
)

// frame is the state of one evaluation. It is used again, so that evaluating makes no garbage.
type frame struct {
	in     Input
	steps  int
	scopes []scope // of the lists being walked, outermost first
	stack  []Value // arguments of the operators being evaluated

	// What went wrong first. Expressions go on with null then: they have no effects, and what they return is not looked
	// at. That saves a second result and a branch at every call.
	failed bool
	spent  bool // the budget
	thrown Value
	cause  error // of a condition that failed
}

// scope is what a walk over a list puts before the data around it.
type scope struct {
	data  Value
	index int
}

// frames is a cache, not state: a frame is emptied before it goes back.
//
//nolint:gochecknoglobals // a pool has to outlive its users
var frames = sync.Pool{New: func() any { return &frame{stack: make([]Value, 0, 16)} }}

// run evaluates an expression.
func run(e expr, in Input) (Value, error) {
	f := frames.Get().(*frame) //nolint:forcetypeassert // it holds nothing else
	f.in, f.steps = in, MaxSteps
	v := e(f)
	failed, spent, thrown, cause := f.failed, f.spent, f.thrown, f.cause
	f.in, f.failed, f.spent, f.thrown, f.cause = Input{}, false, false, Value{}, nil
	frames.Put(f)
	switch {
	case spent:
		return Value{}, ErrBudget
	case failed:
		return Value{}, &Error{Thrown: thrown, cause: cause}
	default:
		return v, nil
	}
}

// spend takes steps and reports whether there were enough.
func (f *frame) spend(n int) bool {
	f.steps -= n
	if f.steps < 0 {
		f.failed, f.spent = true, true
	}
	return !f.spent
}

// spendText takes the steps of text that is made or read through.
func (f *frame) spendText(bytes int) bool { return f.spend(bytes / stepText) }

// throw fails the evaluation, unless it has failed before, and returns null.
func (f *frame) throw(what string) Value {
	return f.throwValue(errorObject(OfString(what)))
}

func (f *frame) throwValue(thrown Value) Value {
	if !f.failed {
		f.failed, f.thrown, f.cause = true, thrown, nil
	}
	return Value{}
}

func errorObject(what Value) Value { return OfMembers([]Member{{Name: "type", Value: what}}) }

// finite returns a number, and throws where there is none.
func (f *frame) finite(x float64) Value {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return f.throw(notANumber)
	}
	return OfNumber(x)
}

// enter puts data before what is there, for one element of a list.
func (f *frame) enter(data Value, index int) {
	f.scopes = append(f.scopes, scope{data: data, index: index})
}

// leave undoes the last enter.
func (f *frame) leave() {
	last := len(f.scopes) - 1
	f.scopes[last] = scope{}
	f.scopes = f.scopes[:last]
}

// atRoot reports whether rules see the whole data.
func (f *frame) atRoot() bool { return len(f.scopes) == 0 }

// near is what rules see, without $flagd.
func (f *frame) near() *Value {
	if f.atRoot() {
		return &f.in.Data
	}
	return &f.scopes[len(f.scopes)-1].data
}

// data is what rules see: the element of the innermost list, or else the whole data with $flagd in it.
func (f *frame) data() Value {
	if f.atRoot() {
		return f.root()
	}
	return f.scopes[len(f.scopes)-1].data
}

// root is the whole data as one value. It has to be made, which looking up a path avoids.
func (f *frame) root() Value {
	if data := f.in.Data; f.in.FlagKey == "" || data.kind != Object && data.kind != Null {
		return data
	}
	own := OfMembers([]Member{
		{Name: "flagKey", Value: OfString(f.in.FlagKey)}, {Name: "timestamp", Value: OfNumber(float64(f.in.Timestamp))},
	})
	members := make([]Member, 0, len(f.in.Data.Members())+1)
	for _, m := range f.in.Data.Members() {
		if m.Name != properties {
			members = append(members, m)
		}
	}
	if !f.spend(len(members)) {
		return Value{}
	}
	return OfMembers(append(members, Member{Name: properties, Value: own}))
}
