package home

import (
	"slices"
	"strings"
)

// Script returns a migration for tables in schema, which is a name that needs no quotes. What
// names the schema app is swapped:
//
//   - qualifiers, as in a query: app.note, "app".note;
//   - names of schemas behind CREATE, ALTER, DROP, SET, ON and IN SCHEMA and behind SET
//     search_path =, in lists too;
//   - both in the bodies of functions and of DO, in dollar quotes or plain ones;
//   - there also in the strings of an EXECUTE statement, and what is only 'app' in it;
//   - the strings that are names: 'app.note'::regclass and the other reg types,
//     CAST('app.note' AS regclass), and the first argument of secure, nextval, currval,
//     setval, pg_get_serial_sequence and the to_reg functions, and secure(target => 'app.note').
//
// Comments, other strings, strings with escapes (E'…') and other quoted names are left as
// they are: a string may be data. So is SQL that is put together elsewhere; a migration that
// does so is found by what it touches.
func Script(sql, schema string) string {
	if schema == SharedSchema {
		return sql
	}
	return render(sql, schema, false)
}

// render is Script for a text that is, or is not, the body of a function.
func render(sql, schema string, body bool) string {
	var out strings.Builder
	s, at := scanner{sql: sql}, state{body: body}
	for s.next() {
		switch {
		case s.blank():
			out.WriteString(s.text())
			continue
		case at.isSQL(s):
			out.WriteString(at.inner(s, schema))
		case !at.behind(".") && s.isQualifier(), at.list == listName && s.isShared():
			start, end := s.name()
			out.WriteString(sql[s.start:start] + schema + sql[end:s.end])
		default:
			out.WriteString(s.text())
		}
		at.step(s)
	}
	return out.String()
}

// state is what the tokens so far say about the next one.
type state struct {
	body    bool
	last    [4]string // tokens, the nearest first; words in lower case
	list    list
	one     bool // the list has one name
	execute bool // in an EXECUTE statement
}

// list says where in a list of schemas a token is.
type list uint8

const (
	listNone list = iota
	listPath      // = or TO comes next
	listName      // a name comes next
	listNext      // a comma may come next
)

// step goes behind a token.
func (at *state) step(s scanner) {
	token := s.text()
	if s.kind == word {
		token = strings.ToLower(token)
	}
	switch {
	case at.list == listPath && (token == "=" || token == "to"), at.list == listNext && token == ",",
		at.list == listName && slices.Contains([]string{"if", "not", "exists"}, token):
		at.list = listName
	case at.list == listName && s.kind != symbol:
		at.list = listNext
		if at.one {
			at.list = listNone
		}
	case token == "schema" && slices.Contains([]string{"create", "alter", "drop", "on", "in", "set"}, at.last[0]):
		at.list, at.one = listName, slices.Contains([]string{"create", "alter", "set"}, at.last[0])
	case token == "search_path" && slices.Contains([]string{"set", "local", "session"}, at.last[0]):
		at.list, at.one = listPath, false
	default:
		at.list = listNone
	}
	switch {
	case token == "execute":
		at.execute = at.body
	case token == ";", at.behind("execute") && slices.Contains([]string{"on", "function", "procedure"}, token):
		at.execute = false
	}
	at.last = [4]string{token, at.last[0], at.last[1], at.last[2]}
}

// behind reports whether these were the last tokens, the nearest first.
func (at *state) behind(tokens ...string) bool { return slices.Equal(at.last[:len(tokens)], tokens) }

// isSQL reports whether the token is a string whose content is SQL, or a name as SQL writes it.
func (at *state) isSQL(s scanner) bool {
	if s.kind != dollar && s.kind != text || s.text()[0]|0x20 == 'e' || at.behind("&", "u") {
		return false
	}
	return at.isBody() || at.execute || at.isName(s)
}

func (at *state) isBody() bool {
	return at.behind("as") || at.behind("do") || at.last[1] == "language" && at.last[2] == "do"
}

func (at *state) isName(s scanner) bool {
	switch {
	case at.list == listName:
		return s.text() == "'"+SharedSchema+"'"
	case at.behind("(") && (namesRelation(at.last[1]) || at.last[1] == "cast" && isReg(ahead(s, 2)[1:])):
		return true
	case at.behind(">", "="):
		return at.last[2] == "target" && at.last[3] == "(" // of rowhouse.secure
	}
	next := ahead(s, 5)
	return namesType(at.last[0]) || next[0] == ":" && next[1] == ":" && isReg(next[2:])
}

// ahead returns the next n tokens, words in lower case, and "" behind the end.
func ahead(s scanner, n int) []string {
	tokens := make([]string, 0, n)
	for len(tokens) < n && s.next() {
		if !s.blank() {
			tokens = append(tokens, strings.ToLower(s.text()))
		}
	}
	return append(tokens, make([]string, n-len(tokens))...)
}

// isReg reports whether the tokens begin with a type whose values are names.
func isReg(tokens []string) bool {
	if len(tokens) == 3 && tokens[0] == "pg_catalog" && tokens[1] == "." {
		tokens = tokens[2:]
	}
	return namesType(tokens[0])
}

func namesType(name string) bool {
	return slices.Contains([]string{
		"regclass", "regcollation", "regconfig", "regdictionary", "regnamespace", "regoper", "regoperator", "regproc", "regprocedure", "regtype",
	}, name)
}

// namesRelation reports whether the first argument of a function is a name.
func namesRelation(function string) bool {
	return strings.HasPrefix(function, "to_reg") ||
		slices.Contains([]string{"secure", "nextval", "currval", "setval", "pg_get_serial_sequence"}, function)
}

// Unread returns what in a statement may name the schema app in a way that [Query] does not
// find, or "": a name with Unicode escapes, and a string that is a name, as in nextval('app.n').
// A tenant with a schema of its own would meet that of others.
func Unread(sql string) string {
	s, at := scanner{sql: sql}, state{}
	for s.next() {
		if s.blank() {
			continue
		}
		isString := s.kind == text || s.kind == dollar
		switch {
		case s.kind == quoted && at.behind("&", "u") && strings.HasSuffix(strings.ToLower(sql[:s.start]), "u&"):
			return `U&` + s.text()
		case isString && at.isName(s) && (s.text()[0]|0x20 == 'e' || at.behind("&", "u") || at.inner(s, "t") != s.text()):
			return s.text()
		}
		at.step(s)
	}
	return ""
}

// inner returns the string with its content rendered.
func (at *state) inner(s scanner, schema string) string {
	token, mark := s.text(), "'"
	if s.kind == dollar {
		mark = dollarTag(token)
	}
	if len(token) < 2*len(mark) || !strings.HasSuffix(token, mark) {
		return token // it does not end
	}
	content := token[len(mark) : len(token)-len(mark)]
	if content == SharedSchema {
		return mark + schema + mark
	}
	if s.kind == dollar {
		return mark + render(content, schema, at.isBody()) + mark
	}
	content = render(strings.ReplaceAll(content, "''", "'"), schema, at.isBody())
	return mark + strings.ReplaceAll(content, "'", "''") + mark
}
