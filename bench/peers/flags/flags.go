// Package flags compares our flags with flagd's evaluator (github.com/open-feature/flagd/core): the same answers, in the
// tests, and how long they take, in the benchmarks that flag-static, flag-targeting and flag-fractional run.
//
// What may differ is docs/flagd-differences.md, which the tests read. Start at TestSameAnswers.
package flags
