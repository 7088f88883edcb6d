package settings

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// CheckKeywords says what is wrong with the keywords of a schema that are ours: values that they do not take, places
// where they would not act, and pairs that contradict each other. The pointers are those of the schema.
func CheckKeywords(schema Object) []Problem { return checkKeywords(schema, false) }

// CheckNewKeywords is [CheckKeywords] for a schema that somebody writes now. It also refuses what JSON Schema would pass
// over as a note: keywords that nobody knows, as they are most likely misspelt and then check and lock nothing. What is
// stored already is not judged by it, so that a later release may know fewer keywords.
func CheckNewKeywords(schema Object) []Problem { return checkKeywords(schema, true) }

func checkKeywords(schema Object, strict bool) []Problem {
	c := &keywordCheck{strict: strict}
	c.unknown("", schema)
	c.acting("", schema, LevelEnvironment)
	slices.SortFunc(c.found, compareProblems)
	return c.found
}

type keywordCheck struct {
	strict bool
	found  []Problem
}

func (c *keywordCheck) addf(pointer, keyword, format string, args ...any) {
	c.found = append(c.found, Problem{Pointer: pointer + Pointer(keyword), Rule: keyword, Text: fmt.Sprintf(format, args...)})
}

// acting looks at a schema in which keywords act. Lock is the widest above it.
func (c *keywordCheck) acting(pointer string, schema Object, lock Level) {
	how := c.manner(pointer, schema)
	lock = min(lock, c.lock(pointer, schema))
	c.clamp(pointer, schema, how)
	c.kill(pointer, schema)
	c.secret(pointer, schema)
	if v, ok := schema[keywordEditable]; ok {
		if _, isBool := v.(bool); !isBool {
			c.addf(pointer, keywordEditable, "must be true or false")
		} else if v == true && lock < LevelTenant {
			c.addf(pointer, keywordEditable, "contradicts the lock of the %s", lock)
		}
	}
	for _, name := range sortedNames(schema) {
		at := pointer + Pointer(name)
		switch below := schema[name].(type) {
		case Object:
			switch {
			case how == deep && name == "properties":
				for _, member := range sortedNames(below) {
					if property, ok := below[member].(Object); ok {
						c.unknown(at+Pointer(member), property)
						c.acting(at+Pointer(member), property, lock)
					}
				}
			case how == deep && name == "additionalProperties":
				c.unknown(at, below)
				c.acting(at, below, lock)
			default:
				c.idle(at, name, below)
			}
		case []any:
			c.idle(at, name, below)
		}
	}
}

// manner checks "x-merge" and returns what it says.
func (c *keywordCheck) manner(pointer string, schema Object) manner {
	v, ok := schema[keywordMerge]
	if !ok {
		return deep
	}
	how, key := readManner(v)
	o, _ := v.(Object)
	if how == deep && v != "deep" || how == mapped && (len(o) != 1 || key == "" || key == memberUnset) {
		c.addf(pointer, keywordMerge, `must be "deep", "replace", "append" or {"map": a member's name}`)
	}
	return how
}

func (c *keywordCheck) lock(pointer string, schema Object) Level {
	v, ok := schema[keywordLock]
	if !ok {
		return LevelEnvironment
	}
	for _, l := range lockable() {
		if v == l.String() {
			return l
		}
	}
	c.addf(pointer, keywordLock, `must be "platform", "plan", "region" or "tenant"`)
	return LevelEnvironment
}

func (c *keywordCheck) clamp(pointer string, schema Object, how manner) {
	v, ok := schema[keywordClamp]
	if !ok {
		return
	}
	o, _ := v.(Object)
	for name, bound := range o {
		a, isArray := bound.([]any)
		_, isNumber := bound.(float64)
		if !(isNumber && (name == "min" || name == "max") || isArray && len(a) > 0 && name == "enum") {
			o = nil
			break
		}
	}
	if len(o) == 0 {
		c.addf(pointer, keywordClamp, `must have numbers for "min" and "max", or values in "enum", and nothing else`)
		return
	}
	if clamp := readClamp(o); clamp.min != nil && clamp.max != nil && *clamp.min > *clamp.max {
		c.addf(pointer, keywordClamp, "must not have a min above the max")
	}
	if how == joined || how == mapped || schema["properties"] != nil {
		c.addf(pointer, keywordClamp, "is for values that are taken as a whole")
	}
}

// idle refuses our keywords in what the keyword name of a schema has: nothing in it acts. What is data it passes over.
func (c *keywordCheck) idle(pointer, name string, v any) {
	schemas := func(values any) {
		switch values := values.(type) {
		case Object:
			for _, member := range slices.Sorted(maps.Keys(values)) {
				c.dead(pointer+Pointer(member), values[member])
			}
		case []any:
			for i, below := range values {
				c.dead(pointer+"/"+strconv.Itoa(i), below)
			}
		}
	}
	switch name {
	case "properties", "patternProperties", "$defs", "dependentSchemas", "allOf", "anyOf", "oneOf", "prefixItems":
		schemas(v)
	case "additionalProperties", "items", "contains", "not", "if", "then", "else", "propertyNames",
		"unevaluatedItems", "unevaluatedProperties", "contentSchema":
		c.dead(pointer, v)
	case "definitions", "dependencies": // of earlier drafts; they still work
		if c.strict {
			schemas(v)
		}
	}
}

// dead is a schema in which our keywords do not act.
func (c *keywordCheck) dead(pointer string, v any) {
	schema, _ := v.(Object)
	for _, name := range keywords() {
		if _, ok := schema[name]; ok {
			c.addf(pointer, name, `acts only where "properties" and "additionalProperties" lead from the root, above a value that is merged deep`)
		}
	}
	c.unknown(pointer, schema)
	for _, name := range sortedNames(schema) {
		c.idle(pointer+Pointer(name), name, schema[name])
	}
}
