package docs

import (
	"bufio"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// root is the repository.
const root = "../.."

// page is a Markdown file.
type page struct {
	path   string // from the root
	text   string
	blocks []block
}

// block is what stands between two fences.
type block struct {
	line int
	// lang and file are the words of the fence.
	lang, file string
	text       string
	// runs says that the block is in a part of the page that is run.
	runs bool
}

// pages are those at the root, the one on Kubernetes, and all of docs/.
func pages(t testing.TB) []page {
	t.Helper()
	found := []string{"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "deploy/k8s/README.md"}
	err := filepath.WalkDir(filepath.Join(root, "docs"), func(path string, e fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".md" && !e.IsDir() {
			rel, err := filepath.Rel(root, path)
			found = append(found, rel)
			return err
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var out []page
	for _, path := range found {
		b, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, page{path: filepath.ToSlash(path), text: string(b), blocks: blocksOf(b)})
	}
	return out
}

func readPage(t testing.TB, path string) page {
	t.Helper()
	for _, p := range pages(t) {
		if p.path == path {
			return p
		}
	}
	t.Fatalf("there is no page %s", path)
	return page{}
}

// continues returns the page that a reader has done before this one, and in whose folder this one is run; "" for none.
func (p page) continues() string {
	if m := regexp.MustCompile(`(?m)^<!-- docs test: continues (\S+) -->$`).FindStringSubmatch(p.text); m != nil {
		return m[1]
	}
	return ""
}

func blocksOf(b []byte) []block {
	var out []block
	var open *block
	runs := false
	lines := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case open != nil && isFence:
			out = append(out, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		case isFence:
			lang, file, _ := strings.Cut(fence, " ")
			open = &block{line: n, lang: lang, file: file, runs: runs}
		case line == "<!-- docs test: run -->":
			runs = true
		case line == "<!-- docs test: stop -->":
			runs = false
		}
	}
	return out
}
