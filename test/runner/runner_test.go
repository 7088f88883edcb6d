package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCount(t *testing.T) {
	t.Parallel()
	const pkg = `"Package":"github.com/rowhouse-platform/rowhouse/sdk/x"`
	tests := map[string]struct {
		events []string
		want   tally
		says   string // a part of what is told
	}{
		"pass": {
			[]string{`{"Action":"pass",` + pkg + `,"Test":"TestA"}`, `{"Action":"pass",` + pkg + `}`},
			tally{passed: 1}, "",
		},
		"a package fails with its test": {
			[]string{
				`{"Action":"output",` + pkg + `,"Test":"TestA","Output":"want 1\n"}`,
				`{"Action":"fail",` + pkg + `,"Test":"TestA"}`,
				`{"Action":"fail",` + pkg + `}`,
			},
			tally{failed: 1}, "--- sdk/x TestA\nwant 1\n",
		},
		"a package dies outside of its tests": {
			[]string{
				`{"Action":"pass",` + pkg + `,"Test":"TestA"}`,
				`{"Action":"output",` + pkg + `,"Output":"goroutine leak\n"}`,
				`{"Action":"fail",` + pkg + `}`,
			},
			tally{passed: 1, failed: 1}, "--- sdk/x\ngoroutine leak\n",
		},
		"a package does not build": {
			[]string{
				`{"ImportPath":"x.test","Action":"build-output","Output":"undefined: y\n"}`,
				`{"ImportPath":"x.test","Action":"build-fail"}`,
				`{"Action":"fail",` + pkg + `,"FailedBuild":"x.test"}`,
			},
			tally{failed: 1}, "--- sdk/x\nundefined: y\n",
		},
		"a listed skip": {
			[]string{`{"Action":"skip",` + pkg + `,"Test":"TestListed"}`},
			tally{skipped: 1}, "",
		},
		"a skip that nobody allowed": {
			[]string{`{"Action":"skip",` + pkg + `,"Test":"TestA"}`},
			tally{failed: 1}, "sdk/x TestA was skipped and is not in test/skips.txt\n",
		},
		"a package without tests":  {[]string{`{"Action":"skip",` + pkg + `}`}, tally{}, ""},
		"what is not from go test": {[]string{"panic: no space left"}, tally{}, "panic: no space left\n"},
		"output of a test that passed": {
			[]string{
				`{"Action":"output",` + pkg + `,"Test":"TestA","Output":"noise\n"}`,
				`{"Action":"pass",` + pkg + `,"Test":"TestA"}`,
			},
			tally{passed: 1}, "",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			s := &shop{out: &out, skips: map[string]bool{"sdk/x TestListed": true}}
			text := strings.Join(test.events, "\n") + "\n"
			if _, err := s.count(bufio.NewReader(strings.NewReader(text))); err != nil {
				t.Fatal(err)
			}
			if s.tally != test.want {
				t.Errorf("counted %v, want %v", s.tally, test.want)
			}
			if test.says == "" && out.Len() > 0 || !strings.Contains(out.String(), test.says) {
				t.Errorf("told %q, want %q", out.String(), test.says)
			}
		})
	}
}

func TestReadSkips(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		text string
		want map[string]bool // nil where the file is refused
	}{
		"entry and comment": {"# why\n\nsdk/x  TestA # no IPv6\n", map[string]bool{"sdk/x TestA": true}},
		"no reason":         {"sdk/x TestA\n", nil},
		"empty reason":      {"sdk/x TestA #\n", nil},
		"no test":           {"sdk/x # all of it\n", nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "skips.txt")
			if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := readSkips(path)
			if (err != nil) != (test.want == nil) {
				t.Fatalf("readSkips = %v, %v", got, err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPerform(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		err  error
		want tally
		ran  bool
		line string
	}{
		"ok":      {nil, tally{}, true, "tier x: ok 0 s\n"},
		"not run": {notRun("the database is old"), tally{}, false, "tier x: not run 0 s: the database is old\n"},
		"cannot run": {
			errors.New("no compiler"), tally{failed: 1}, true,
			"tier x: FAIL 0 s: no compiler\n  again: scripts/test.sh x; without it: ROWHOUSE_TEST_WITHOUT=x\n",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			got, ran := perform(t.Context(), &out, tier{
				name: "x", run: func(context.Context, *shop) error { return test.err },
			}, nil)
			if got != test.want || ran != test.ran || out.String() != test.line {
				t.Errorf("perform = %v, %t, printed %q; want %v, %t, %q", got, ran, out.String(), test.want, test.ran, test.line)
			}
		})
	}
}

func TestChoose(t *testing.T) {
	all := []tier{{name: "unit"}, {name: "race"}, {name: "fuzz", long: true}}
	tests := map[string]struct {
		long         bool
		names        []string
		off          string
		chosen, left string // chosen "" where the choice is refused
	}{
		"all that is not long": {chosen: "unit race"},
		"long":                 {long: true, chosen: "unit race fuzz"},
		"one":                  {names: []string{"race"}, chosen: "race", left: "unit"},
		"a long one by name":   {names: []string{"fuzz"}, chosen: "fuzz", left: "unit race"},
		"left out":             {off: "race,fuzz", chosen: "unit", left: "race"},
		"unknown":              {names: []string{"rice"}},
		"unknown left out":     {off: "rice"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Setenv(without, test.off)
			chosen, left, err := choose(all, test.long, test.names)
			names := make([]string, len(chosen))
			for i, c := range chosen {
				names[i] = c.name
			}
			if got := strings.Join(names, " "); got != test.chosen || (err != nil) != (test.chosen == "") {
				t.Errorf("chose %q, %v; want %q", got, err, test.chosen)
			}
			if got := strings.Join(left, " "); got != test.left {
				t.Errorf("left out %q, want %q", got, test.left)
			}
		})
	}
}

// A clone without the commit before compares nothing, and has to say so.
func TestPastProtos(t *testing.T) {
	full, shallow := filepath.Join(t.TempDir(), "full"), filepath.Join(t.TempDir(), "shallow")
	git := func(dir string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir, "-c", "user.name=x", "-c", "user.email=x@x"}, args...)...)
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, text)
		}
	}
	protos := filepath.Join(full, "proto", "rowhouse")
	if err := os.MkdirAll(protos, 0o700); err != nil {
		t.Fatal(err)
	}
	git(full, "init", "-q")
	for _, text := range []string{"one", "two"} {
		if err := os.WriteFile(filepath.Join(protos, "x.proto"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		git(full, "add", "-A")
		git(full, "commit", "-q", "-m", text)
	}
	git(full, "clone", "-q", "--depth=1", "file://"+full, shallow)
	for dir, want := range map[string]int{full: 1, shallow: 0, t.TempDir(): 0} {
		t.Chdir(dir)
		pasts, err := pastProtos(t.Context(), &shop{out: io.Discard})
		var not notRun
		if len(pasts) != want || errors.As(err, &not) != (want == 0) {
			t.Errorf("%s: %v, %v; want %d", dir, pasts, err, want)
		}
	}
	t.Chdir(shallow)
	if err := os.WriteFile("proto/baseline.binpb", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if pasts, err := pastProtos(t.Context(), &shop{out: io.Discard}); err != nil || len(pasts) != 1 {
		t.Errorf("with a baseline: %v, %v", pasts, err)
	}
}

func TestVulnSilence(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 8, 0, 0, 0, 0, time.UTC)
	tests := map[string]struct {
		files map[string]string
		ok    bool
		why   string // of not being ok; "" where the database is broken
	}{
		"no database":  {nil, false, ""},
		"no date":      {map[string]string{"index/db.json": `{"modified":"0001-01-01T00:00:00Z"}`}, false, "of which day"},
		"seven days":   {map[string]string{"index/db.json": `{"modified":"2026-03-01T00:00:00Z"}`}, true, ""},
		"older":        {map[string]string{"index/db.json": `{"modified":"2026-02-28T23:59:59Z"}`}, false, "known on 2026-02-28"},
		"DATE":         {map[string]string{"index/db.json": `{}`, "DATE": "2026-03-01\n"}, true, ""},
		"older DATE":   {map[string]string{"index/db.json": `{}`, "DATE": "2026-02-28\n"}, false, "known on 2026-02-28"},
		"no day":       {map[string]string{"index/db.json": `{}`, "DATE": "March\n"}, false, ""},
		"broken index": {map[string]string{"index/db.json": `{`}, false, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "index"), 0o700); err != nil {
				t.Fatal(err)
			}
			for file, text := range test.files {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			of, err := vulnDate(dir)
			if err == nil {
				err = vulnSilence(of, now)
			}
			var not notRun
			switch stayed := errors.As(err, &not); {
			case test.ok && err != nil:
				t.Errorf("%v, want ok", err)
			case !test.ok && test.why == "" && (err == nil || stayed):
				t.Errorf("%v, want a failure", err)
			case test.why != "" && (!stayed || !strings.Contains(err.Error(), test.why)):
				t.Errorf("%v, want: %s", err, test.why)
			}
		})
	}
}
