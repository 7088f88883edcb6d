package catalog_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/catalog"
)

var write = flag.Bool("write", false, "write the golden files anew")

// sample is a report with all that the outputs have to show.
func sample() catalog.Report {
	var rules []catalog.Rule
	for _, id := range []string{"R02", "R10", "R21", "R24"} {
		r, _ := catalog.RuleOf(id)
		rules = append(rules, r)
	}
	return catalog.Report{
		Database: "notes", Server: "15.18", Rung: "L2a", Rules: rules,
		Findings: []catalog.Finding{
			{Rule: "R02", Severity: catalog.Error, Object: `app."Note <&> 1"`, Message: "row security is not forced on the owner",
				Mend: `ALTER TABLE app."Note <&> 1" FORCE ROW LEVEL SECURITY;`},
			{Rule: "R24", Severity: catalog.Warning, Object: "app.\"s\x1b[2J\u202e\"", Message: "the app may use a sequence", Mend: "REVOKE 1;"},
			{Rule: "R10", Severity: catalog.Note, Object: "app.note index app.u", Message: "a unique index lacks the tenant column"},
			{Rule: "R21", Severity: catalog.Error, Object: "set_config(text,text,boolean)", Message: "the app may call it", Mend: "REVOKE 2;", Accepted: "asked for"},
		},
	}
}

func golden(t *testing.T, name string, to func(io.Writer) error) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := to(&b); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join("testdata", name)
	if *write {
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("%s (write it anew with -write)\n%s", file, diff)
	}
	return b.Bytes()
}

func TestText(t *testing.T) {
	t.Parallel()
	text := golden(t, "report.txt", sample().WriteText)
	if bytes.ContainsAny(text, "\x1b\u202e") {
		t.Error("a name in the database moves the terminal")
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	var got struct {
		Findings                          []catalog.Finding
		Rules, Errors, Warnings, Accepted int
	}
	if err := json.Unmarshal(golden(t, "report.json", sample().WriteJSON), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sample().Findings, got.Findings); diff != "" || got.Errors != 1 || got.Warnings != 1 || got.Accepted != 1 || got.Rules != 4 {
		t.Errorf("%+v %s", got, diff)
	}
	var b bytes.Buffer
	if err := (catalog.Report{}).WriteJSON(&b); err != nil || !strings.Contains(b.String(), `"findings": []`) {
		t.Errorf("nothing found: %s, %v", b.String(), err)
	}
}

// What SARIF 2.1.0 demands, and what code hosts demand besides.
func TestSARIF(t *testing.T) {
	t.Parallel()
	var empty bytes.Buffer
	if err := (catalog.Report{}).WriteSARIF(&empty); err != nil || !strings.Contains(empty.String(), `"results": []`) { // null means that nothing was looked for
		t.Errorf("nothing found: %s, %v", empty.String(), err)
	}
	var log struct {
		Version string
		Runs    []struct {
			Tool struct {
				Driver struct {
					Name  string
					Rules []struct {
						ID, Name             string
						ShortDescription     struct{ Text string }
						DefaultConfiguration struct{ Level string }
					}
				}
			}
			Results []struct {
				RuleID              string
				RuleIndex           int
				Level               string
				Message             struct{ Text string }
				Suppressions        []struct{ Kind string }
				PartialFingerprints map[string]string
				Locations           []struct {
					PhysicalLocation struct {
						ArtifactLocation struct{ URI string }
						Region           struct{ StartLine int }
					}
				}
			}
		}
	}
	if err := json.Unmarshal(golden(t, "report.sarif", sample().WriteSARIF), &log); err != nil {
		t.Fatal(err)
	}
	if log.Version != "2.1.0" || len(log.Runs) != 1 || log.Runs[0].Tool.Driver.Name == "" {
		t.Fatalf("version %q, %d runs", log.Version, len(log.Runs))
	}
	run, levels := log.Runs[0], []string{"none", "note", "warning", "error"}
	prints := map[string]bool{}
	for i, r := range run.Results {
		rule, from := run.Tool.Driver.Rules[r.RuleIndex], sample().Findings[i]
		if rule.ID != r.RuleID || r.RuleID != from.Rule || !slices.Contains(levels, r.Level) || r.Level != string(from.Severity) || r.Message.Text == "" {
			t.Errorf("%+v of %+v", r, rule)
		}
		if rule.ShortDescription.Text == "" || !slices.Contains(levels, rule.DefaultConfiguration.Level) || !regexp.MustCompile(`^\w+$`).MatchString(rule.Name) {
			t.Errorf("%+v", rule)
		}
		place := r.Locations[0].PhysicalLocation
		if u, err := url.Parse(place.ArtifactLocation.URI); err != nil || u.IsAbs() || place.Region.StartLine < 1 {
			t.Errorf("location %+v, %v", place, err)
		}
		if (from.Accepted != "") != (len(r.Suppressions) == 1 && r.Suppressions[0].Kind == "external") {
			t.Errorf("%s has the suppressions %+v", r.RuleID, r.Suppressions)
		}
		for _, sum := range r.PartialFingerprints {
			prints[sum] = true
		}
	}
	if len(prints) != len(sample().Findings) {
		t.Errorf("%d fingerprints of %d findings", len(prints), len(sample().Findings))
	}
}

// Floors close every hole in the table, and the table is one of R32's majors.
func TestFloorsCloseAdvisories(t *testing.T) {
	t.Parallel()
	for _, a := range catalog.Advisories() {
		for major, minor := range a.Fixed {
			if floor, known := catalog.Floors()[major]; !known || floor < minor {
				t.Errorf("%s was fixed in %d.%d, the floor is %d.%d", a.CVE, major, minor, major, floor)
			}
		}
	}
}

func TestRulesAreDescribed(t *testing.T) {
	t.Parallel()
	last := ""
	for _, r := range catalog.Rules() {
		if r.ID <= last || r.Title == "" || !strings.HasSuffix(r.Description, ".") || r.Severity != catalog.Error && r.Severity != catalog.Warning || r.Area == "" {
			t.Errorf("%+v after %s", r, last)
		}
		last = r.ID
	}
}
