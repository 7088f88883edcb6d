package docs

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestGuideCountsItsLines holds the developer guide to the number of lines that it says make a service tenant-safe.
func TestGuideCountsItsLines(t *testing.T) {
	t.Parallel()
	p := readPage(t, "docs/guides/developer.md")
	said := regexp.MustCompile(`numbered steps: (\d+) lines`).FindStringSubmatch(p.prose())
	if said == nil {
		t.Fatal("the guide names no number")
	}
	for _, b := range p.blocks {
		if b.file != "main.go" {
			continue
		}
		if got := safetyLines(b.text); strconv.Itoa(got) != said[1] {
			t.Errorf("the guide says %s lines, its main.go has %d", said[1], got)
		}
	}
	const program = "var x = tenantdb.Stmt(`y`)\nother()\n\t// 1. First.\n\ta, err := b(\n\t\tc,\n\t)\n\tif err != nil {\n\t\treturn err\n\t}\n\n" +
		"\t// 5. Last.\n\td()\n\tgo e()\n"
	if got := safetyLines(program); got != 5 {
		t.Errorf("counted %d lines, not 5: the statement, the three of b and d", got)
	}
}

// safetyLines counts the statements, and the lines from the first numbered step to the first line of the last one, without
// comments, blank lines and the handling of errors.
func safetyLines(program string) int {
	program = regexp.MustCompile(`(?m)^\s*if err != nil \{\n\s*return err\n\s*\}\n`).ReplaceAllString(program, "")
	n := len(regexp.MustCompile(`tenantdb\.Stmt\(`).FindAllString(program, -1))
	_, steps, _ := strings.Cut(program, "// 1.")
	steps, last, _ := strings.Cut(steps, "// 5.")
	for i, line := range strings.Split(steps, "\n") {
		if line = strings.TrimSpace(line); i > 0 && line != "" && !strings.HasPrefix(line, "//") {
			n++
		}
	}
	if strings.Count(last, "\n") > 1 {
		n++
	}
	return n
}
