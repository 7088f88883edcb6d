package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rowhouse-platform/rowhouse/internal/lint"
)

// bad is a program with one finding in Go and one in its migration.
var bad = map[string]string{
	"go.mod": "module example.com/bad\n\ngo 1.26.0\n",
	"x.go": `package bad

import (
	"context"
	"database/sql"
)

func open(ctx context.Context) (*sql.DB, error) { return sql.Open("pgx", "") }
`,
	"migrations/0001_task.sql": "CREATE TABLE app.task (tenant_id uuid NOT NULL, id int NOT NULL, PRIMARY KEY (tenant_id, id));\n",
}

func module(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// rowlint runs the command as main does, from the folder.
func rowlint(t *testing.T, dir string, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = runIn(t.Context(), dir, args, &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

func TestExitStatus(t *testing.T) {
	t.Parallel()
	with := module(t, bad)
	good := module(t, map[string]string{"go.mod": bad["go.mod"], "x.go": "package good\n"})
	tests := map[string]struct {
		dir  string
		args []string
		code int
		says string
	}{
		"findings":            {with, []string{"./..."}, exitFindings, "x.go:8:58: G1: sql.Open reaches PostgreSQL"},
		"findings of SQL":     {with, []string{"--sql", "migrations"}, exitFindings, "migrations/0001_task.sql:1:14: Q1: "},
		"none":                {good, []string{"./..."}, 0, ""},
		"the folder":          {good, nil, 0, ""},
		"no such package":     {good, []string{"./nowhere"}, exitFailed, "nowhere"},
		"no such output":      {good, []string{"-o", "xml"}, exitFailed, `output "xml"`},
		"no such flag":        {good, []string{"--fix"}, exitFailed, "unknown flag"},
		"no SQL":              {good, []string{"--sql", "."}, exitFailed, "holds no *.sql file"},
		"no configuration":    {good, []string{"--config", "none.yaml", "./..."}, exitFailed, "read configuration"},
		"rules":               {good, []string{"rules"}, 0, "Q10  "},
		"help has an example": {good, []string{"--help"}, 0, "-vettool=$(which rowlint)"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, out, errs := rowlint(t, test.dir, test.args...)
			if code != test.code || !strings.Contains(out+errs, test.says) {
				t.Errorf("exit status %d, want %d; printed %q and %q, want %q", code, test.code, out, errs, test.says)
			}
		})
	}
}

func TestConfigurationIsStrict(t *testing.T) {
	t.Parallel()
	for _, config := range []string{"contol: []", "control: [{path: x}]", "apps: [{path: x}]", "control: 7"} {
		dir := module(t, map[string]string{"go.mod": bad["go.mod"], "x.go": "package good\n", lint.ConfigFile: config})
		if code, _, errs := rowlint(t, dir, "./..."); code != exitFailed || !strings.Contains(errs, lint.ConfigFile) {
			t.Errorf("%s: exit status %d, printed %q", config, code, errs)
		}
	}
}

func TestFormats(t *testing.T) {
	t.Parallel()
	dir := module(t, bad)
	var findings []lint.Finding
	code, out, _ := rowlint(t, dir, "-o", "json", "./...")
	if err := json.Unmarshal([]byte(out), &findings); err != nil || code != exitFindings || len(findings) != 2 {
		t.Errorf("JSON: exit status %d, %d findings, error %v: %s", code, len(findings), err, out)
	}
	var sarif struct {
		Version string
		Runs    []struct {
			Tool struct {
				Driver struct {
					Version string
					Rules   []struct{ ID string }
				}
			}
			Results []struct {
				RuleID    string
				RuleIndex int
				Locations []struct {
					PhysicalLocation struct {
						ArtifactLocation struct{ URI string }
						Region           struct{ StartLine int }
					}
				}
			}
		}
	}
	code, out, _ = rowlint(t, dir, "-o", "sarif", "./...")
	if err := json.Unmarshal([]byte(out), &sarif); err != nil || code != exitFindings || sarif.Version != "2.1.0" || len(sarif.Runs) != 1 {
		t.Fatalf("SARIF: exit status %d, error %v: %s", code, err, out)
	}
	said := sarif.Runs[0].Tool.Driver.Version
	if code, out, _ := rowlint(t, dir, "--version"); said == "" || code != 0 || out != "rowlint version "+said+"\n" {
		t.Errorf("SARIF has version %q; --version: exit status %d: %s", said, code, out)
	}
	first := sarif.Runs[0].Results[0]
	at := first.Locations[0].PhysicalLocation
	if at.ArtifactLocation.URI != "migrations/0001_task.sql" || at.Region.StartLine != 1 || first.RuleID != "Q1" ||
		sarif.Runs[0].Tool.Driver.Rules[first.RuleIndex].ID != "Q1" {
		t.Errorf("SARIF: the first result is %+v", first)
	}
}

// TestVetTool builds the command and lets go vet run it.
func TestVetTool(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "rowlint")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	vet := exec.CommandContext(t.Context(), "go", "vet", "-vettool="+binary, "./...")
	vet.Dir = module(t, bad)
	out, err := vet.CombinedOutput()
	if _, failed := errors.AsType[*exec.ExitError](err); !failed || !bytes.Contains(out, []byte("x.go:8:58: G1: ")) {
		t.Errorf("error %v, printed %s", err, out)
	}
}
