package home

import "strings"

// Script returns a migration for tables in schema: its qualifiers are swapped as those of a
// query, also in the bodies of functions, and so is the name after the keyword SCHEMA.
func Script(sql, schema string) string {
	if schema == SharedSchema {
		return sql
	}
	var out strings.Builder
	s := scanner{sql: sql}
	behindDot, behindSchema := false, false
	for s.next() {
		token := s.text()
		switch {
		case s.blank():
			out.WriteString(token)
			continue
		case s.kind == dollar:
			tag := dollarTag(token)
			body := strings.TrimSuffix(strings.TrimPrefix(token, tag), tag)
			out.WriteString(tag + Script(body, schema) + tag)
		case !behindDot && s.isQualifier(), behindSchema && s.isShared():
			out.WriteString(schema)
		default:
			out.WriteString(token)
		}
		behindDot = s.kind == symbol && token == "."
		behindSchema = s.kind == word && strings.EqualFold(token, "schema")
	}
	return out.String()
}
