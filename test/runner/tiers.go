package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// A tier is one check, or several that belong together.
type tier struct {
	name string
	long bool // only when asked for by -long or by name
	run  func(context.Context, *shop) error
}

// limit is a bound against hanging, not a budget.
func (t tier) limit() time.Duration {
	if t.long || longTests() {
		return 2 * time.Hour
	}
	return 25 * time.Minute
}

// longTests reports whether tests run in their full length, as with make test-long.
func longTests() bool { return os.Getenv("ROWHOUSE_TEST_LONG") != "" }

// tiers lists all checks; the cheap ones and those that fail most often come first.
func tiers() []tier {
	return []tier{
		{name: "licences", run: licences},
		{name: "generate", run: generate},
		{name: "proto", run: proto},
		{name: "breaking", run: breaking},
		{name: "vet", run: vet},
		{name: "unit", run: unit},
		{name: "peers", run: peers},
		{name: "lint", run: lint},
		{name: "race", run: race},
		{name: "vuln", run: vuln},
		{name: "release", long: true, run: release},
		{name: "race-all", long: true, run: raceAll},
		{name: "fuzz", long: true, run: fuzz},
		{name: "images", long: true, run: images},
	}
}

// raced is what runs under the race detector in every run: what other people's goroutines share.
func raced() []string {
	return []string{
		"./sdk/tenant", "./sdk/tenantgrpc", "./sdk/tenantdb", "./sdk/feed", "./sdk/limits", "./services/gateway/...",
		"./sdk/settings", "./sdk/flags/...",
	}
}

// raceless are tests of one goroutine that compute for minutes under the race detector; race-all has them.
const raceless = "^(TestEffectiveEqualsNaive|TestParseAgreesWithEncodingJSON|TestSidesGrow|" +
	"TestAnyInterleavingEqualsFresh|TestTenantsShareWhatDoesNotDiffer)$"

func licences(ctx context.Context, s *shop) error {
	return s.command(ctx, "go", "run", "./test/licences")
}

// generate shows that gen/ is what proto/ makes.
func generate(ctx context.Context, s *shop) error {
	buf, err := s.tool(ctx, "buf")
	if err != nil {
		return err
	}
	fresh, err := os.MkdirTemp("", "rowhouse-gen-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(fresh)
	if err := s.command(ctx, buf, "generate", "-o", fresh); err != nil {
		return err
	}
	if err := s.command(ctx, "diff", "-r", "-q", "gen", filepath.Join(fresh, "gen")); err != nil {
		return fmt.Errorf("gen/ is not what proto/ makes, run make generate: %w", err)
	}
	return nil
}

// proto holds the protos against the lint rules and the format.
func proto(ctx context.Context, s *shop) error {
	buf, err := s.tool(ctx, "buf")
	if err != nil {
		return err
	}
	return errors.Join(
		s.command(ctx, buf, "lint"),
		s.command(ctx, buf, "format", "proto", "-d", "--exit-code"),
	)
}

// breaking holds the protos against the commit before and the last release.
func breaking(ctx context.Context, s *shop) error {
	pasts, err := pastProtos(ctx, s)
	if err != nil {
		return err
	}
	buf, err := s.tool(ctx, "buf")
	if err != nil {
		return err
	}
	var errs []error
	for _, past := range pasts {
		errs = append(errs, s.command(ctx, buf, append([]string{"breaking"}, past...)...))
	}
	return errors.Join(errs...)
}

// pastProtos returns the arguments of each comparison of the protos with older ones. It returns a notRun when there are
// none.
func pastProtos(ctx context.Context, s *shop) ([][]string, error) {
	var pasts [][]string
	if s.command(ctx, "git", "cat-file", "-e", "HEAD~1:proto/rowhouse") == nil {
		pasts = append(pasts, []string{"--against", ".git#ref=HEAD~1"})
	}
	const baseline = "proto/baseline.binpb"
	if _, err := os.Stat(baseline); err == nil {
		pasts = append(pasts, []string{"proto", "--against", baseline})
	}
	if len(pasts) == 0 {
		return nil, notRun("there are no older protos: this is no git clone, its first commit, or a shallow one; " +
			"git fetch --deepen=1 gets the commit before")
	}
	return pasts, nil
}

// vet looks at all modules: what builds our images is in tools, what we are compared with in bench/peers.
func vet(ctx context.Context, s *shop) error {
	return errors.Join(
		s.command(ctx, "go", "vet", "./..."),
		s.command(ctx, "go", "vet", "-C", "tools", "./..."),
		s.command(ctx, "go", "vet", "-C", peersModule, "./..."),
	)
}

// release runs the tests of what builds our images, but for the builds, which the tier images has.
func release(ctx context.Context, s *shop) error {
	return s.command(ctx, "go", "test", "-C", "tools", "-count=1", "-skip=^TestReproducible$", "./release")
}

func lint(ctx context.Context, s *shop) error {
	golangci, err := s.tool(ctx, "golangci-lint")
	if err != nil {
		return err
	}
	return s.command(ctx, golangci, "run", "--allow-parallel-runners", "./...")
}

func unit(ctx context.Context, s *shop) error {
	return s.tests(ctx, "-shuffle=on", "./...")
}

// peersModule holds what we are compared with, which is to be no dependency of ours.
const peersModule = "bench/peers"

// peers compares answers with those of other systems.
func peers(ctx context.Context, s *shop) error {
	if longTests() {
		const scripts = peersModule + "/providers/js"
		if err := s.command(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", scripts); err != nil {
			return err
		}
	}
	return s.testsIn(ctx, peersModule, "./...")
}

func race(ctx context.Context, s *shop) error {
	for _, pattern := range raced() { // go test only warns of a pattern without packages
		found, err := s.output(ctx, "go", "list", pattern)
		if err != nil || found == "" {
			return fmt.Errorf("no package matches %s", pattern)
		}
	}
	return s.tests(ctx, append([]string{"-race", "-shuffle=on", "-skip=" + raceless}, raced()...)...)
}

func raceAll(ctx context.Context, s *shop) error {
	return s.tests(ctx, "-race", "-shuffle=on", "./...")
}

// fuzz gives each fuzz test half a minute.
func fuzz(ctx context.Context, s *shop) error {
	const format = `{{$p := .ImportPath}}{{range .TestGoFiles}}{{$p}} {{$.Dir}}/{{.}}{{"\n"}}{{end}}` +
		`{{range .XTestGoFiles}}{{$p}} {{$.Dir}}/{{.}}{{"\n"}}{{end}}`
	list, err := s.output(ctx, "go", "list", "-f", format, "./...")
	if err != nil {
		return err
	}
	fuzzTest := regexp.MustCompile(`(?m)^func (Fuzz\w+)\(`)
	var errs []error
	for line := range strings.Lines(list) {
		pkg, file, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for _, match := range fuzzTest.FindAllSubmatch(text, -1) {
			errs = append(errs, s.tests(ctx, "-run=^$", "-fuzz=^"+string(match[1])+"$", "-fuzztime=30s", pkg))
		}
	}
	if len(errs) == 0 {
		return errors.New("there is no fuzz test")
	}
	return errors.Join(errs...)
}

// images builds the container image in two places and compares.
func images(ctx context.Context, s *shop) error {
	return s.command(ctx, "go", "test", "-C", "tools", "-count=1", "./release")
}

// vulnAge is how old the vulnerability database may be for its silence to mean something.
const vulnAge = 7 * 24 * time.Hour

// vuln looks for known vulnerabilities in what the code calls, by the database that ROWHOUSE_VULNDB names or else the
// one in third_party. What an old one knows fails the tier; its silence is no ok, which stops a release, not a merge.
func vuln(ctx context.Context, s *shop) error {
	dir := os.Getenv("ROWHOUSE_VULNDB")
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "rowhouse-vulndb-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		if err := s.command(ctx, "tar", "-xzf", filepath.Join("third_party", "vulndb", "vulndb.tgz"), "-C", dir); err != nil {
			return err
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	of, err := vulnDate(dir)
	if err != nil {
		return fmt.Errorf("read the date of the vulnerability database: %w", err)
	}
	govulncheck, err := s.tool(ctx, "govulncheck")
	if err != nil {
		return err
	}
	if err := s.command(ctx, govulncheck, "-db", "file://"+dir, "./..."); err != nil {
		return err
	}
	return vulnSilence(of, time.Now())
}

// vulnSilence returns a notRun when a database of that day is too old, or of no day, for its silence to mean something.
func vulnSilence(of, now time.Time) error {
	switch {
	case of.IsZero():
		return notRun("nothing is known, but the database does not say of which day it is; file DATE in it would")
	case now.Sub(of) > vulnAge:
		return notRun("nothing was known on " + of.Format(time.DateOnly) + "; a database of the last 7 days would say ok")
	default:
		return nil
	}
}

// vulnDate is the day in file DATE of the database, else what its index says, which is nothing in one that was built
// from the source repository.
func vulnDate(dir string) (time.Time, error) {
	text, err := os.ReadFile(filepath.Join(dir, "index", "db.json"))
	if err != nil {
		return time.Time{}, err
	}
	if day, err := os.ReadFile(filepath.Join(dir, "DATE")); err == nil {
		return time.Parse(time.DateOnly, strings.TrimSpace(string(day)))
	}
	var index struct{ Modified time.Time }
	err = json.Unmarshal(text, &index)
	return index.Modified, err
}

// A notRun says why a tier did not run although nothing is wrong with the code.
type notRun string

// Error implements error.
func (n notRun) Error() string { return string(n) }
