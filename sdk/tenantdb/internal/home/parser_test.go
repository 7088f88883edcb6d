package home_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	pgquery "github.com/wasilibs/go-pgquery"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/internal/home"
)

// What PostgreSQL's grammar, which is that of rowlint, reads in a rendered text is what it read before, but for the
// schema: the same statements of the same shape, in which no name is in schema app any more.
func FuzzRenderedIsTheSameToTheParser(f *testing.F) {
	for _, s := range slices.Concat(queries, scripts) {
		f.Add(s.sql)
		f.Add(strings.NewReplacer(".", " /* app.x */ . -- app.y\n", "app", "App").Replace(s.sql))
		f.Add(strings.NewReplacer("app.", `"app".`, ";", ";;").Replace(s.sql))
	}
	_, _ = pgquery.ParseToJSON("SELECT 1") // compiles the parser, which may take longer than a fuzzer waits
	f.Fuzz(func(t *testing.T, sql string) {
		before, ok := parsed(t, sql)
		if !ok || strings.Contains(sql, "t_1") {
			return
		}
		rendered := map[string]string{"script": home.Script(sql, "t_1")}
		if isQuery(before) {
			rendered["query"] = home.Parse(sql).In("t_1")
		}
		for how, text := range rendered {
			after, ok := parsed(t, text)
			if !ok {
				t.Fatalf("%s: %q became %q, which is no SQL", how, sql, text)
			}
			c := comparison{script: how == "script"}
			c.compare("", before, after)
			if len(c.wrong) > 0 {
				t.Fatalf("%s: %q became %q: %q", how, sql, text, c.wrong)
			}
		}
	})
}

// parsed returns the syntax tree; ok is false when there is none.
func parsed(t *testing.T, sql string) (tree any, ok bool) {
	t.Helper()
	text, err := pgquery.ParseToJSON(sql)
	if err != nil {
		return nil, false
	}
	if err := json.Unmarshal([]byte(text), &tree); err != nil {
		t.Fatal(err)
	}
	return tree, true
}

// isQuery reports whether a text has only statements that the SDK sends.
func isQuery(tree any) bool {
	root, _ := tree.(map[string]any)
	stmts, _ := root["stmts"].([]any)
	for _, s := range stmts {
		raw, _ := s.(map[string]any)
		stmt, _ := raw["stmt"].(map[string]any)
		for kind := range stmt {
			if !slices.Contains([]string{"SelectStmt", "InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"}, kind) {
				return false
			}
		}
	}
	return true
}

// comparison walks two trees at once and notes what differs and should not, and what does not and should.
type comparison struct {
	script bool
	wrong  []string
}

func (c *comparison) compare(key string, before, after any) {
	switch b := before.(type) {
	case map[string]any:
		a, _ := after.(map[string]any)
		if b["catalogname"] != nil && b["schemaname"] == "app" {
			return // database.app.note is what nobody writes, and is left
		}
		for k := range maps.Keys(b) {
			if !strings.HasSuffix(k, "location") && !strings.HasSuffix(k, "_start") && !strings.HasSuffix(k, "_end") && k != "stmt_len" {
				c.compare(k, b[k], a[k])
			}
		}
		if len(a) != len(b) {
			c.wrong = append(c.wrong, fmt.Sprintf("%v became %v", before, after))
		}
	case []any:
		a, _ := after.([]any)
		if len(a) != len(b) {
			c.wrong = append(c.wrong, fmt.Sprintf("%v became %v", before, after))
			return
		}
		for i := range b {
			c.compare(key, b[i], a[i])
		}
		if len(a) > 1 && name(a[0]) == "app" && slices.Contains([]string{"funcname", "names", "fields", "opername", "items", "objname"}, key) {
			c.wrong = append(c.wrong, fmt.Sprintf("%v is left", after))
		}
	case string:
		a, _ := after.(string)
		c.compareText(key, b, a)
	default:
		if before != after {
			c.wrong = append(c.wrong, fmt.Sprintf("%s %v became %v", key, before, after))
		}
	}
}

func (c *comparison) compareText(key, before, after string) {
	plain := func(s string) string { return strings.ToLower(strings.NewReplacer("t_1", "app", `"`, "").Replace(s)) }
	switch {
	case key == "schemaname" && after == "app":
		c.wrong = append(c.wrong, "a relation in app is left")
	case before == after, before == "app" && after == "t_1", c.script && plain(before) == plain(after):
	default:
		c.wrong = append(c.wrong, fmt.Sprintf("%s %q became %q", key, before, after))
	}
}

// name is the text of a String node.
func name(node any) string {
	n, _ := node.(map[string]any)
	text, _ := n["String"].(map[string]any)
	value, _ := text["sval"].(string)
	return value
}
