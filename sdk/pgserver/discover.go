package pgserver

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	// EnvBin names the environment variable that holds the folder of the
	// PostgreSQL binaries. When set, nothing else is looked at.
	EnvBin = "ROWHOUSE_PG_BIN"

	minMajor    = 15
	debianBins  = "/usr/lib/postgresql/*/bin"
	installMend = "run `apt-get install -y postgresql-15` (with `create_main_cluster = false` in " +
		"/etc/postgresql-common/createcluster.conf no other cluster is made)"
)

// Binaries is an installed PostgreSQL.
type Binaries struct {
	Dir     string // the folder of postgres and initdb
	Version string // as the binary says it, such as "15.14 (Debian 15.14-0+deb12u1)"
	Major   int
}

func (b Binaries) path(name string) string { return filepath.Join(b.Dir, name) }

// source is one place where binaries may be found. An explicit source that
// names a folder ends the search, whether the folder is good or not.
type source struct {
	name     string
	explicit bool
	dirs     func() []string
}

func sources() []source {
	return []source{
		{name: EnvBin, explicit: true, dirs: envDirs},
		{name: debianBins, dirs: debianDirs},
		{name: "PATH", dirs: pathDirs},
	}
}

// Discover finds the binaries to use: the folder in ROWHOUSE_PG_BIN, else the
// newest /usr/lib/postgresql/*/bin of major 15 or newer, else those on PATH.
// It returns an [*Error] of kind ErrNoBinaries when there are none.
func Discover(ctx context.Context) (Binaries, error) {
	return discover(ctx, sources(), 0)
}

// discover prefers binaries of the wanted major, so that an older data folder
// goes on working after a newer PostgreSQL was installed beside the old one.
func discover(ctx context.Context, from []source, want int) (Binaries, error) {
	var found []Binaries
	var looked []string
	for _, src := range from {
		dirs := src.dirs()
		if len(dirs) == 0 {
			looked = append(looked, src.name+" (nothing)")
		}
		for _, dir := range dirs {
			b, err := inspect(ctx, dir)
			if err != nil {
				looked = append(looked, fmt.Sprintf("%s (%s: %v)", src.name, dir, err))
				continue
			}
			found = append(found, b)
		}
		if src.explicit && len(dirs) > 0 {
			break
		}
	}
	if len(found) == 0 {
		what := fmt.Sprintf("looked for postgres and initdb of major %d or newer in %s", minMajor, strings.Join(looked, ", "))
		return Binaries{}, &Error{ErrNoBinaries, what, installMend}
	}
	if i := slices.IndexFunc(found, func(b Binaries) bool { return b.Major == want }); i >= 0 {
		return found[i], nil
	}
	return found[0], nil
}

func envDirs() []string {
	if dir := os.Getenv(EnvBin); dir != "" {
		return []string{dir}
	}
	return nil
}

func debianDirs() []string {
	dirs, _ := filepath.Glob(debianBins) // the pattern is constant and well formed
	major := func(dir string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
		return n
	}
	dirs = slices.DeleteFunc(dirs, func(dir string) bool { return major(dir) < minMajor })
	slices.SortFunc(dirs, func(a, b string) int { return major(b) - major(a) })
	return dirs
}

func pathDirs() []string {
	bin, err := exec.LookPath("postgres")
	if err != nil {
		return nil
	}
	// initdb and the shared files lie beside the real binary, not the link.
	if real, err := filepath.EvalSymlinks(bin); err == nil {
		bin = real
	}
	dir, err := filepath.Abs(filepath.Dir(bin))
	if err != nil {
		return nil
	}
	return []string{dir}
}

// inspect says which PostgreSQL lies in dir.
func inspect(ctx context.Context, dir string) (Binaries, error) {
	for _, name := range []string{"initdb", "postgres"} {
		if _, err := exec.LookPath(filepath.Join(dir, name)); err != nil {
			return Binaries{}, fmt.Errorf("no %s", name)
		}
	}
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return Binaries{}, fmt.Errorf("postgres --version: %w", err)
	}
	m := regexp.MustCompile(`^postgres \(PostgreSQL\) ((\d+).*)`).FindStringSubmatch(strings.TrimSpace(string(out)))
	if m == nil {
		return Binaries{}, fmt.Errorf("unknown version %q", out)
	}
	major, err := strconv.Atoi(m[2])
	if err != nil || major < minMajor {
		return Binaries{}, fmt.Errorf("version %s is too old", m[1])
	}
	return Binaries{Dir: dir, Version: m[1], Major: major}, nil
}
