package tenantdb

import (
	"strings"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/internal/home"
)

// text is a string that only constants become: a caller cannot name the type, so a
// variable does not convert to it.
type text string

// Statement is SQL text that was constant in the program, with bound parameters $1, $2.
// The zero Statement is refused.
type Statement struct {
	sql   string
	query *home.Query
	reads bool   // its verb does
	bad   string // why it is refused, "" when it is not
}

// Stmt makes a statement of a constant. It must begin with SELECT, INSERT, UPDATE, DELETE,
// MERGE, WITH or VALUES; another one is refused with [ErrVerb] where it is used. Tables and
// functions of the app are named with their schema, app.note; for a tenant with a schema of
// its own the name of that takes its place. So no alias is called app. What would slip through
// is refused, too: names with Unicode escapes, U&"…", and names of the app in strings, such as
// nextval('app.n'); give the column a default instead.
//
// Keep statements in package-level variables. A string that was put together at run time
// does not compile.
func Stmt(sql text) Statement {
	return check(string(sql))
}

// Concat joins statements that are parts of one, such as a common SELECT and its ORDER BY.
// Only the whole is checked.
func Concat(parts ...Statement) Statement {
	var b strings.Builder
	for _, p := range parts {
		b.WriteString(p.sql)
	}
	return check(b.String())
}

// String returns the SQL text.
func (s Statement) String() string { return s.sql }

// in returns the text for tables in schema.
func (s Statement) in(schema string) string {
	if schema == home.SharedSchema {
		return s.sql
	}
	return s.query.In(schema)
}

func check(sql string) Statement {
	verb := firstWord(sql)
	switch verb {
	case "SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "WITH", "VALUES":
		if name := home.Unread(sql); name != "" {
			return Statement{sql: sql, bad: name + " may name the schema of other tenants"}
		}
		query := home.Parse(sql)
		return Statement{sql: sql, query: &query, reads: verb == "SELECT" || verb == "VALUES"}
	case "":
		return Statement{sql: sql, bad: "it has no verb"}
	}
	return Statement{sql: sql, bad: verb + " is not for applications"}
}

// firstWord returns the statement's verb in capitals, behind comments and parentheses.
func firstWord(sql string) string {
	for sql != "" {
		switch c := sql[0]; {
		case c == '(' || c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v':
			sql = sql[1:]
		case strings.HasPrefix(sql, "--"):
			_, sql, _ = strings.Cut(sql, "\n")
		case strings.HasPrefix(sql, "/*"):
			sql = afterComment(sql)
		default:
			end := 0
			for end < len(sql) && isLetter(sql[end]) {
				end++
			}
			return strings.ToUpper(sql[:end])
		}
	}
	return ""
}

// afterComment returns what follows the block comment with which sql begins. They nest.
func afterComment(sql string) string {
	depth := 0
	for i := 0; i+1 < len(sql); i++ {
		switch sql[i : i+2] {
		case "/*":
			depth++
			i++
		case "*/":
			depth--
			i++
			if depth == 0 {
				return sql[i+1:]
			}
		}
	}
	return ""
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' }
