package lint

import (
	"slices"
	"strings"
)

// The words that begin a suppression, and a cross-tenant statement's licence.
const (
	ignoreWord = "rowlint:ignore"
	adminWord  = "tenancy:admin"
)

// Ignore is a suppression: //rowlint:ignore Q5,Q9 reason in Go, -- rowlint:ignore Q5 reason in SQL.
type Ignore struct {
	// Rules are the ids that it names.
	Rules []string
	// Fault says what is wrong with it, "" when nothing is. A faulty one suppresses nothing.
	Fault string
}

// ParseIgnore reads a comment without its marks; ok is false when it is no suppression.
func ParseIgnore(comment string) (i Ignore, ok bool) {
	rest, ok := directive(comment, ignoreWord)
	if !ok {
		return Ignore{}, false
	}
	names, reason, _ := strings.Cut(rest, " ")
	for name := range strings.SplitSeq(names, ",") {
		i.Rules = append(i.Rules, name)
		if !Known(name) && i.Fault == "" {
			i.Fault = "there is no rule " + quoted(name) + "; write rowlint:ignore <rule> <reason>"
		}
	}
	if i.Fault == "" && strings.TrimSpace(reason) == "" {
		i.Fault = "the suppression of " + names + " has no reason; write rowlint:ignore " + names + " <reason>"
	}
	return i, true
}

// Suppresses says whether the suppression is whole and names the rule.
func (i Ignore) Suppresses(rule string) bool { return i.Fault == "" && slices.Contains(i.Rules, rule) }

// ParseAdmin reads the licence of a cross-tenant statement, -- tenancy:admin reason; ok is
// false when the comment is none or lacks the reason.
func ParseAdmin(comment string) (reason string, ok bool) {
	reason, ok = directive(comment, adminWord)
	return reason, ok && reason != ""
}

// directive returns what follows the word at the begin of a comment.
func directive(comment, word string) (string, bool) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(comment), word)
	if !ok || rest != "" && rest[0] != ' ' && rest[0] != '\t' {
		return "", false
	}
	return strings.TrimSpace(rest), true
}

func quoted(s string) string { return `"` + s + `"` }
