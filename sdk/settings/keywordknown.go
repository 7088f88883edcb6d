package settings

import (
	"slices"
	"strconv"
)

// RulesKeyword holds conditions across the members of an effective value, at the root of a schema.
const RulesKeyword = "x-rules"

// standardKeywords are those of JSON Schema 2020-12: what checks, what leads to other schemas, and what is there for
// people to read. "definitions" and "dependencies" are of earlier drafts, and still do what they did.
func standardKeywords() []string {
	return []string{
		"$schema", "$id", "$ref", "$anchor", "$dynamicRef", "$dynamicAnchor", "$vocabulary", "$comment", "$defs",
		"definitions", "dependencies",
		"allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "prefixItems", "items", "contains",
		"properties", "patternProperties", "additionalProperties", "propertyNames", "unevaluatedItems", "unevaluatedProperties",
		"type", "enum", "const", "multipleOf", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum", "maxLength",
		"minLength", "pattern", "maxItems", "minItems", "uniqueItems", "maxContains", "minContains", "maxProperties",
		"minProperties", "required", "dependentRequired",
		"title", "description", "default", "deprecated", "readOnly", "writeOnly", "examples",
		"format", "contentEncoding", "contentMediaType", "contentSchema",
	}
}

// renamed is what keywords of earlier drafts are called now, where the spelling does not tell.
func renamed(keyword string) string {
	switch keyword {
	case "additionalItems":
		return "items"
	case "$recursiveRef":
		return "$dynamicRef"
	case "$recursiveAnchor":
		return "$dynamicAnchor"
	default:
		return ""
	}
}

// unknown refuses keywords of a schema that nobody knows, where that is asked for.
func (c *keywordCheck) unknown(pointer string, schema Object) {
	if !c.strict {
		return
	}
	known := append(standardKeywords(), keywords()...)
	for _, name := range sortedNames(schema) {
		switch {
		case slices.Contains(known, name):
		case name == RulesKeyword && pointer == "":
		case name == RulesKeyword:
			c.addf(pointer, name, "acts only at the root of the schema")
		default:
			c.addf(pointer, name, "%s", c.meant(name, append(known, RulesKeyword)))
		}
	}
}

// meant says what an unknown keyword was probably to be.
func (c *keywordCheck) meant(name string, known []string) string {
	const (
		most, longest = 20, 64 // the search for a name takes its time
		text          = "is no keyword of JSON Schema 2020-12 and none of ours"
	)
	near := renamed(name)
	if near == "" && len(c.found) < most && len(name) <= longest {
		near = Nearest(name, known)
	}
	if near != "" {
		return text + "; did you mean " + strconv.Quote(near) + "?"
	}
	return text + `: notes belong into "$comment"`
}
