package main

import (
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/rowhouse-platform/rowhouse/internal/prove"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
	"github.com/rowhouse-platform/rowhouse/sdk/pgserver"
	"github.com/rowhouse-platform/rowhouse/sdk/pgtest"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
)

const exitIncomplete = 5

// signingKey returns a key to sign with, so that no test needs the user's own.
func signingKey(t *testing.T) (private, public string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "signer")
	if err := keyfile.NewPair(path, rand.Reader); err != nil {
		t.Fatal(err)
	}
	return path + ".key", path + ".pub"
}

// cellDatabase returns a database of a cell with a tenant table, and the file with its DSN.
func cellDatabase(t *testing.T) (admin *pgx.Conn, file string) {
	t.Helper()
	db := pgtest.New(t, pgtest.Template{})
	admin = db.Conn(t, pgserver.Superuser)
	if err := cell.Init(t.Context(), admin, cell.Config{App: "cli-prove"}); err != nil {
		t.Fatal(err)
	}
	table := "SET ROLE rowhouse_owner_cli_prove; CREATE TABLE app.note (tenant_id uuid PRIMARY KEY); SELECT rowhouse.secure('app.note'); RESET ROLE"
	if _, err := admin.Exec(t.Context(), table, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	config, err := pgx.ParseConfig(db.DSN(pgserver.Superuser))
	if err != nil {
		t.Fatal(err)
	}
	// The server asks for no password, but a report that showed one would show this.
	return admin, dsnFile(t, "host="+config.Host+" dbname="+config.Database+" user=postgres password=hunter2secret")
}

// The way of an auditor: a report of a sound database, verified; a fault, and it is red; a
// section that is asked for and did not run, and it is incomplete; a changed file, and it is refused.
func TestProveDatabase(t *testing.T) {
	t.Parallel()
	admin, file := cellDatabase(t)
	private, public := signingKey(t)
	out := filepath.Join(t.TempDir(), "proof")
	run := func(args ...string) (int, string) {
		return rowhouse(t, append([]string{"prove", "--dsn-file", file, "--accept", "R40", "--key", private, "--out", out}, args...)...)
	}
	quick := []string{"--only", "rung,catalog,grants,versions", "--challenge", "of today"}
	code, said := run(quick...)
	if code != 0 || !strings.Contains(said, "PASS: the required sections ran and held: rung, catalog, grants, versions.") {
		t.Fatalf("exit status %d: %s", code, said)
	}
	envelope := filepath.Join(out, "report.dsse.json")
	verify := func(args ...string) (int, string) {
		return rowhouse(t, append([]string{"prove", "verify", envelope, "--public-key", public}, args...)...)
	}
	code, said = verify("--require", "rung,catalog,grants,versions", "--challenge", "of today")
	for _, want := range []string{"signed by key ", "report.html: the signed file", "report.json: the signed file", "PASS: "} {
		if code != 0 || !strings.Contains(said, want) {
			t.Errorf("verify: exit status %d, no %q in: %s", code, want, said)
		}
	}
	// The signer required four sections of nine. Who verifies requires all, unless they say so, and sees nothing that reads like a pass.
	if code, said := verify("--pass"); code != exitFailed || !strings.Contains(said, "did not run shows nothing: sql-lint") ||
		strings.Contains(said, "signed by") || strings.Contains(said, "PASS") {
		t.Errorf("a part passes for the whole: exit status %d: %s", code, said)
	}
	if code, said := verify("--require", "catalog,api", "-o", "text"); code != exitFailed || !strings.Contains(said, "shows nothing: api.") ||
		strings.Contains(said, "PASS") {
		t.Errorf("a section that did not run is required: exit status %d: %s", code, said)
	}
	if code, said := verify(); code != 0 || !strings.Contains(said, "the signer required: rung, catalog, grants, versions\nINCOMPLETE: ") {
		t.Errorf("a part, without a measure: exit status %d: %s", code, said)
	}
	if code, said := verify("--challenge", "of tomorrow"); code != exitFailed || !strings.Contains(said, "challenge") {
		t.Errorf("an old report: exit status %d: %s", code, said)
	}
	if code, said := verify("-o", "json"); code != 0 || said != readFile(t, filepath.Join(out, "report.json")) {
		t.Errorf("the report out of the envelope: exit status %d: %s", code, said)
	}
	for _, name := range []string{"report.txt", "report.json", "report.html", "report.dsse.json"} {
		if text := readFile(t, filepath.Join(out, name)); strings.Contains(text, "hunter2secret") {
			t.Errorf("%s holds the password", name)
		}
	}

	page := filepath.Join(out, "report.html")
	if err := os.WriteFile(page, []byte(readFile(t, page)+" "), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, said := verify(); code != exitFailed || !strings.Contains(said, "report.html is not the signed file") {
		t.Errorf("a changed page: exit status %d: %s", code, said)
	}

	if code, said := run(); code != exitIncomplete || !strings.Contains(said, "INCOMPLETE: nothing failed, but what did not run shows nothing: sql-lint") {
		t.Errorf("what did not run: exit status %d: %s", code, said)
	}
	if code, said := run("--require", "catalog"); code != 0 {
		t.Errorf("what did not run is not required: exit status %d: %s", code, said)
	}

	if _, err := admin.Exec(t.Context(), "ALTER TABLE app.note NO FORCE ROW LEVEL SECURITY"); err != nil {
		t.Fatal(err)
	}
	code, said = run(append(quick, "-o", "json")...)
	said, _, _ = strings.Cut(said, "\nsigned by key ")
	var report prove.Report
	if err := json.Unmarshal([]byte(said), &report); err != nil || code != exitFailed || report.Verdict != prove.Fail {
		t.Errorf("a planted fault: exit status %d, %v: %s", code, err, said)
	}
	if code, said := verify("--pass"); code != exitFailed || !strings.Contains(said, "the report is no pass: FAIL") {
		t.Errorf("a report of a fault: exit status %d: %s", code, said)
	}
	if code, said := verify(); code != 0 || !strings.Contains(said, "FAIL: ") {
		t.Errorf("it is the signed report all the same: exit status %d: %s", code, said)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The report holds the commands that make it, and each line of it, again; and what was given by the environment is
// asked of it again. Who signs nothing gets no key. Not in parallel, for the environment and for the program that it writes.
func TestProveRepeats(t *testing.T) {
	_, file := cellDatabase(t)
	source, state := t.TempDir(), t.TempDir()
	t.Setenv("XDG_STATE_HOME", state)
	for name, text := range map[string]string{"go.mod": "module x\n", "rowlint": "#!/bin/sh\necho '[]'\n"} {
		if err := os.WriteFile(filepath.Join(source, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	sections := "rung,catalog,grants,versions,sql-lint,plan-lint"
	args := []string{"prove", "--dsn-file", file, "--source", source, "--rowlint", filepath.Join(source, "rowlint"), "--packages", "./...",
		"--accept", "R40", "--only", sections, "-o", "json"}
	code, said := rowhouse(t, args...)
	report := parse(t, said)
	if code != 0 || report.Verdict != prove.Pass {
		t.Fatalf("exit status %d: %s", code, said)
	}
	commands := map[string]string{report.Command: sections}
	for _, s := range report.Sections {
		for _, l := range s.Lines {
			commands[l.Repeat] = s.ID
		}
	}
	if len(commands) != 7 {
		t.Errorf("the commands are %q", commands)
	}
	for command, section := range commands {
		code, said := rowhouse(t, append(strings.Fields(command)[1:], "-o", "json")...)
		if again := parse(t, said); code != 0 || again.Verdict != prove.Pass || strings.Join(again.Required, ",") != section {
			t.Errorf("%s: exit status %d: %s", command, code, said)
		}
	}
	if left, err := filepath.Glob(filepath.Join(state, "*", "*")); err != nil || len(left) > 0 {
		t.Errorf("nothing was signed, and there are %q, %v", left, err)
	}

	if code, said := rowhouse(t, "prove", "--out", t.TempDir(), "--only", "catalogue"); code != 2 {
		t.Errorf("no such section: exit status %d: %s", code, said)
	}
	if left, err := filepath.Glob(filepath.Join(state, "*", "*")); err != nil || len(left) > 0 {
		t.Errorf("nothing was done, and there are %q, %v", left, err)
	}

	t.Setenv("ROWHOUSE_CELL_DSN", readFile(t, file))
	out := filepath.Join(t.TempDir(), "proof")
	code, said = rowhouse(t, "prove", "--accept", "R40", "--only", "rung", "--challenge", "of today", "--out", out, "-o", "html")
	report = parse(t, readFile(t, filepath.Join(out, "report.json")))
	const asked = `ROWHOUSE_CELL_DSN="${ROWHOUSE_CELL_DSN:?}" rowhouse prove --only rung --accept R40`
	if want := asked[:strings.LastIndex(asked, " --only")] + " --accept R40 --only rung --challenge 'of today' -o html"; code != 0 || report.Command != want {
		t.Errorf("exit status %d, the command is %q, want %q", code, report.Command, want)
	}
	if got := report.Sections[0].Lines[0].Repeat; got != asked {
		t.Errorf("the line is repeated by %q, want %q", got, asked)
	}
	hint := said[strings.LastIndex(said, "rowhouse prove verify"):]
	if code, said := rowhouse(t, strings.Fields(hint)[1:]...); code != 0 || !strings.Contains(said, "PASS: ") {
		t.Errorf("the hint %q: exit status %d: %s", hint, code, said)
	}
}

func parse(t *testing.T, text string) (report prove.Report) {
	t.Helper()
	text = text[max(0, strings.Index(text, "{\n")):] // behind what it said of its progress
	if err := json.NewDecoder(strings.NewReader(text)).Decode(&report); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return report
}

// The hint names a public key that is there, or how to make it.
func TestProveHintsAtTheKey(t *testing.T) {
	t.Parallel()
	_, file := cellDatabase(t)
	private, public := signingKey(t)
	_, other := signingKey(t)
	for _, test := range []struct {
		name   string
		change func() error
		writes bool
	}{
		{"it is there", func() error { return nil }, false},
		{"it is another's", func() error { return os.WriteFile(public, []byte(readFile(t, other)), 0o600) }, true},
		{"it is not there", func() error { return os.Remove(public) }, true},
	} {
		if err := test.change(); err != nil {
			t.Fatal(err)
		}
		code, said := rowhouse(t, "prove", "--dsn-file", file, "--only", "rung", "--key", private, "--out", filepath.Join(t.TempDir(), "proof"))
		_, command, writes := strings.Cut(said, "write its public key: ")
		if code != 0 || writes != test.writes {
			t.Errorf("%s: exit status %d: %s", test.name, code, said)
		}
		named := strings.Fields(said[strings.LastIndex(said, "--public-key"):])[1]
		if writes != strings.Contains(command, "openssl pkey -in "+private+" -pubout -out "+named+"\n") || (named == public) != (test.name != "it is another's") {
			t.Errorf("%s: %s", test.name, said)
		}
	}
}

// A signed report on the standard output can be verified alone.
func TestProvePrintsEnvelope(t *testing.T) {
	t.Parallel()
	_, file := cellDatabase(t)
	private, public := signingKey(t)
	code, said := rowhouse(t, "prove", "--dsn-file", file, "--accept", "R40", "--key", private, "--only", "rung", "-o", "dsse")
	if code != 0 {
		t.Fatalf("exit status %d: %s", code, said)
	}
	envelope := filepath.Join(t.TempDir(), "alone.json")
	if err := os.WriteFile(envelope, []byte(said), 0o600); err != nil {
		t.Fatal(err)
	}
	code, said = rowhouse(t, "prove", "verify", envelope, "--public-key", public, "--require", "rung")
	if code != 0 || !strings.Contains(said, "report.html: not here") || !strings.Contains(said, "PASS: ") {
		t.Errorf("exit status %d: %s", code, said)
	}
}

// Without a database it proves this release, on a server of its own: the quick sections in
// every run, the attacks as a long test.
func TestProveThisRelease(t *testing.T) {
	t.Parallel()
	sections := "rung,catalog,grants,versions"
	if os.Getenv("ROWHOUSE_TEST_LONG") != "" {
		sections += ",api,corpus,pooler"
	}
	private, _ := signingKey(t)
	out := t.TempDir()
	code, said := rowhouse(t, "prove", "--only", sections, "--key", private, "--out", out, "-o", "json")
	var report prove.Report
	if err := json.Unmarshal([]byte(readFile(t, filepath.Join(out, "report.json"))), &report); err != nil || code != 0 || report.Verdict != prove.Pass {
		t.Fatalf("exit status %d, %v: %s", code, err, said)
	}
	for _, s := range report.Sections {
		if !strings.Contains(sections, s.ID) {
			continue
		}
		if s.Status != prove.Pass || len(s.Lines) < 4 { // two rungs, and shared and dedicated homes
			t.Errorf("%s: %s with %d lines", s.ID, s.Status, len(s.Lines))
		}
		for _, l := range s.Lines {
			if l.Repeat == "" {
				t.Errorf("%s: nobody can repeat %q", s.ID, l.Name)
			}
		}
	}
	said = readFile(t, filepath.Join(out, "report.txt"))
	for _, want := range []string{"t_….note", "L2b: a tenant's own database"} {
		if !strings.Contains(said, want) {
			t.Errorf("the report lacks %q", want)
		}
	}
}

// On a server of others the attacks leave nothing behind, and reach no database that was there.
func TestProveAttacksBesideTenants(t *testing.T) {
	t.Parallel()
	if os.Getenv("ROWHOUSE_TEST_LONG") == "" {
		return // the parts are tested in internal/prove
	}
	admin, file := cellDatabase(t)
	private, _ := signingKey(t)
	code, said := rowhouse(t, "prove", "--dsn-file", file, "--attack", "--only", "catalog,api,corpus,pooler", "--key", private)
	if code != 0 || !strings.Contains(said, "PASS: ") {
		t.Errorf("exit status %d: %s", code, said)
	}
	var left int
	if err := admin.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM pg_database WHERE datname ~ '^prove_(api|corpus|pooler)_l2._x')
	+ (SELECT count(*) FROM pg_roles WHERE rolname ~ '_prove_(api|corpus|pooler)_l2._x')`).Scan(&left); err != nil || left > 0 {
		t.Errorf("%d databases and roles are left, %v", left, err)
	}
}

func TestProveRefuses(t *testing.T) {
	t.Parallel()
	_, file := cellDatabase(t)
	private, public := signingKey(t)
	other, _ := signingKey(t)
	envelope := filepath.Join(t.TempDir(), "report.dsse.json")
	if code, said := rowhouse(t, "prove", "--dsn-file", file, "--key", other, "--only", "rung", "--out", filepath.Dir(envelope)); code != 0 {
		t.Fatalf("exit status %d: %s", code, said)
	}
	for name, test := range map[string]struct {
		args []string
		code int
		says string
	}{
		"no such section":      {[]string{"--dsn-file", file, "--key", private, "--only", "catalogue"}, 2, "there are rung, catalog"},
		"no such requirement":  {[]string{"--dsn-file", file, "--key", private, "--require", "all"}, 2, "no such section"},
		"no such output":       {[]string{"--dsn-file", file, "--key", private, "-o", "pdf"}, 2, "no output"},
		"no such rule":         {[]string{"--dsn-file", file, "--key", private, "--accept", "R99"}, 2, "no rule"},
		"no such key":          {[]string{"--dsn-file", file, "--key", private + ".not"}, 1, "key"},
		"no such file":         {[]string{"--dsn-file", file + ".not", "--key", private}, 2, "read the connection string"},
		"attack on nothing":    {[]string{"--attack", "--key", private}, 2, "--dsn-file"},
		"lint of nothing":      {[]string{"--packages", "./...", "--key", private}, 2, "--source"},
		"no such source":       {[]string{"--source", file + ".not", "--key", private}, 2, "--source: stat"},
		"a source of one file": {[]string{"--source", file, "--key", private}, 2, "is no folder"},
		"a source of no Go":    {[]string{"--source", filepath.Dir(file), "--key", private}, 2, "the folder of go.mod"},
		"no such rowlint":      {[]string{"--source", "../..", "--rowlint", file + ".not", "--key", private}, 2, "--rowlint: stat"},
		"no such lint config":  {[]string{"--source", "../..", "--rowlint-config", "..", "--key", private}, 2, "is no file"},
		"a DSN as argument":    {[]string{"postgres://u:hunter3@h/x"}, 2, "unknown command"},
		"nobody listens": {[]string{"--dsn-file", dsnFile(t, "postgres://u:hunter2@127.0.0.1:1/x"), "--key", private, "--only", "rung"},
			exitIncomplete, "could not look: connect"},
		"verify without a key":   {[]string{"verify", envelope}, 2, "public-key"},
		"verify another's":       {[]string{"verify", envelope, "--public-key", public}, 1, "signature does not hold"},
		"verify nothing":         {[]string{"verify", envelope + ".not", "--public-key", public}, 1, "no such file"},
		"verify in what form":    {[]string{"verify", envelope, "--public-key", public, "-o", "pdf"}, 2, "no output"},
		"verify no such section": {[]string{"verify", envelope, "--public-key", public, "--require", "catalogue"}, 2, "there are rung, catalog"},
		"verify with a bad file": {[]string{"verify", envelope, "--public-key", file}, 1, "no public key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, said := rowhouse(t, append([]string{"prove"}, test.args...)...)
			if code != test.code || !strings.Contains(said, test.says) {
				t.Errorf("exit status %d, want %d with %q: %s", code, test.code, test.says, said)
			}
			if strings.Contains(said, "hunter2") {
				t.Errorf("a password is shown: %s", said)
			}
		})
	}
}
