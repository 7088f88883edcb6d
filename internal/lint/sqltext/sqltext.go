// Package sqltext reads SQL with PostgreSQL's own grammar and keeps what the grammar
// throws away: where a statement stands and which comments belong to it. It knows no rule.
// Start at [Parse] and [Walk].
package sqltext

import (
	"fmt"
	"strings"
	"sync"

	pg "github.com/pganalyze/pg_query_go/v6"
	pgquery "github.com/wasilibs/go-pgquery"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Statement is one statement of a text.
type Statement struct {
	// Node is the statement as PostgreSQL parsed it. Locations in it are byte offsets
	// into the whole text.
	Node *pg.Node
	// Start and End are the bytes of the statement in the text, without the white space
	// and the comments in front of it.
	Start, End int
	// Comments are those inside the statement, in front of it, and behind it on its last line.
	Comments []Comment
}

// Comment is a comment without its marks.
type Comment struct {
	Text       string
	Start, End int
}

// parsing lets one goroutine parse at a time. The parser keeps an instance for each caller
// at once and compiles its module anew for each: 40 packages in parallel took two minutes.
var parsing sync.Mutex //nolint:gochecknoglobals // the parser is the process's, and so is its guard

// Parse reads a text of one or more statements. The error says what PostgreSQL would.
// The first call of a process takes a second or two, a later one less than a millisecond.
func Parse(text string) ([]Statement, error) {
	parsing.Lock()
	tree, err := pgquery.Parse(text)
	parsing.Unlock()
	if err != nil {
		return nil, fmt.Errorf("parse: %w", err)
	}
	comments := Comments(text)
	out := make([]Statement, 0, len(tree.GetStmts()))
	for _, raw := range tree.GetStmts() {
		from := int(raw.GetStmtLocation())
		end := len(text)
		if raw.GetStmtLen() > 0 {
			end = from + int(raw.GetStmtLen())
		}
		out = append(out, Statement{Node: raw.GetStmt(), Start: skipBlank(text, from, comments), End: end})
	}
	assign(text, out, comments)
	return out, nil
}

// skipBlank returns where the first token at or behind from begins.
func skipBlank(text string, from int, comments []Comment) int {
	for _, c := range comments {
		if c.Start >= from && strings.TrimSpace(text[from:c.Start]) == "" {
			from = c.End
		}
	}
	rest := text[from:]
	return from + len(rest) - len(strings.TrimLeft(rest, " \t\r\n\f\v"))
}

// assign gives each comment to its statement: the one that it stands in, the one that
// ended on its line, else the next one.
func assign(text string, statements []Statement, comments []Comment) {
	for _, c := range comments {
		for i := range statements {
			s := &statements[i]
			sameLine := c.Start >= s.End && !strings.Contains(text[s.End:c.Start], "\n")
			if c.End <= s.End || sameLine {
				s.Comments = append(s.Comments, c)
				break
			}
		}
	}
}

// Comments returns the comments of a text in their order. What looks like one inside a
// string, a quoted name or a dollar-quoted body is none.
func Comments(text string) []Comment {
	var out []Comment
	for i := 0; i < len(text); {
		switch rest := text[i:]; {
		case strings.HasPrefix(rest, "--"):
			end := i + lineLength(rest)
			out = append(out, Comment{strings.TrimSpace(text[i+2 : end]), i, end})
			i = end
		case strings.HasPrefix(rest, "/*"):
			end := i + blockLength(rest)
			out = append(out, Comment{strings.TrimSpace(strings.TrimSuffix(text[i+2:end], "*/")), i, end})
			i = end
		case rest[0] == '\'':
			i += quotedLength(rest, i > 0 && (text[i-1] == 'e' || text[i-1] == 'E'))
		case rest[0] == '"':
			i += quotedLength(rest, false)
		case rest[0] == '$' && (i == 0 || !isWord(text[i-1])):
			i += dollarLength(rest)
		default:
			i++
		}
	}
	return out
}

func isWord(c byte) bool {
	return c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' || c >= 0x80
}

func lineLength(s string) int {
	if i := strings.IndexByte(s, '\n'); i >= 0 {
		return i
	}
	return len(s)
}

func blockLength(s string) int {
	depth := 0
	for i := 0; i+1 < len(s); i++ {
		switch s[i : i+2] {
		case "/*":
			depth++
			i++
		case "*/":
			depth--
			i++
			if depth == 0 {
				return i + 1
			}
		}
	}
	return len(s)
}

// quotedLength is the length of the string or name with which s begins. A doubled quote
// ends one and begins the next, which comes to the same.
func quotedLength(s string, escapes bool) int {
	for i := 1; i < len(s); i++ {
		if escapes && s[i] == '\\' {
			i++
			continue
		}
		if s[i] == s[0] {
			return i + 1
		}
	}
	return len(s)
}

// dollarLength is the length of a dollar-quoted string, or 1 of a parameter.
func dollarLength(s string) int {
	end := 1
	for end < len(s) && isWord(s[end]) {
		end++
	}
	if end >= len(s) || s[end] != '$' || end > 1 && s[1] >= '0' && s[1] <= '9' {
		return 1
	}
	tag := s[:end+1]
	if i := strings.Index(s[len(tag):], tag); i >= 0 {
		return len(tag) + i + len(tag)
	}
	return len(s)
}

// Walk visits a message and those inside of it, outer ones first, in the order of the
// grammar. It does not go into a message for which visit returns false.
func Walk(m proto.Message, visit func(proto.Message) bool) {
	if m == nil || !m.ProtoReflect().IsValid() {
		return
	}
	if !visit(m) {
		return
	}
	Children(m, func(c proto.Message) { Walk(c, visit) })
}

// Children calls visit for each message directly inside of m.
func Children(m proto.Message, visit func(proto.Message)) {
	r := m.ProtoReflect()
	fields := r.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.Kind() != protoreflect.MessageKind || !r.Has(f) {
			continue
		}
		if !f.IsList() {
			visit(r.Get(f).Message().Interface())
			continue
		}
		for list, j := r.Get(f).List(), 0; j < list.Len(); j++ {
			visit(list.Get(j).Message().Interface())
		}
	}
}

// Position returns the line and the column of a byte of a text, both from 1.
func Position(text string, offset int) (line, column int) {
	offset = min(max(offset, 0), len(text))
	line = 1 + strings.Count(text[:offset], "\n")
	return line, offset - strings.LastIndexByte(text[:offset], '\n')
}

// Strings returns the words of a list of String nodes, such as a qualified name.
func Strings(nodes []*pg.Node) []string {
	out := make([]string, 0, len(nodes))
	for _, n := range nodes {
		out = append(out, n.GetString_().GetSval())
	}
	return out
}

// Last returns the last word of a qualified name.
func Last(nodes []*pg.Node) string {
	if len(nodes) == 0 {
		return ""
	}
	return nodes[len(nodes)-1].GetString_().GetSval()
}
