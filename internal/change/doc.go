// Package change is the one unit of work of every Rowhouse service: a call's rows, its audit event, what watchers
// will see and the answer that a retry will get are committed together or not at all.
//
// A method that changes something wraps its work in [Do], one that reads in [View], and one that streams calls
// [Kernel.Opened] before its first message. What the call is (who, which method, which request) comes from the
// context, where the rule interceptor put it; see [rule.CallFrom].
//
// The package is not for the rows themselves: those belong to the service's store, which takes the [Tx].
package change
