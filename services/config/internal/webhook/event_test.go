package webhook_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/rowhouse-platform/rowhouse/services/config/internal/webhook"
)

// TestTypesAreThoseOfTheGuide compares the types that webhooks may be told of with the guide's table.
func TestTypesAreThoseOfTheGuide(t *testing.T) {
	t.Parallel()
	guide, err := os.ReadFile("../../../../docs/guides/webhooks.md")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]bool{}
	for line := range strings.Lines(string(guide)) {
		column, _, _ := strings.Cut(strings.TrimPrefix(line, "|"), "|")
		if !strings.HasPrefix(line, "| `") || !strings.Contains(column, ".") {
			continue
		}
		for _, found := range regexp.MustCompile("`([a-z]+\\.[a-z_…]+)`").FindAllStringSubmatch(column, -1) {
			if family, all := strings.CutSuffix(found[1], "…"); all {
				told[family+"updated"], told[family+"deleted"] = true, true
			} else {
				told[found[1]] = true
			}
		}
	}
	for _, known := range webhook.Types() {
		if !told[known] {
			t.Errorf("the guide does not tell of %s", known)
		}
		delete(told, known)
		if family, _, _ := strings.Cut(known, "."); !webhook.Fires(known) || !webhook.Fires(family+".*") || webhook.Fires(family) {
			t.Errorf("%s", known)
		}
	}
	delete(told, "rowhouse.webhook")
	for more := range told {
		if !strings.HasPrefix(more, "rowhouse.") {
			t.Errorf("%s of the guide is not known", more)
		}
	}
	if !webhook.Fires("*") || webhook.Fires("setings.*") || webhook.Fires("settings.udpated") {
		t.Error("what can fire is told wrongly")
	}
}
