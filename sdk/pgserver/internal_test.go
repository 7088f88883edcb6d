package pgserver

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// fakeBinaries are programs that say they are the version.
func fakeBinaries(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"postgres", "initdb"} {
		script := "#!/bin/sh\necho 'postgres (PostgreSQL) " + version + "'\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func from(name string, explicit bool, dirs ...string) source {
	return source{name: name, explicit: explicit, dirs: func() []string { return dirs }}
}

func TestDiscoverOrder(t *testing.T) {
	t.Parallel()
	old, v15, v17 := fakeBinaries(t, "14.1"), fakeBinaries(t, "15.2 (Debian)"), fakeBinaries(t, "17.0")
	nothing := t.TempDir()
	for name, test := range map[string]struct {
		from []source
		want int // major of the data folder
		dir  string
	}{
		"the first":               {[]source{from("a", false), from("b", false, v17, v15)}, 0, v17},
		"too old is passed over":  {[]source{from("a", false, old), from("b", false, v15)}, 0, v15},
		"the data's own major":    {[]source{from("a", false, v17), from("b", false, v15)}, 15, v15},
		"explicit ends the look":  {[]source{from("a", true, v17), from("b", false, v15)}, 15, v17},
		"explicit and wrong":      {[]source{from("a", true, nothing), from("b", false, v15)}, 0, ""},
		"explicit but not given":  {[]source{from("a", true), from("b", false, v15)}, 0, v15},
		"nothing of a new enough": {[]source{from("a", false, nothing), from("b", false, old)}, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, err := discover(t.Context(), test.from, test.want)
			if b.Dir != test.dir || (err != nil) != (test.dir == "") {
				t.Fatalf("got %q, %v; want %q", b.Dir, err, test.dir)
			}
			if err != nil && !errors.Is(err, ErrNoBinaries) {
				t.Errorf("%v is no ErrNoBinaries", err)
			}
		})
	}
}

func TestNoBinariesTellsWhereItLooked(t *testing.T) {
	t.Parallel()
	old, nothing := fakeBinaries(t, "14.1"), t.TempDir()
	_, err := discover(t.Context(), []source{from("ENV", true), from("/usr/*", false, old, nothing)}, 0)
	if err == nil {
		t.Fatal("found something")
	}
	for _, text := range []string{"ENV (nothing)", "version 14.1 is too old", nothing + ": no initdb", installMend} {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q does not say %q", err, text)
		}
	}
}

// Folders that killed processes left are swept; those that live and those of others stay.
func TestSweep(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	// The socket of a server that an earlier release started: nobody locks its folder.
	socket := tempPrefix + "s-0123456789ab"
	for _, name := range []string{tempPrefix + "dead", tempPrefix + "unlocked", tempPrefix + "alive", socket, "other"} {
		if err := os.Mkdir(filepath.Join(base, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(base, tempPrefix+"dead", lockName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(base, socket, ".s.PGSQL.5432"), nil, 0o700); err != nil {
		t.Fatal(err)
	}
	alive, err := tryLock(filepath.Join(base, tempPrefix+"alive", lockName))
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Close()
	if err := os.Symlink("other", filepath.Join(base, tempPrefix+"link")); err != nil {
		t.Fatal(err)
	}
	sweepTempHomes(base)
	left, err := filepath.Glob(filepath.Join(base, "*"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"other", tempPrefix + "alive", tempPrefix + "link", socket}
	for i, path := range left {
		left[i] = filepath.Base(path)
	}
	if strings.Join(left, " ") != strings.Join(want, " ") {
		t.Errorf("left %v, want %v", left, want)
	}
	if strings.HasPrefix(socketPrefix, tempPrefix) {
		t.Errorf("the sweeper looks into folders of sockets, %s…", socketPrefix)
	}
}

func TestHalfMadeTemplatesAreSwept(t *testing.T) {
	t.Parallel()
	template := filepath.Join(t.TempDir(), "template-1")
	for _, dir := range []string{template, halfMade(template), halfMade(template), template + "2"} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	sweepHalfMade(template)
	left, err := filepath.Glob(template + "*")
	if err != nil || len(left) != 2 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestLogKeepsLastLines(t *testing.T) {
	t.Parallel()
	o, err := Options{}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	w := &logWriter{to: o.Logger}
	for range 100 {
		w.Write([]byte("LOG:  no"))
		w.Write([]byte("thing\nFATAL:  it is over\nhal"))
		w.Write([]byte("f\n"))
	}
	if got, want := w.tail(2), "FATAL:  it is over | half"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if len(w.last) != keptLines {
		t.Errorf("kept %d lines", len(w.last))
	}
}

// Between bind and listen a socket has its file, and refuses connections.
func TestBouncerIsReadyWhenItTakesConnections(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "pgb") //nolint:usetesting // a socket wants a short path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	b := &Bouncer{dir: dir, process: &process{log: &logWriter{to: slog.New(slog.DiscardHandler)}, done: make(chan struct{})}}
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: b.socket()}); err != nil {
		t.Fatal(err)
	}
	late, cancel := context.WithCancel(t.Context())
	cancel()
	if err := b.ready(late); !errors.Is(err, context.Canceled) {
		t.Errorf("it does not listen, and is ready: %v", err)
	}
	if err := syscall.Listen(fd, 1); err != nil {
		t.Fatal(err)
	}
	if err := b.ready(t.Context()); err != nil {
		t.Error(err)
	}
}
