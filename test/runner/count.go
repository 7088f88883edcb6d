package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// module is the prefix that package paths are shown without.
const module = "github.com/rowhouse-platform/rowhouse"

// An event is a line of go test -json; see go doc test2json.
type event struct {
	Action      string
	Package     string
	ImportPath  string // of a build
	Test        string
	Output      string
	FailedBuild string
}

// name is how the event's test is written in test/skips.txt.
func (e event) name() string {
	pkg := strings.TrimPrefix(strings.TrimPrefix(e.Package, module), "/")
	if pkg == "" {
		pkg = "."
	}
	return strings.TrimSpace(pkg + " " + e.Test)
}

// count reads the events of a test run, tells failures as they come, and returns how many tests it saw.
func (s *shop) count(r *bufio.Reader) (ran int, err error) {
	said := map[string]*strings.Builder{} // output by test, dropped when the test passes
	failed := map[string]bool{}           // packages with a failed test
	for {
		line, err := r.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil || e.Action == "" {
				s.out.Write(line) // not of go test, for example a panic of the server beside it
				continue
			}
			if s.note(e, said, failed) {
				ran++
			}
		}
		if errors.Is(err, io.EOF) {
			return ran, nil
		} else if err != nil {
			return ran, err
		}
	}
}

// note takes one event in and reports whether it closed a test.
func (s *shop) note(e event, said map[string]*strings.Builder, failed map[string]bool) bool {
	key := e.name()
	switch e.Action {
	case "output", "build-output":
		if e.ImportPath != "" {
			key = e.ImportPath
		}
		if said[key] == nil {
			said[key] = &strings.Builder{}
		}
		if !strings.HasPrefix(e.Output, "=== ") { // RUN, PAUSE and CONT tell nothing
			said[key].WriteString(e.Output)
		}
		return false
	case "pass", "skip", "fail":
	default:
		return false
	}
	text := said[key]
	delete(said, key)
	switch {
	case e.Action == "fail" && e.Test != "":
		failed[e.Package] = true
		s.failed++
		s.tell(e, text)
	case e.Action == "fail" && !failed[e.Package]: // it did not build, or died outside of its tests
		s.failed++
		s.tell(e, said[e.FailedBuild])
		s.tell(e, text)
	case e.Test == "":
	case e.Action == "skip" && !s.skips[key]:
		s.failed++
		s.tell(e, text)
		fmt.Fprintf(s.out, "%s was skipped and is not in test/skips.txt\n", key)
	case e.Action == "skip":
		s.skipped++
	default:
		s.passed++
	}
	return e.Test != ""
}

// tell prints what a test said under its name.
func (s *shop) tell(e event, text *strings.Builder) {
	if text != nil {
		fmt.Fprintf(s.out, "--- %s\n%s", e.name(), text.String())
	}
}

// readSkips reads the tests that may be skipped: a line is "path/of/package TestName # reason".
func readSkips(path string) (map[string]bool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	skips := map[string]bool{}
	for i, line := range strings.Split(string(text), "\n") {
		entry, reason, found := strings.Cut(line, "#")
		entry = strings.Join(strings.Fields(entry), " ")
		if entry == "" {
			continue
		}
		if !found || strings.TrimSpace(reason) == "" || len(strings.Fields(entry)) != 2 {
			return nil, fmt.Errorf("%s:%d: want \"path/of/package TestName # reason\"", path, i+1)
		}
		skips[entry] = true
	}
	return skips, nil
}
