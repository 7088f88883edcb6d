package docs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// example is a line that the help of a verb shows.
type example struct {
	noun, verb, line string
}

// stage orders examples so that what one needs another has made before. Within a stage they come as in the help.
func (e example) stage() int {
	switch {
	case e.noun == "config changes" && e.verb == "create":
		return 2 // it is of what is set then
	case e.noun == "config rollouts" && e.verb == "create":
		return 2 // its namespace is made by another example
	case e.verb == "create":
		return 0
	case e.noun == "brand drafts" && e.verb == "set":
		return 2 // it is of what is published then
	case e.verb == "export":
		return 2 // other examples read the files
	case e.verb == "set", e.verb == "suspend", e.noun == "ratelimits" && e.verb == "import", e.noun == "config secrets" && e.verb == "put":
		return 1
	case e.verb == "delete":
		return 4
	case e.verb == "undelete":
		return 5
	default:
		return 3
	}
}

// answers are those that an example may get instead of success: about ids that nobody can know before, it has to be
// understood and to find nothing.
var answers = map[string]string{
	"tenants lookup uid:":  "RESOURCE_NOT_FOUND",
	"operations get ":      "RESOURCE_NOT_FOUND",
	"operations wait ":     "RESOURCE_NOT_FOUND",
	"operations cancel ":   "RESOURCE_NOT_FOUND",
	"config rollback ":     "RESOURCE_NOT_FOUND",
	"brand rollback ":      "RESOURCE_NOT_FOUND",
	"brand assets get ":    "RESOURCE_NOT_FOUND",
	"brand assets delete ": "RESOURCE_NOT_FOUND",
	"config diff ":         "RESOURCE_NOT_FOUND",
	"config drift ":        "files and house differ", // by what other examples apply
	"config erase ":        "WRONG_STATE",            // the tenant is served
	"quotas erase ":        "WRONG_STATE",            // as above
	"keys revoke ":         "RESOURCE_NOT_FOUND",
	// In a house with one operator nobody can approve; the change is live when these come.
	"config changes approve ":          "WRONG_STATE",
	"config changes reject ":           "WRONG_STATE",
	"config changes schedule ":         "WRONG_STATE",
	"config changes submit ":           "WRONG_STATE",
	"config changes update ":           "WRONG_STATE",
	"webhooks redeliver ":              "RESOURCE_NOT_FOUND", // the second example; the first redelivers none
	"clientkeys delete ":               "RESOURCE_NOT_FOUND",
	"namespaces delete ":               "NAMESPACE_IN_USE", // by what other examples set
	"config rollouts get ":             "RESOURCE_NOT_FOUND",
	"config rollouts wait ":            "RESOURCE_NOT_FOUND",
	"config rollouts advance ":         "RESOURCE_NOT_FOUND",
	"config rollouts halt ":            "RESOURCE_NOT_FOUND",
	"config rollouts create platform ": "ROLLOUT_RUNNING", // the second example; the first one's runs
}

// refused says what is wrong with how an example ended.
func (e example) refused(said string, err error) error {
	if err == nil {
		return nil
	}
	for about, reason := range answers {
		if strings.HasPrefix(e.line, "rowhouse "+about) && strings.Contains(said, reason) {
			return nil
		}
	}
	return fmt.Errorf("%w: %s", err, said)
}

// examples reads the help of each command that operates an installation.
func examples(ctx context.Context, h *help) ([]example, error) {
	top, err := h.of(ctx, nil)
	if err != nil {
		return nil, err
	}
	_, nouns, _ := strings.Cut(top, "\nOperate it:\n")
	nouns, _, _ = strings.Cut(nouns, "\n\n")
	var out []example
	for line := range strings.Lines(nouns) {
		found, err := examplesOf(ctx, h, strings.Fields(line)[:1])
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	slices.SortStableFunc(out, func(a, b example) int { return a.stage() - b.stage() })
	return out, nil
}

// examplesOf returns the examples of a command and of those below it.
func examplesOf(ctx context.Context, h *help, words []string) ([]example, error) {
	text, err := h.of(ctx, words)
	if err != nil {
		return nil, err
	}
	_, verbs, _ := strings.Cut(text, "\nAvailable Commands:\n")
	verbs, _, _ = strings.Cut(verbs, "\n\n")
	last := len(words) - 1
	switch {
	case verbs == "" && last == 0: // a command without verbs
		return examplesIn(words[0], "", text), nil
	case verbs == "":
		return examplesIn(strings.Join(words[:last], " "), words[last], text), nil
	}
	var out []example
	for line := range strings.Lines(verbs) {
		found, err := examplesOf(ctx, h, append(slices.Clone(words), strings.Fields(line)[0]))
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return out, nil
}

func examplesIn(noun, verb, text string) []example {
	_, lines, _ := strings.Cut(text, "\nExamples:\n")
	lines, _, _ = strings.Cut(lines, "\n\n")
	var out []example
	for line := range strings.Lines(strings.ReplaceAll(lines, "\\\n", " ")) {
		out = append(out, example{noun, verb, strings.TrimSpace(line)})
	}
	return out
}

// runExamples types each example of the command line's help, in a fresh folder with the files that they name.
func (h *house) runExamples(t *testing.T) {
	t.Helper()
	all, err := examples(t.Context(), &help{said: map[string]string{}})
	if err != nil {
		t.Fatal(err)
	}
	const fewest = 80
	if len(all) < fewest {
		t.Fatalf("the help shows %d examples, want at least %d", len(all), fewest)
	}
	work, env := t.TempDir(), h.environment(t)
	for name, content := range h.exampleFiles(t) {
		if err := os.WriteFile(filepath.Join(work, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(filepath.Join(work, "migrations"), os.DirFS(filepath.Join(h.dir, "notes", "migrations"))); err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		shell := exec.CommandContext(t.Context(), "bash", "-c", "set -o pipefail; "+e.line)
		shell.Dir, shell.Env = work, env
		said, err := shell.CombinedOutput()
		if err := e.refused(string(said), err); err != nil {
			t.Errorf("%s: %v", e.line, err)
		}
	}
}

// exampleFiles are those that examples name. The databases are the example app's, and an empty one beside it.
func (h *house) exampleFiles(t *testing.T) map[string][]byte {
	t.Helper()
	super, err := os.ReadFile(filepath.Join(h.dir, "cells", "cell-1"))
	if err != nil {
		t.Fatal(err)
	}
	secrets, err := os.ReadFile(filepath.Join(h.dir, "secrets", "passwords.json"))
	if err != nil {
		t.Fatal(err)
	}
	var passwords map[string]string
	if err := json.Unmarshal(secrets, &passwords); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), strings.TrimSpace(string(super)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	if _, err := conn.Exec(t.Context(), "CREATE DATABASE managed"); err != nil {
		t.Fatal(err)
	}
	of := func(database string) []byte {
		config := conn.Config()
		return fmt.Appendf(nil, "host='%s' port=%d user='%s' password='%s' dbname=%s", config.Host, config.Port, config.User, config.Password, database)
	}
	var logo bytes.Buffer
	if err := png.Encode(&logo, image.NewGray(image.Rect(0, 0, 512, 512))); err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"app.yaml": []byte("display_name: Customers\n"), "portal.json": []byte(`{"title": "Ours"}`),
		"schema.json": []byte(`{"type": "object", "properties": {"banner": {"x-kill": {"value": false}}}}`),
		"notes.dsn":   of("notes"), "managed.dsn": of("managed"), "app.password": []byte(passwords["notes"]),
		"cell.json": []byte(`{"cell": {"name": "cells/cell-1", "capacity": 10000}, "updateMask": "capacity"}`), "acme.png": logo.Bytes(),
		"flags.flagd.json": []byte(`{"flags": {"note-count": {"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on"}}}`),
		"brand.json":       []byte(`{"light": {"primary": "#0f766e"}}`),
		"stripe.key":       []byte("sk_example\n"),
		"edge.yaml":        []byte("domain: edge\ndescriptors: [{key: user, rate_limit: {unit: minute, requests_per_unit: 60}}]\n"),
		"sheet.css":        []byte(".rh-button { border-radius: 0; }"),
		"change.yaml": []byte("reason: New prices from the first of December\n" +
			"edits:\n- {name: plans/free/config/portal, form: merge-patch, content: {price: 12}}\n"),
		"free.json": []byte(`{"flags": {"note-count": {"defaultVariant": "off"}}}`),
		"logo.svg":  []byte(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><rect width="1" height="1"/></svg>`),
	}
}

// An example that the API refuses, or that is no command line, is found.
func TestExamplesFindOffenders(t *testing.T) {
	t.Parallel()
	failed := errors.New("exit status 1")
	for name, c := range map[string]struct {
		line, said string
		err        error
		ok         bool
	}{
		"good":                    {"rowhouse tenants list", "", nil, true},
		"a field is missing":      {"rowhouse cells create cell-2", "cell.region is required (INVALID_FIELD)", failed, false},
		"not in a house":          {"rowhouse plans get gold", "plans/gold does not exist (RESOURCE_NOT_FOUND)", failed, false},
		"an id that is not known": {"rowhouse keys revoke 00 --confirm 00", "does not exist (RESOURCE_NOT_FOUND)", failed, true},
		"and is no id either":     {"rowhouse keys revoke x --confirm x", "name (INVALID_FIELD)", failed, false},
	} {
		if err := (example{line: c.line}).refused(c.said, c.err); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	text := "Create one.\n\nExamples:\n  rowhouse cells create a \\\n    --region b\n  rowhouse cells create c\n\nFlags:\n"
	if got := examplesIn("cells", "create", text); len(got) != 2 || !regexp.MustCompile(`^rowhouse cells create a +--region b$`).MatchString(got[0].line) {
		t.Errorf("the examples are %q", got)
	}
}
