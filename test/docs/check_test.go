package docs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// prose is a page's text without its blocks.
func (p page) prose() string {
	return regexp.MustCompile("(?ms)^```.*?^```$").ReplaceAllString(p.text, "")
}

// TestLinksLeadSomewhere follows every relative link, anchors included.
func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	seen := 0
	for _, p := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(p.prose(), -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			seen++
			file := path.Join(path.Dir(p.path), target)
			if target == "" {
				file = p.path
			}
			if _, err := os.Stat(filepath.Join(root, file)); err != nil {
				t.Errorf("%s links to %s, which does not exist", p.path, m[1])
				continue
			}
			if anchor != "" && !slices.Contains(anchors(t, file), anchor) {
				t.Errorf("%s links to %s, which has no such heading", p.path, m[1])
			}
		}
	}
	if seen == 0 {
		t.Error("no page has a link")
	}
}

// anchors are the names that a forge gives to a page's headings.
func anchors(t *testing.T, file string) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(string(b), -1) {
		name := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		out = append(out, strings.ReplaceAll(name, " ", "-"))
	}
	return out
}

// TestNamedFilesExist looks for the files and folders of this repository that pages name.
func TestNamedFilesExist(t *testing.T) {
	t.Parallel()
	named := regexp.MustCompile("`((?:sdk|services|internal|cmd|proto|gen|test|docs|examples|deploy|bench|scripts|tools)/[A-Za-z0-9_./-]+)`")
	seen := 0
	for _, p := range pages(t) {
		for _, m := range named.FindAllStringSubmatch(p.prose(), -1) {
			seen++
			if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
				t.Errorf("%s names %s, which does not exist", p.path, m[1])
			}
		}
	}
	if seen == 0 {
		t.Error("no page names a file")
	}
}

// command is a command line that a page shows.
type command struct{ words, flags []string }

// commandsOf finds the command lines of rowhouse in a page.
func commandsOf(p page) []command {
	var lines []string
	for _, b := range p.blocks {
		if b.lang != "go" && b.lang != "text" {
			lines = append(lines, strings.Split(strings.ReplaceAll(b.text, "\\\n", " "), "\n")...)
		}
	}
	for _, m := range regexp.MustCompile("`([^`\n]+)`").FindAllStringSubmatch(p.prose(), -1) {
		lines = append(lines, m[1])
	}
	start := regexp.MustCompile(`(?:^|[\s(|])(?:bin/)?rowhouse( .*)$`)
	var out []command
	for _, line := range lines {
		m := start.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		line, _, _ := strings.Cut(regexp.MustCompile(`'[^']*'|"[^"]*"`).ReplaceAllString(m[1], "X"), " #")
		out = append(out, commandOf(regexp.MustCompile(`[|;>&]`).Split(line, 2)[0]))
	}
	return out
}

func commandOf(line string) command {
	var c command
	naming := true
	for w := range strings.FieldsSeq(line) {
		switch {
		case strings.HasPrefix(w, "-"):
			name, _, _ := strings.Cut(w, "=")
			c.flags = append(c.flags, name)
			naming = false
		case naming && regexp.MustCompile(`^[a-z]+$`).MatchString(w) && len(c.words) < 3:
			c.words = append(c.words, w)
		default:
			naming = false
		}
	}
	return c
}

// help asks the command line about a command, once.
type help struct {
	mu   sync.Mutex
	said map[string]string
}

func (h *help) of(ctx context.Context, words []string) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := strings.Join(words, " ")
	if text, ok := h.said[key]; ok {
		return text, nil
	}
	out, err := exec.CommandContext(ctx, filepath.Join(binaries, "rowhouse"), append(slices.Clone(words), "--help")...).CombinedOutput()
	h.said[key] = string(out)
	return string(out), err
}

// TestCommandsAndFlagsExist asks the binary about each command line that a page shows.
func TestCommandsAndFlagsExist(t *testing.T) {
	t.Parallel()
	h := &help{said: map[string]string{}}
	seen := 0
	for _, p := range pages(t) {
		for _, c := range commandsOf(p) {
			if len(c.words) == 0 {
				continue
			}
			seen++
			if err := c.check(t.Context(), h); err != nil {
				t.Errorf("%s shows rowhouse %s %s: %v", p.path, strings.Join(c.words, " "), strings.Join(c.flags, " "), err)
			}
		}
	}
	if seen == 0 {
		t.Error("no page shows a command")
	}
}

// check looks for the command's nouns, verbs and flags in its help.
func (c command) check(ctx context.Context, h *help) error {
	text, err := h.of(ctx, nil)
	if err != nil || !regexp.MustCompile(`(?m)^  `+c.words[0]+` `).MatchString(text) {
		return fmt.Errorf("there is no command %s (%w)", c.words[0], err)
	}
	for i := range c.words {
		if i > 0 && !strings.Contains(text, "Available Commands:") {
			break // the rest are arguments
		}
		if !regexp.MustCompile(`(?m)^  ` + c.words[i] + ` `).MatchString(text) {
			return fmt.Errorf("%s has no verb %s", strings.Join(c.words[:i], " "), c.words[i])
		}
		if text, err = h.of(ctx, c.words[:i+1]); err != nil {
			return err
		}
	}
	for _, f := range c.flags {
		if !regexp.MustCompile(`(^|[\s,])` + regexp.QuoteMeta(f) + `([\s,]|$)`).MatchString(text) {
			return fmt.Errorf("there is no flag %s", f)
		}
	}
	return nil
}

// TestFlagsOutsideOfCommandsExist looks for flags that prose names alone, like `--dry-run`.
func TestFlagsOutsideOfCommandsExist(t *testing.T) {
	t.Parallel()
	var all strings.Builder
	err := filepath.WalkDir(filepath.Join(root, "cmd"), func(file string, e os.DirEntry, err error) error {
		if err != nil || filepath.Ext(file) != ".go" {
			return err
		}
		b, err := os.ReadFile(file)
		all.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pages(t) {
		if !strings.HasPrefix(p.path, "docs/") && p.path != "README.md" {
			continue
		}
		for _, m := range regexp.MustCompile("`--([a-z][a-z-]+)[^`]*`").FindAllStringSubmatch(p.prose(), -1) {
			field := strings.ReplaceAll(m[1], "-", "_") // flags of the command line are named after fields
			known := regexp.MustCompile(`["` + "`" + `.](?:` + m[1] + `|` + field + `)["` + "`" + `]`)
			if m[1] != "resolve" && !strings.HasPrefix(m[1], "rh-") && !known.MatchString(all.String()) { // those are curl's, and properties of CSS
				t.Errorf("%s names the flag --%s, which does not exist", p.path, m[1])
			}
		}
	}
}

// TestThreatsNameTheirTests looks for each test that the threat model names, in the package that it names.
func TestThreatsNameTheirTests(t *testing.T) {
	t.Parallel()
	p := readPage(t, "docs/threat-model.md")
	named := regexp.MustCompile("`([a-z][a-z0-9/.]*) ((?:Test|Fuzz)[A-Za-z0-9]+)`")
	found := named.FindAllStringSubmatch(p.text, -1)
	const fewest = 30
	if len(found) < fewest {
		t.Fatalf("the threat model names %d tests, want at least %d", len(found), fewest)
	}
	for _, m := range found {
		files, err := filepath.Glob(filepath.Join(root, m[1], "*_test.go"))
		if err != nil || !slices.ContainsFunc(files, func(file string) bool {
			b, err := os.ReadFile(file)
			return err == nil && strings.Contains(string(b), "\nfunc "+m[2]+"(")
		}) {
			t.Errorf("there is no test %s in %s", m[2], m[1])
		}
	}
	if loose := regexp.MustCompile("`(?:Test|Fuzz)[A-Za-z0-9]+`").FindString(p.text); loose != "" {
		t.Errorf("the threat model names %s without its package", loose)
	}
}

// TestCommentsNameTestsThatExist looks for each test that a comment in another one names.
func TestCommentsNameTestsThatExist(t *testing.T) {
	t.Parallel()
	written, named := map[string]bool{}, map[string]string{}
	for _, folder := range []string{"bench", "cmd", "examples", "internal", "sdk", "services", "test", "tools"} {
		err := filepath.WalkDir(filepath.Join(root, folder), func(file string, _ os.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(file, "_test.go") {
				return err
			}
			b, err := os.ReadFile(file)
			tests, names := testsIn(string(b))
			for _, name := range tests {
				written[name] = true
			}
			for _, name := range names {
				named[name] = file
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, file := range named {
		if !written[name] {
			t.Errorf("%s names %s, which does not exist", file, name)
		}
	}
	tests, names := testsIn("func TestMatches(t *testing.T) {\n\t// as in TestErrorsPage.\n\tx(TestNot) // FuzzParseHost too\n")
	if !slices.Equal(tests, []string{"TestMatches"}) || !slices.Equal(names, []string{"TestErrorsPage", "FuzzParseHost"}) {
		t.Errorf("found %v and %v", tests, names)
	}
}

// testsIn returns the tests that a Go file holds and those that its comments name.
func testsIn(text string) (tests, named []string) {
	for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Z]\w*)\(`).FindAllStringSubmatch(text, -1) {
		tests = append(tests, m[1])
	}
	for _, comment := range regexp.MustCompile(`(?m)(?:^|\s)//.*$`).FindAllString(text, -1) {
		named = append(named, regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w+`).FindAllString(comment, -1)...)
	}
	return tests, named
}

// TestHelpNamesRPCAndPermission holds what the operator guide says of the help.
func TestHelpNamesRPCAndPermission(t *testing.T) {
	t.Parallel()
	h := &help{said: map[string]string{}}
	all, err := examples(t.Context(), h)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if e.verb == "" || e.noun == "cells" && (e.verb == "init" || e.verb == "audit") {
			continue // call takes any RPC, and these two go to a database
		}
		text, err := h.of(t.Context(), append(strings.Fields(e.noun), e.verb))
		if err != nil || !strings.Contains(text, "\nRPC: ") || strings.Contains(text, "\nPermission: ") == (e.noun == "operations") {
			t.Errorf("the help of %s %s does not name what the guide says (%v)", e.noun, e.verb, err)
		}
	}
}

// TestDependenciesAreListed compares decision 8 with what the code imports and with go.mod.
func TestDependenciesAreListed(t *testing.T) {
	t.Parallel()
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(readPage(t, "docs/decisions/0008-dependencies.md").text, -1) {
		listed[m[1]] = true
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	var modules []string
	for _, m := range regexp.MustCompile(`(?m)^\t(\S+) v\S+`).FindAllStringSubmatch(string(mod), -1) {
		modules = append(modules, m[1])
	}
	for m := range listed {
		if !slices.Contains(modules, m) {
			t.Errorf("decision 8 lists %s, which is not in go.mod", m)
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-f",
		`{{join .Imports "\n"}}{{"\n"}}{{join .TestImports "\n"}}{{"\n"}}{{join .XTestImports "\n"}}`, "./...")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for imported := range strings.FieldsSeq(string(out)) {
		if m := moduleOf(imported, modules); m != "" && !listed[m] {
			listed[m] = true // say it once
			t.Errorf("decision 8 does not list %s, from which %s is imported", m, imported)
		}
	}
}

// moduleOf finds the module of a package.
func moduleOf(imported string, modules []string) string {
	longest := ""
	for _, m := range modules {
		if (imported == m || strings.HasPrefix(imported, m+"/")) && len(m) > len(longest) {
			longest = m
		}
	}
	return longest
}
