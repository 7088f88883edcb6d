// Package jsonlogic compiles and evaluates JSONLogic as flagd speaks it: the operators of the specification with those
// that flags need, fractional, sem_ver, starts_with and ends_with.
//
// A rule is compiled once, to a tree of Go functions over small values. Evaluating reads no JSON and, but for operators
// that make lists or text, allocates nothing. It is bounded in work, has no effects, and never panics: rules come from
// users. Nothing here knows flags, the wire or a clock; package flagset does. Where flagd's own engine and the published
// tables of JSONLogic disagree, docs/flagd-differences.md says what holds here.
//
// Start at [NewLibrary] and [Library.Compile].
package jsonlogic

// properties is the name under which rules find what we say of the evaluation itself.
const properties = "$flagd"

// Input is what a rule is evaluated over.
type Input struct {
	// Data is what "var" reads.
	Data Value
	// FlagKey and Timestamp, in Unix seconds, are read as $flagd.flagKey and $flagd.timestamp, whatever Data holds
	// under that name. Without a key there is no $flagd.
	FlagKey   string
	Timestamp int64
}

// Rule is a compiled rule. It is immutable and safe for concurrent use.
type Rule struct {
	node node
}

// Constant returns the value of a rule that reads nothing of its input.
func (r *Rule) Constant() (v Value, ok bool) { return r.node.value, r.node.known }

// Eval evaluates the rule. The error is [ErrBudget] or an [*Error].
func (r *Rule) Eval(in Input) (Value, error) {
	if r.node.known {
		return r.node.value, nil
	}
	return run(r.node.eval, in)
}
