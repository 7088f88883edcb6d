package lint

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"

	"github.com/rowhouse-platform/rowhouse/internal/lint/schema"
	"github.com/rowhouse-platform/rowhouse/internal/lint/sqltext"
)

// ConfigFile is the name of the configuration, in the folder of go.mod.
const ConfigFile = "rowlint.yaml"

// Config says which folders of a module are what. Without one every package is an app's,
// and an app's tables are in the nearest folder migrations at or above the package.
type Config struct {
	// Apps are folders with tenants' data whose migrations are somewhere else.
	Apps []App `yaml:"apps"`
	// Control are folders whose code has a database without tenants' rows, or administers tenants.
	Control []Control `yaml:"control"`
}

// App is a folder, its packages and all below it.
type App struct {
	// Path is the folder, from the folder of the configuration.
	Path string `yaml:"path"`
	// Migrations are the folders of its *.sql files, in the order in which they run.
	Migrations []string `yaml:"migrations"`
}

// Control is a folder in which G1 and G3 do not hold.
type Control struct {
	// Path is the folder, from the folder of the configuration.
	Path string `yaml:"path"`
	// Reason says why; it may not be empty.
	Reason string `yaml:"reason"`
}

// Kind is what rowlint takes a package for.
type Kind uint8

// The kinds of packages.
const (
	// Product packages reach tenants' rows: all rules hold.
	Product Kind = iota
	// ControlPlane packages have another database: G1 and G3 do not hold, and none of
	// their own tables is a tenant's.
	ControlPlane
)

// House knows modules, their configuration and their tables. It reads each once and is safe
// for concurrent use. The zero House looks for the configuration beside go.mod.
type House struct {
	// Config is a configuration file to use instead.
	Config string

	mu      sync.Mutex
	modules map[string]*module // guarded by mu; by root
	schemas map[string]*loaded // guarded by mu; by the names of the folders
}

type module struct {
	root   string
	config Config
	err    error
}

type loaded struct {
	schema *schema.Schema
	err    error
}

// Place is a folder as rowlint sees it.
type Place struct {
	// Kind is what its packages are taken for.
	Kind Kind
	// Migrations are the folders that describe its tables; none are known when it is empty.
	Migrations []string
}

// Place says what the packages of a folder are.
func (h *House) Place(dir string) (Place, error) {
	m, err := h.module(dir)
	if err != nil {
		return Place{}, err
	}
	for _, c := range m.config.Control {
		if below(dir, filepath.Join(m.root, c.Path)) {
			return Place{Kind: ControlPlane}, nil
		}
	}
	for _, a := range m.config.Apps {
		if below(dir, filepath.Join(m.root, a.Path)) {
			var folders []string
			for _, folder := range a.Migrations {
				folders = append(folders, filepath.Join(m.root, folder))
			}
			return Place{Migrations: folders}, nil
		}
	}
	for at := dir; below(at, m.root); at = filepath.Dir(at) {
		if folder := filepath.Join(at, "migrations"); len(sqlFiles(folder)) > 0 {
			return Place{Migrations: []string{folder}}, nil
		}
		if at == m.root {
			break
		}
	}
	return Place{}, nil
}

// Schema returns the tables that the migrations of a place describe. A file that cannot be
// parsed is left out here; it is a finding of its own.
func (h *House) Schema(p Place) (*schema.Schema, error) {
	key := strings.Join(p.Migrations, "\x00")
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.schemas == nil {
		h.schemas = map[string]*loaded{}
	}
	if l := h.schemas[key]; l != nil {
		return l.schema, l.err
	}
	l := &loaded{schema: &schema.Schema{}}
	h.schemas[key] = l
	for _, folder := range p.Migrations {
		for _, file := range sqlFiles(folder) {
			text, err := os.ReadFile(file)
			if err != nil {
				l.err = fmt.Errorf("read migration: %w", err)
				return l.schema, l.err
			}
			if statements, err := sqltext.Parse(string(text)); err == nil {
				l.schema.Read(statements)
			}
		}
	}
	return l.schema, nil
}

// SQLFiles returns the *.sql files of a folder in the order of their names.
func SQLFiles(folder string) []string { return sqlFiles(folder) }

func sqlFiles(folder string) []string {
	files, err := filepath.Glob(filepath.Join(folder, "*.sql"))
	if err != nil {
		return nil
	}
	slices.Sort(files)
	return files
}

func (h *House) module(dir string) (*module, error) {
	root := dir
	for !exists(filepath.Join(root, "go.mod")) {
		up := filepath.Dir(root)
		if up == root {
			root = dir // no module: the folder stands for itself
			break
		}
		root = up
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.modules == nil {
		h.modules = map[string]*module{}
	}
	m := h.modules[root]
	if m == nil {
		m = &module{root: root}
		file := filepath.Join(root, ConfigFile)
		if h.Config != "" {
			file = h.Config
			m.root = filepath.Dir(file)
		}
		m.config, m.err = readConfig(file, h.Config != "")
		h.modules[root] = m
	}
	return m, m.err
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// readConfig reads and checks a configuration. One that is not there is empty, unless it was asked for.
func readConfig(file string, asked bool) (c Config, err error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) && !asked {
		return Config{}, nil
	}
	if err != nil {
		return Config{}, fmt.Errorf("read configuration: %w", err)
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return Config{}, fmt.Errorf("%s: %w", file, err)
	}
	for _, a := range c.Apps {
		if a.Path == "" || len(a.Migrations) == 0 {
			return Config{}, fmt.Errorf("%s: an app needs a path and migrations", file)
		}
	}
	for _, p := range c.Control {
		if p.Path == "" || p.Reason == "" {
			return Config{}, fmt.Errorf("%s: a control folder needs a path and a reason", file)
		}
	}
	return c, nil
}

func below(dir, folder string) bool {
	rel, err := filepath.Rel(folder, dir)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}
