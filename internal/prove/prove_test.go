package prove_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/internal/prove"
)

func noon() time.Time { return time.Date(2026, 7, 1, 12, 0, 0, 0, time.FixedZone("far", 3600)) }

// check makes a check that ends with these lines.
func check(id string, err error, lines ...prove.Status) prove.Check {
	return prove.Check{About: prove.About{ID: id, Title: "title of " + id}, Run: func(context.Context) (prove.Outcome, error) {
		var o prove.Outcome
		for _, s := range lines {
			o.Lines = append(o.Lines, prove.Line{Name: "line", Status: s})
		}
		return o, err
	}}
}

func TestVerdict(t *testing.T) {
	t.Parallel()
	blind := errors.New("no server")
	good, bad, half := check("a", nil, prove.Pass), check("b", nil, prove.Pass, prove.Fail), check("c", nil, prove.Pass, prove.NotRun)
	dark, none, lacks := check("d", blind), check("e", nil), prove.Check{About: prove.About{ID: "f"}, Missing: "no program"}
	for name, test := range map[string]struct {
		checks        []prove.Check
		only, require []string
		want          prove.Status
		missing       []string
	}{
		"all passed":                    {checks: []prove.Check{good}, want: prove.Pass},
		"one failed":                    {checks: []prove.Check{good, bad}, want: prove.Fail},
		"a line did not run":            {checks: []prove.Check{good, half}, want: prove.Incomplete, missing: []string{"c"}},
		"it could not look":             {checks: []prove.Check{good, dark}, want: prove.Incomplete, missing: []string{"d"}},
		"there was nothing":             {checks: []prove.Check{good, none}, want: prove.Incomplete, missing: []string{"e"}},
		"it cannot run":                 {checks: []prove.Check{good, lacks}, want: prove.Incomplete, missing: []string{"f"}},
		"no checks at all":              {want: prove.Incomplete},
		"failed and did not run":        {checks: []prove.Check{bad, dark}, want: prove.Fail, missing: []string{"d"}},
		"failed, then could not look":   {checks: []prove.Check{check("g", blind, prove.Fail)}, want: prove.Fail},
		"passed, then could not look":   {checks: []prove.Check{check("g", blind, prove.Pass)}, want: prove.Incomplete, missing: []string{"g"}},
		"what did not run is optional":  {checks: []prove.Check{good, dark}, require: []string{"a"}, want: prove.Pass},
		"what did not run is required":  {checks: []prove.Check{good, dark}, require: []string{"d"}, want: prove.Incomplete, missing: []string{"d"}},
		"what failed is not required":   {checks: []prove.Check{good, bad}, require: []string{"a"}, want: prove.Fail},
		"only one":                      {checks: []prove.Check{good, bad}, only: []string{"a"}, want: prove.Pass},
		"only one, another is required": {checks: []prove.Check{good, bad}, only: []string{"a"}, require: []string{"b"}, want: prove.Incomplete, missing: []string{"b"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := prove.Run(t.Context(), prove.Options{Checks: test.checks, Only: test.only, Require: test.require})
			if err != nil {
				t.Fatal(err)
			}
			if r.Verdict != test.want || !slices.Equal(r.Missing, test.missing) {
				t.Errorf("verdict %s, missing %q; want %s, %q", r.Verdict, r.Missing, test.want, test.missing)
			}
			if said := r.Says(); !strings.HasPrefix(said, strings.ToUpper(string(test.want))+": ") {
				t.Errorf("it says %q", said)
			}
		})
	}
}

// A pass does not hide the risks that somebody took.
func TestAcceptedRisksAreCounted(t *testing.T) {
	t.Parallel()
	c := check("a", nil)
	c.Run = func(context.Context) (prove.Outcome, error) {
		risk := prove.Finding{Rule: "R40", Severity: "accepted"}
		return prove.Outcome{Lines: []prove.Line{
			{Name: "one", Status: prove.Pass, Findings: []prove.Finding{risk, risk, {Rule: "R12", Severity: "warning"}}},
			{Name: "two", Status: prove.Pass, Findings: []prove.Finding{risk}},
		}}, nil
	}
	r, err := prove.Run(t.Context(), prove.Options{Checks: []prove.Check{c}})
	if err != nil || r.Sections[0].Reason != "2 of 2 passed, accepted risks: 3" || !strings.HasSuffix(r.Says(), "Accepted risks: 3.") {
		t.Errorf("%v, %q, %q", err, r.Sections[0].Reason, r.Says())
	}
}

func TestRunRefusesUnknownSections(t *testing.T) {
	t.Parallel()
	for _, o := range []prove.Options{{Only: []string{"b"}}, {Require: []string{"b"}}} {
		o.Checks = []prove.Check{check("a", nil, prove.Pass)}
		if _, err := prove.Run(t.Context(), o); !errors.Is(err, prove.ErrNoCheck) || !strings.Contains(err.Error(), "there are a") {
			t.Errorf("error %v", err)
		}
	}
}

// An interrupted run says so, and is no pass.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := prove.Run(ctx, prove.Options{Checks: []prove.Check{check("a", nil, prove.Pass)}})
	if err != nil || r.Verdict != prove.Incomplete || r.Sections[0].Reason != "interrupted" {
		t.Errorf("error %v, report %+v", err, r)
	}
}

// hostile is what a database could be full of.
const hostile = "x</td><script>alert(1)</script>\x1b[2J\u202e\n\"'&"

// sample is a report with one of everything.
func sample(t *testing.T, secrets ...string) *prove.Report {
	t.Helper()
	full := prove.Check{
		About: prove.About{ID: "full", Title: "All is well", Shows: "that it is", Limits: "that it stays", Threats: []string{"A1"}},
		Run: func(context.Context) (prove.Outcome, error) {
			return prove.Outcome{
				Lines: []prove.Line{
					{Name: "database " + hostile, Status: prove.Pass, Result: "2 rules", Repeat: "rowhouse prove --only full"},
					{Name: "other", Status: prove.Fail, Result: "broken by hunter2!", Findings: []prove.Finding{
						{Rule: "R02", Severity: "error", Object: "app." + hostile, Message: "not forced", Mend: "ALTER TABLE " + hostile},
					}},
				},
				Tables:   []prove.Table{{Title: "side by side", Head: []string{"attack", "result"}, Rows: [][]prove.Cell{{{Text: hostile}, {Text: "refused", Mark: prove.Held}}}}},
				Programs: []prove.Program{{Name: "zlint", Version: "2"}, {Name: "alint", Version: "1"}, {Name: "alint", Version: "1"}},
				Inputs:   []prove.Input{{Name: "b.sql", SHA256: "22"}, {Name: "a.sql", SHA256: "11"}},
			}, nil
		},
	}
	r, err := prove.Run(t.Context(), prove.Options{
		Checks: []prove.Check{full, {About: prove.About{ID: "absent", Title: "Nobody knows"}, Missing: "no program"}},
		Clock:  noon, Secrets: hidden(secrets), Challenge: "c-1", Command: "rowhouse prove", Subject: "a test",
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range r.Programs { // the test's own binary is another each time
		if r.Programs[i].Name == "rowhouse" {
			r.Programs[i] = prove.Program{Name: "rowhouse", Version: "v1"}
		}
	}
	return r
}

func hidden(texts []string) *prove.Secrets {
	s := new(prove.Secrets)
	s.Add(texts...)
	return s
}

func render(t *testing.T, r *prove.Report) map[string]string {
	t.Helper()
	files, err := r.Files()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, f := range files {
		all[f.Name] = string(f.Data)
	}
	return all
}

func TestText(t *testing.T) {
	t.Parallel()
	want := `rowhouse prove: FAIL

  subject    a test
  time       2026-07-01T11:00:00Z
  command    rowhouse prove
  challenge  c-1
  program    alint 1
  program    rowhouse v1
  program    zlint 2

  fail     full       All is well: 1 of 2 failed
  not run  absent     Nobody knows: no program

full: All is well
-----------------
Shows: that it is
Does not show: that it stays
About: A1

  pass     database x</td><script>alert(1)</script>\u001b[2J\u202e\n"'&: 2 rules
           repeat: rowhouse prove --only full

  fail     other: broken by hunter2!
           error R02 app.x</td><script>alert(1)</script>\u001b[2J\u202e\n"'&: not forced
             mend: ALTER TABLE x</td><script>alert(1)</script>\u001b[2J\u202e\n"'&

  side by side

  attack                                               result
  x</td><script>alert(1)</script>\u001b[2J\u202e\n"'&  refused

absent: Nobody knows
--------------------
Not run: no program

the words
---------
A0: A mistake: a query without its filter, a call without its tenant, state left on a pooled
connection.
A1: Somebody who injects into one SQL statement.
A2: Somebody who sends any SQL as the application: a stolen password, a hostile dependency.
A3: Somebody who runs code in the product service: they reach the tenants it serves, while their
contexts live, and no others.
Shared, schema, database: Where a tenant's rows live: in tables that tenants share, in a schema or
in a database of its own.
Usual recipe: Row security that trusts a plain setting: what tutorials show. It is attacked beside
ours for comparison.
L2a, L2b: The rungs: how the database verifies the tenant by a seal that no product service can
make: in each policy (L2a), or once a transaction, kept where the application cannot write (L2b).
Accepted: A finding that is a risk which somebody took, by the command line, or one that is written
down in the product's documents.
Control: The same attacks where nothing holds them. One that catches nothing there shows nothing
elsewhere, and fails.

inputs, by SHA-256
------------------
  11  a.sql
  22  b.sql

verdict
-------
FAIL: at least one defence does not hold, or could be passed. Of 2 sections 0 passed, 1 failed, 1
did not run.
`
	if diff := cmp.Diff(want, render(t, sample(t))["report.txt"]); diff != "" {
		t.Errorf("the text differs (-want +got):\n%s", diff)
	}
}

func TestJSONKeepsAll(t *testing.T) {
	t.Parallel()
	r := sample(t)
	var back prove.Report
	if err := json.Unmarshal([]byte(render(t, r)["report.json"]), &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(*r, back); diff != "" {
		t.Errorf("JSON loses something (-report +read):\n%s", diff)
	}
	if strings.Contains(render(t, r)["report.json"], "null") {
		t.Error("a list is null")
	}
}

// The page needs nothing else, runs nothing, and shows what databases hold as text.
func TestHTMLIsInert(t *testing.T) {
	t.Parallel()
	page := render(t, sample(t))["report.html"]
	for _, bad := range []string{"<script", "<img", "<link", "<iframe", "src=", "url(", "@import", "javascript:", "\x1b", "\u202e", "onload", "ZgotmplZ"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page contains %q", bad)
		}
	}
	for _, want := range []string{
		"<!doctype html>", `<html lang="en">`, "default-src 'none'", `href="#full"`, `id="full"`, "&lt;script&gt;", `class="status fail"`, `class="held"`,
		"FAIL: at least one defence", "Not run:", "2026-07-01T11:00:00Z", "rowhouse prove --only full",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if again := render(t, sample(t))["report.html"]; again != page {
		t.Error("the same report gives another page")
	}
}

// Text stands out from what is behind it as WCAG 2 asks for at level AA, in light, dark and print.
func TestHTMLContrast(t *testing.T) {
	t.Parallel()
	palettes := regexp.MustCompile(`(?s):root \{(.*?)\}`).FindAllStringSubmatch(prove.Page(), -1)
	const schemes, enough = 3, 4.5
	if len(palettes) != schemes {
		t.Fatalf("%d palettes, want %d", len(palettes), schemes)
	}
	for i, p := range palettes {
		colours := map[string]float64{}
		for _, c := range regexp.MustCompile(`--(\w+): #([0-9a-f]{3,6});`).FindAllStringSubmatch(p[1], -1) {
			colours[c[1]] = luminance(t, c[2])
		}
		for _, ink := range []string{"ink", "soft", "pass", "fail", "open", "link"} {
			for _, behind := range []string{"paper", "panel"} {
				a, b := colours[ink], colours[behind]
				if ratio := (max(a, b) + 0.05) / (min(a, b) + 0.05); ratio < enough {
					t.Errorf("palette %d: %s on %s has a contrast of %.1f", i, ink, behind, ratio)
				}
			}
		}
	}
}

func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	if len(hex) == 3 {
		hex = string([]byte{hex[0], hex[0], hex[1], hex[1], hex[2], hex[2]})
	}
	n, err := strconv.ParseUint(hex, 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for i, weight := range []float64{0.0722, 0.7152, 0.2126} {
		c := float64(n>>(8*i)&0xff) / 255
		if c <= 0.04045 {
			c /= 12.92
		} else {
			c = math.Pow((c+0.055)/1.055, 2.4)
		}
		sum += weight * c
	}
	return sum
}

// A secret is in no file, even where a check was careless, and no password changes a verdict.
func TestSecretsAreRemoved(t *testing.T) {
	t.Parallel()
	r := sample(t, "hunter2", "fail", "", "x")
	if r.Verdict != prove.Fail || r.Sections[0].Status != prove.Fail {
		t.Errorf("verdict %s, section %s", r.Verdict, r.Sections[0].Status)
	}
	for name, text := range render(t, r) {
		if strings.Contains(text, "hunter2") || !strings.Contains(text, "broken by [removed]!") {
			t.Errorf("%s: the secret is there, or nothing stands in its place", name)
		}
	}
}
