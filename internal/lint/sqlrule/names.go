package sqlrule

import (
	"regexp"
	"slices"
	"strings"

	pg "github.com/pganalyze/pg_query_go/v6"
	"google.golang.org/protobuf/proto"

	"github.com/rowhouse-platform/rowhouse/internal/lint/schema"
	"github.com/rowhouse-platform/rowhouse/internal/lint/sqltext"
)

// nameInString finds strings that are names of the app's tables, sequences and the like. A tenant
// with a schema of its own has that named in the place of app, and in strings of statements it is
// not; in those of migrations it is where a cast or a function says that the string is a name.
func (c *checker) nameInString(m proto.Message) {
	if c.source != Sealed && c.source != Migration {
		return
	}
	switch n := m.(type) {
	case *pg.TypeCast:
		if isReg(sqltext.Last(n.GetTypeName().GetNames())) {
			c.nameOf(n.GetArg(), true)
		}
	case *pg.FuncCall:
		f, args := strings.ToLower(sqltext.Last(n.GetFuncname())), n.GetArgs()
		swapped := len(args) > 0 && (strings.HasPrefix(f, "to_reg") ||
			slices.Contains([]string{"secure", "nextval", "currval", "setval", "pg_get_serial_sequence"}, f))
		switch {
		case swapped:
			c.nameOf(args[0], args[0].GetNamedArgExpr() == nil || f == "secure")
		case configured(f) && len(args) > 1: // the others are text
			c.nameOf(args[0], false)
		case takesNames(f):
			for _, arg := range args {
				c.nameOf(arg, false)
			}
		}
	}
}

// nameOf judges a string that is a name. swapped says whether one in a migration is found.
func (c *checker) nameOf(n *pg.Node, swapped bool) {
	if named := n.GetNamedArgExpr(); named != nil {
		n = named.GetArg()
	}
	k := n.GetAConst()
	if k.GetSval() == nil {
		return
	}
	at := max(0, min(int(k.GetLocation()), len(c.text)))
	first := strings.ToLower(c.text[at:])
	escapes := strings.HasPrefix(first, "e'") || strings.HasPrefix(first, "u&'")
	switch s := k.GetSval().GetSval(); {
	case c.source == Migration && swapped && !escapes, !saysApp(s):
	default:
		c.reportf("Q8", k.GetLocation(), "the string %q names something in schema %s, in whose place a tenant's own is not put",
			s, schema.AppSchema)
	}
}

// saysApp reports whether SQL names the app's schema.
func saysApp(sql string) bool {
	return strings.EqualFold(strings.Trim(sql, `" `), schema.AppSchema) ||
		regexp.MustCompile(`(?i)(^|[^\w."$])"?`+schema.AppSchema+`"?\s*\.`).MatchString(sql)
}

// isReg reports whether a type is one of those whose values are names.
func isReg(name string) bool {
	return slices.Contains([]string{
		"regclass", "regcollation", "regconfig", "regdictionary", "regnamespace", "regoper", "regoperator", "regproc", "regprocedure", "regtype",
	}, name)
}

// takesNames reports whether a function takes names, or SQL, in strings, which nothing finds there.
func takesNames(f string) bool {
	return strings.HasPrefix(f, "has_") && strings.HasSuffix(f, "_privilege") ||
		slices.Contains([]string{"query_to_xml", "table_to_xml", "schema_to_xml"}, strings.Replace(f, "_to_xml_and_xmlschema", "_to_xml", 1)) ||
		slices.Contains([]string{"pg_partition_tree", "pg_sequence_last_value", "row_security_active"}, f)
}

// configured reports whether a function takes the name of a text search configuration first.
func configured(f string) bool {
	return slices.Contains([]string{
		"to_tsvector", "to_tsquery", "plainto_tsquery", "phraseto_tsquery", "websearch_to_tsquery", "ts_headline", "ts_debug",
	}, f)
}
