package yamlfile_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
)

type process struct {
	Listen string        `yaml:"listen"`
	Drain  time.Duration `yaml:"drain"`
}

type config struct {
	process  `yaml:",inline"`
	Process  process            `yaml:"process"`
	Key      yamlfile.Path      `yaml:"key"`
	Names    []string           `yaml:"names"`
	Children map[string]process `yaml:"children"`
	Files    map[string]file    `yaml:"files"`
	Hidden   string             `yaml:"-"`
	Limit    int                `yaml:"limit"`
	invalid  error
}

type file struct {
	Path yamlfile.Path `yaml:"path"`
}

func (c *config) Validate() error {
	if c.Limit < 0 {
		return errors.New("limit must not be negative")
	}
	return c.invalid
}

func load(t *testing.T, content string, into *config) (string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, yamlfile.Load(path, into)
}

func TestLoad(t *testing.T) {
	t.Parallel()
	got := config{Limit: 7}
	path, err := load(t, `
listen: inline
process: {listen: "127.0.0.1:1", drain: 1m30s}
key: keys/a.pem
names: [a, b]
children: {x: {drain: 5ms}}
files: {a: {path: b}, c: {path: /d}}
`, &got)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	want := config{
		process: process{Listen: "inline"}, Process: process{"127.0.0.1:1", 90 * time.Second}, Key: yamlfile.Path(dir + "/keys/a.pem"),
		Names: []string{"a", "b"}, Children: map[string]process{"x": {Drain: 5 * time.Millisecond}},
		Files: map[string]file{"a": {yamlfile.Path(dir + "/b")}, "c": {"/d"}}, Limit: 7,
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(config{}, process{})); diff != "" {
		t.Errorf("loaded (-want +got):\n%s", diff)
	}
	if _, err := load(t, "", &config{}); err != nil {
		t.Errorf("an empty file: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ content, want string }{
		"unknown key":    {"names: []\nlimt: 3\n", `config.yaml:2: unknown key "limt"; the nearest known key is "limit"`},
		"nested":         {"process:\n  listen: x\n  drian: 5s\n", `config.yaml:3: unknown key "drian" in process; the nearest known key is "drain"`},
		"in a map":       {"children:\n  x:\n    lisen: y\n", `config.yaml:3: unknown key "lisen" in children.x; the nearest known key is "listen"`},
		"wrong case":     {"Limit: 3\n", `unknown key "Limit"; the nearest known key is "limit"`},
		"hidden":         {"hidden: x\n", `unknown key "hidden"`},
		"no unit":        {"process:\n  drain: 5\n", `config.yaml:2: process.drain: "5" is no duration`},
		"bad duration":   {"process: {drain: 5 seconds}\n", `config.yaml:1: process.drain: "5 seconds" is no duration`},
		"wrong type":     {"names: []\nlimit: many\n", "config.yaml:2: cannot unmarshal"},
		"twice":          {"limit: 1\nlimit: 2\n", `config.yaml:2: mapping key "limit" already defined`},
		"not YAML":       {"limit: [1\n", "config.yaml:"},
		"a list":         {"- limit\n", "config.yaml:1: cannot unmarshal"},
		"two documents":  {"limit: 1\n---\nlimit: 2\n", "more than one YAML document"},
		"anchor":         {"process: &p {listen: x}\n", "config.yaml:1: anchors"},
		"own validation": {"limit: -1\n", "config.yaml: limit must not be negative"},
		"too large":      {"# " + strings.Repeat("x", 4<<20), "larger than"},
	}
	for name, test := range tests {
		if _, err := load(t, test.content, &config{}); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, test.want)
		}
	}
	if err := yamlfile.Load("/does/not/exist", &config{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestPathRead(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(" s3cret \n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := yamlfile.Path(path).Read(); err != nil || string(b) != " s3cret" {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := yamlfile.Path("").Read(); err == nil {
		t.Error("no path must be an error")
	}
}
