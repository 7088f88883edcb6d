package home

import "strings"

// Query is a statement whose tables are in one schema, which is named when it is sent.
type Query struct {
	parts []string // around each qualifier app, without it
}

// Parse finds the qualifiers in a statement: app or "app" before a dot, not behind one.
// Strings, comments, dollar quotes and other quoted names are left as they are. A table's
// alias must not be app: what it qualifies would be taken for a table.
func Parse(sql string) Query {
	var parts []string
	from := 0
	s := scanner{sql: sql}
	behindDot := false
	for s.next() {
		if s.blank() {
			continue
		}
		if !behindDot && s.isQualifier() {
			start, end := s.name()
			parts = append(parts, sql[from:start])
			from = end
		}
		behindDot = s.kind == symbol && sql[s.start] == '.'
	}
	return Query{append(parts, sql[from:])}
}

// In returns the statement for tables in schema, which is a name that needs no quotes.
func (q Query) In(schema string) string { return strings.Join(q.parts, schema) }

// kind is what a token is.
type kind uint8

const (
	space   kind = iota
	comment      // -- to the end of the line, or /* */
	word         // an unquoted name or keyword
	quoted       // a "name"
	text         // a 'string'
	dollar       // a $tag$string$tag$
	symbol       // one byte of anything else
)

// scanner cuts SQL into tokens as PostgreSQL does with standard_conforming_strings on.
type scanner struct {
	sql        string
	kind       kind
	start, end int // of the current token
}

// next goes to the next token and reports whether there is one.
func (s *scanner) next() bool {
	s.start = s.end
	if s.start == len(s.sql) {
		return false
	}
	rest := s.sql[s.start:]
	c := rest[0]
	switch {
	case isSpace(c):
		s.take(space, 1)
	case strings.HasPrefix(rest, "--"):
		n := strings.IndexAny(rest, "\n\r")
		if n < 0 {
			n = len(rest)
		}
		s.take(comment, n)
	case strings.HasPrefix(rest, "/*"):
		s.take(comment, blockComment(rest))
	case c == '"':
		s.take(quoted, enclosed(rest, false))
	case c == '\'':
		s.take(text, enclosed(rest, false))
	case (c == 'e' || c == 'E') && strings.HasPrefix(rest[1:], "'"):
		s.take(text, 1+continued(rest[1:]))
	case c == '$':
		if n := dollarQuoted(rest); n > 0 {
			s.take(dollar, n)
		} else {
			s.take(symbol, 1)
		}
	case isNameStart(c):
		n := 1
		for n < len(rest) && (isNameStart(rest[n]) || isDigit(rest[n]) || rest[n] == '$') {
			n++
		}
		s.take(word, n)
	case isDigit(c):
		s.take(symbol, number(rest))
	default:
		s.take(symbol, 1)
	}
	return true
}

func (s *scanner) take(k kind, n int) { s.kind, s.end = k, s.start+n }

// blank reports whether the token separates others and is none.
func (s *scanner) blank() bool { return s.kind == space || s.kind == comment }

func (s *scanner) text() string { return s.sql[s.start:s.end] }

// name returns where the name in the token begins and ends: quotes stay, for they may be all that
// keeps it from the token before.
func (s *scanner) name() (start, end int) {
	if s.kind == quoted {
		return s.start + 1, s.end - 1
	}
	return s.start, s.end
}

// isShared reports whether the token is the name app.
func (s *scanner) isShared() bool {
	switch s.kind {
	case word:
		return strings.EqualFold(s.text(), SharedSchema)
	case quoted:
		return s.text() == `"`+SharedSchema+`"`
	}
	return false
}

// isQualifier reports whether the token is the name app and a dot follows.
func (s *scanner) isQualifier() bool {
	if !s.isShared() {
		return false
	}
	ahead := *s
	for ahead.next() {
		if !ahead.blank() {
			return ahead.kind == symbol && ahead.text() == "."
		}
	}
	return false
}

// blockComment returns the length of the comment with which sql begins. They nest.
func blockComment(sql string) int {
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
				return i + 1
			}
		}
	}
	return len(sql)
}

// enclosed returns the length of what begins with a quote and ends with the same, where two
// of them stand for one, and after a backslash, if those escape, any byte for itself.
func enclosed(sql string, escapes bool) int {
	quote := sql[0]
	for i := 1; i < len(sql); i++ {
		switch {
		case escapes && sql[i] == '\\':
			i++
		case sql[i] == quote:
			if i+1 == len(sql) || sql[i+1] != quote {
				return i + 1
			}
			i++
		}
	}
	return len(sql)
}

// continued returns the length of the string with escapes with which sql begins, without its E.
// One behind it, after blanks with the end of a line, goes on with it and has escapes, too.
// Other strings need no such care: what follows them is read in the same way.
func continued(sql string) int {
	n := enclosed(sql, true)
	for {
		more := continuation(sql[n:])
		if more == 0 {
			return n
		}
		n += more + enclosed(sql[n+more:], true)
	}
}

// continuation returns where in sql a string begins that goes on with one before sql, or 0:
// behind a line's end, with nothing but blanks and comments to the end of the line before it.
func continuation(sql string) int {
	s, line := scanner{sql: sql}, false
	for s.next() {
		switch {
		case s.kind == space:
			line = line || strings.ContainsAny(s.text(), "\n\r")
		case s.kind == comment && strings.HasPrefix(s.text(), "--"):
		case line && sql[s.start] == '\'':
			return s.start
		default:
			return 0
		}
	}
	return 0
}

// dollarQuoted returns the length of the dollar-quoted string with which sql begins, or 0
// when it begins with none, but with a parameter such as $1.
func dollarQuoted(sql string) int {
	tag := dollarTag(sql)
	if tag == "" {
		return 0
	}
	end := strings.Index(sql[len(tag):], tag)
	if end < 0 {
		return len(sql)
	}
	return end + 2*len(tag)
}

// dollarTag returns the $tag$ with which sql begins, or "".
func dollarTag(sql string) string {
	for i := 1; i < len(sql); i++ {
		switch c := sql[i]; {
		case c == '$':
			return sql[:i+1]
		case !isNameStart(c) && (i == 1 || !isDigit(c)):
			return ""
		}
	}
	return ""
}

// number returns how many bytes of sql are digits, so that none begins a name. PostgreSQL
// takes 1app for the number 1 and its alias; here it is one token, and no qualifier.
func number(sql string) int {
	n := 1
	for n < len(sql) && (isDigit(sql[n]) || isNameStart(sql[n])) {
		n++
	}
	return n
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// isNameStart holds for bytes above ASCII, too: PostgreSQL takes them all for letters.
func isNameStart(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' || c >= 0x80 }
