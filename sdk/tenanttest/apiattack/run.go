package apiattack

import (
	"context"
	"strings"
)

// T is the part of testing.TB that [Run] needs.
type T interface {
	// Helper marks the caller as one that speaks for its own caller.
	Helper()
	// Context ends with the test.
	Context() context.Context
	// Logf writes what is shown with -v or when the test fails.
	Logf(format string, args ...any)
	// Errorf makes the test fail and goes on.
	Errorf(format string, args ...any)
}

// Run attacks the target and fails the test for each finding, and for each method that
// was not exercised and that the target does not excuse. It logs the report.
func Run(t T, target Target) Report {
	t.Helper()
	report, err := Attack(t.Context(), target)
	if err != nil {
		t.Errorf("%v", err)
		return report
	}
	var text strings.Builder
	report.WriteText(&text)
	t.Logf("%s", text.String())
	for _, finding := range report.Findings() {
		t.Errorf("leaked: %s", finding)
	}
	for _, m := range report.Untested(true) {
		t.Errorf("untested: %s: %s", m.Name, m.Why)
	}
	return report
}
