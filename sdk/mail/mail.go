// Package mail reads and runs templates of e-mails that tenants wrote: a subject, a text and perhaps HTML, in a small part of the
// language of Go's templates. There are variables, "if", and "range" over declared lists; whatever else the language has is
// refused before anything runs, for html/template trusts its authors and we do not. HTML is a fragment of elements on a
// list, is written anew after it ran, and stands in a frame of ours with the brand's logo and colours.
//
// It knows neither brands nor tenants and sends nothing: package settings finds the template that fits a reader. Start with
// [Template.Check] and [Template.Render].
package mail

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Type says what a variable may hold.
type Type string

// The types of variables.
const (
	// Text is one line of at most 1,000 characters.
	Text Type = "text"
	// Lines is text of at most 20,000 characters, with line ends.
	Lines Type = "lines"
	// URL is an absolute https address. Only a URL may stand in a link, and only as the whole of it.
	URL Type = "url"
)

// Known reports whether t is one of the types.
func (t Type) Known() bool { return t == Text || t == Lines || t == URL }

// The variables that are not declared.
const (
	// BrandVariable is the brand's name, in every kind.
	BrandVariable = "brand"
	// UnsubscribeVariable is where the reader ends such mails, a [URL], in kinds that say so.
	UnsubscribeVariable = "unsubscribe"
)

// Kind is what a mail is for, with what its templates may say.
type Kind struct {
	// Variables are what whoever sends such a mail gives, by name.
	Variables map[string]Type
	// Lists are variables with any number of items, up to [MaxItems]; each has the types of an item's parts.
	Lists map[string]map[string]Type
	// Required are the variables without which a mail would be of no use. A template shows them whatever else holds, and
	// who sends gives them.
	Required []string
	// Unsubscribe demands that readers can end such mails.
	Unsubscribe bool
}

// All are the variables that a template of the kind may name, ours included and lists apart.
func (k Kind) All() map[string]Type {
	all := map[string]Type{BrandVariable: Text}
	maps.Copy(all, k.Variables)
	if k.Unsubscribe {
		all[UnsubscribeVariable] = URL
	}
	return all
}

func (k Kind) required() []string {
	if k.Unsubscribe {
		return append(slices.Clone(k.Required), UnsubscribeVariable)
	}
	return k.Required
}

var namePattern = regexp.MustCompile(`^[a-z][a-z0-9_]{0,39}$`)

// Check says what is wrong with a kind as a product declares it, nil for nothing.
func (k Kind) Check() error {
	const most = 40
	if len(k.Variables) > most || len(k.Lists) > most {
		return fmt.Errorf("has more than %d variables", most)
	}
	for _, group := range append(slices.Collect(maps.Values(k.Lists)), k.Variables) {
		for name, t := range group {
			if !namePattern.MatchString(name) || !t.Known() || len(group) > most {
				return fmt.Errorf("has a variable %.40q of type %.40q", name, t)
			}
		}
	}
	for name := range k.Lists {
		if _, twice := k.Variables[name]; twice || !namePattern.MatchString(name) {
			return fmt.Errorf("has a list %.40q", name)
		}
	}
	for _, ours := range []string{BrandVariable, UnsubscribeVariable} {
		if _, has := k.Variables[ours]; has || k.Lists[ours] != nil {
			return fmt.Errorf("declares %q, which is ours", ours)
		}
	}
	for _, name := range k.Required {
		if _, has := k.Variables[name]; !has {
			return fmt.Errorf("requires %.40q, which is no variable of it", name)
		}
	}
	return nil
}

// Bounds of what a template may be, of what it gets, and of what it makes.
const (
	MaxSubject = 500      // bytes of a subject's template
	MaxText    = 16 << 10 // bytes of a text's template
	MaxHTML    = 32 << 10 // bytes of an HTML's template
	MaxItems   = 100      // items of a list
	MaxOutput  = 256 << 10

	maxLine  = 1000
	maxLines = 20_000
	maxURL   = 2000
	maxTitle = 250 // characters of a subject that is ready
)

// Vars are the values for one mail. What is not given is empty.
type Vars struct {
	Values map[string]string
	Lists  map[string][]map[string]string
}

// ErrVars is wrapped by errors that who sends a mail can mend: values that the kind does not declare, lacks or cannot take.
var ErrVars = errors.New("mail: not the variables of this kind")

// check refuses values that the kind does not declare, that are missing, or that are not of their type. The error names the
// variable and never holds its value.
func (v Vars) check(k Kind) error {
	declared := k.All()
	for _, name := range slices.Sorted(maps.Keys(v.Values)) {
		if err := checkValue(declared, name, v.Values[name]); err != nil {
			return err
		}
	}
	for _, name := range k.required() {
		if strings.TrimSpace(v.Values[name]) == "" {
			return fmt.Errorf("%w: %q is missing", ErrVars, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(v.Lists)) {
		if k.Lists[name] == nil || len(v.Lists[name]) > MaxItems {
			return fmt.Errorf("%w: list %.40q is not declared or has more than %d items", ErrVars, name, MaxItems)
		}
		for _, item := range v.Lists[name] {
			for _, part := range slices.Sorted(maps.Keys(item)) {
				if err := checkValue(k.Lists[name], part, item[part]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func checkValue(declared map[string]Type, name, value string) error {
	t, known := declared[name]
	var good bool
	switch {
	case !known:
		return fmt.Errorf("%w: %.40q is not declared", ErrVars, name)
	case value == "":
		return nil
	case t == URL:
		good = CheckLink(value) == nil && len(value) <= maxURL
	case t == Lines:
		good = visible(strings.ReplaceAll(value, "\n", ""), maxLines) && utf8.RuneCountInString(value) <= maxLines
	default:
		good = visible(value, maxLine)
	}
	if !good {
		return fmt.Errorf("%w: %q is not of type %q", ErrVars, name, t)
	}
	return nil
}

// data is what the templates run with: maps of strings, which have no methods. Everything declared is there.
func (v Vars) data(k Kind) map[string]any {
	data := make(map[string]any)
	for name := range k.All() {
		data[name] = v.Values[name]
	}
	for name, parts := range k.Lists {
		items := make([]map[string]string, 0, len(v.Lists[name]))
		for _, given := range v.Lists[name] {
			item := make(map[string]string, len(parts))
			for part := range parts {
				item[part] = given[part]
			}
			items = append(items, item)
		}
		data[name] = items
	}
	return data
}

// Sample returns values for every variable of a kind, for previews and checks.
func (k Kind) Sample() Vars {
	of := func(name string, t Type) string {
		if t == URL {
			return "https://www.example.com/" + name
		}
		return "[" + name + "]"
	}
	v := Vars{Values: make(map[string]string), Lists: make(map[string][]map[string]string)}
	for name, t := range k.All() {
		v.Values[name] = of(name, t)
	}
	for list, parts := range k.Lists {
		item := make(map[string]string)
		for name, t := range parts {
			item[name] = of(name, t)
		}
		v.Lists[list] = []map[string]string{item, item}
	}
	return v
}

// CheckLink takes an absolute https address without a user, and with nothing in it that could end it early.
func CheckLink(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.Opaque != "" || strings.ContainsFunc(s, Unseen) ||
		!utf8.ValidString(s) || strings.ContainsAny(s, " \"'<>\\`{}") {
		return errors.New("is not an https address")
	}
	return nil
}

// Unseen reports a character that has no shape or changes the direction of what follows. The joiners are let through: some
// scripts need them.
func Unseen(r rune) bool {
	const nonJoiner, joiner = '\u200c', '\u200d'
	return r != nonJoiner && r != joiner && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co)
}

// visible takes text of at most some characters that are all seen.
func visible(s string, most int) bool {
	return utf8.ValidString(s) && utf8.RuneCountInString(s) <= most && !strings.ContainsFunc(s, Unseen)
}
