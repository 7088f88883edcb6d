package flagset

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/rowhouse-platform/rowhouse/sdk/flags/jsonlogic"
)

// Reason says why a flag has its value, in OpenFeature's words.
type Reason uint8

// The reasons. Without a value, Default asks the caller for its own default, and so does Disabled.
const (
	Error Reason = iota
	Static
	Default
	TargetingMatch
	Disabled
)

// String returns the reason as the wire has it.
func (r Reason) String() string {
	return [...]string{"ERROR", "STATIC", "DEFAULT", "TARGETING_MATCH", "DISABLED"}[r]
}

// Code says what went wrong, in OpenFeature's words.
type Code uint8

// The codes. The zero Code means that nothing did. A [Set] itself never answers the last two: InvalidContext is a caller
// without a tenant or one that names another, NotReady is asking before there are any flags.
const (
	OK Code = iota
	FlagNotFound
	ParseError
	TypeMismatch
	General
	InvalidContext
	NotReady
)

// String returns the code as the wire has it, and "" of [OK].
func (c Code) String() string {
	return [...]string{"", "FLAG_NOT_FOUND", "PARSE_ERROR", "TYPE_MISMATCH", "GENERAL", "INVALID_CONTEXT", "PROVIDER_NOT_READY"}[c]
}

// Result is the answer for one flag and one context. It is a small value; its parts belong to the [Set].
type Result struct {
	flag    *flag    // nil if there is none
	variant *variant // nil without a value
	reason  Reason
	code    Code
}

// Failed is the answer where there is no set to ask.
func Failed(code Code) Result { return Result{code: code} }

// Evaluate returns the answer for a flag.
func (s *Set) Evaluate(key string, c *Context) Result {
	f := s.flag(key)
	if f == nil {
		return Result{code: FlagNotFound}
	}
	switch f.state {
	case static:
		return f.byDefault(Static)
	case targeted:
		return s.target(f, c)
	case disabled:
		return Result{flag: f, reason: Disabled}
	default:
		return f.failed(ParseError)
	}
}

// target lets the flag's rule name a variant.
func (s *Set) target(f *flag, c *Context) Result {
	in := jsonlogic.Input{Data: c.data, FlagKey: f.key}
	if f.times.Read {
		in.Timestamp = s.now().Unix()
	}
	named, err := f.rule.Eval(in)
	switch {
	case err != nil && errors.Is(err, jsonlogic.ErrBudget):
		return f.failed(General)
	case err != nil:
		return f.failed(ParseError)
	case named.IsNull():
		return f.byDefault(Default)
	}
	if v := f.variants[variantName(named)]; v != nil {
		return Result{flag: f, variant: v, reason: TargetingMatch}
	}
	return f.failed(General)
}

// Why says for people what is wrong where [Set.Evaluate] answers with a code, and is "" elsewhere. It evaluates again, and may
// quote the context.
func (s *Set) Why(key string, c *Context) string {
	r := s.Evaluate(key, c)
	switch {
	case r.code == OK:
		return ""
	case r.flag == nil:
		return "there is no such flag"
	case r.flag.state == broken:
		return "its definition cannot be read"
	case r.flag.state == static:
		return "its defaultVariant names no variant"
	}
	named, err := r.flag.rule.Eval(jsonlogic.Input{Data: c.data, FlagKey: key, Timestamp: s.now().Unix()})
	switch thrown, _ := errors.AsType[*jsonlogic.Error](err); {
	case thrown != nil && thrown.Unwrap() != nil:
		return "its condition: " + thrown.Unwrap().Error()
	case thrown != nil:
		return "its targeting fails: " + strings.TrimPrefix(thrown.Error(), "jsonlogic: ")
	case err != nil:
		return "its targeting does too much"
	case named.IsNull():
		return "its defaultVariant names no variant"
	default:
		return fmt.Sprintf("its targeting gives %.100q, which is no variant", variantName(named))
	}
}

// variantName is how a rule's result names a variant. Lists and objects name none.
func variantName(v jsonlogic.Value) string {
	switch v.Kind() {
	case jsonlogic.String:
		return v.String()
	case jsonlogic.Bool:
		if v.Bool() {
			return "true"
		}
		return "false"
	case jsonlogic.Number:
		text, err := json.Marshal(v.Number())
		if err != nil {
			return ""
		}
		return string(text)
	default:
		return ""
	}
}

// byDefault is the default variant, or no value where there is none.
func (f *flag) byDefault(reason Reason) Result {
	switch {
	case f.unknown:
		return f.failed(General)
	case f.fallback == nil:
		return Result{flag: f, reason: Default}
	default:
		return Result{flag: f, variant: f.fallback, reason: reason}
	}
}

func (f *flag) failed(code Code) Result { return Result{flag: f, code: code} }

// HasValue reports whether there is a value. Without one and without a code the caller uses its own default.
func (r Result) HasValue() bool { return r.variant != nil }

// Variant returns the name of the variant, and "" without a value.
func (r Result) Variant() string {
	if r.variant == nil {
		return ""
	}
	return r.variant.name
}

// Reason says why.
func (r Result) Reason() Reason { return r.reason }

// Code says what went wrong.
func (r Result) Code() Code { return r.code }

// Metadata returns the set's metadata with the flag's over it. Do not change it. It is never nil for a flag that exists.
func (r Result) Metadata() map[string]any {
	if r.flag == nil {
		return nil
	}
	return r.flag.metadata
}

// plain returns the value if it is of a kind. Without a value it is null and the code is the result's own.
func (r Result) plain(kind jsonlogic.Kind) (jsonlogic.Value, Code) {
	switch {
	case r.variant == nil:
		return jsonlogic.Value{}, r.code
	case r.variant.plain.Kind() != kind:
		return jsonlogic.Value{}, TypeMismatch
	default:
		return r.variant.plain, OK
	}
}

// Bool returns a boolean value. This and the methods below return a zero and the code where there is none: TypeMismatch
// of a value of another kind, the result's own code without a value, which is OK if the caller's default applies.
func (r Result) Bool() (bool, Code) {
	v, code := r.plain(jsonlogic.Bool)
	return v.Bool(), code
}

// Text returns a string value.
func (r Result) Text() (string, Code) {
	v, code := r.plain(jsonlogic.String)
	if v.IsNull() {
		return "", code
	}
	return v.String(), code
}

// Float returns a number.
func (r Result) Float() (float64, Code) {
	v, code := r.plain(jsonlogic.Number)
	return v.Number(), code
}

// Int returns a number that is an integer: 10.0 is 10, 3.14 is a TypeMismatch, and so is what is beyond ±(2^53-1).
func (r Result) Int() (int64, Code) {
	const largest = 1<<53 - 1
	v, code := r.plain(jsonlogic.Number)
	x := v.Number()
	if x != math.Trunc(x) || math.Abs(x) > largest {
		return 0, TypeMismatch
	}
	return int64(x), code
}

// Object returns an object, which must not be changed.
func (r Result) Object() (map[string]any, Code) {
	if r.variant == nil {
		return nil, r.code
	}
	object, ok := r.variant.value.(map[string]any)
	if !ok {
		return nil, TypeMismatch
	}
	return object, OK
}

// Value returns the value of any kind as encoding/json decodes it, and nil without one. It must not be changed.
func (r Result) Value() any {
	if r.variant == nil {
		return nil
	}
	return r.variant.value
}
