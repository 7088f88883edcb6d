package settings

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"golang.org/x/text/language"
)

// fallback is the language that the platform itself speaks.
const fallback = "en"

// platformTexts are what pages say where no brand says otherwise, by key. A brand may say each of them in each
// language.
func platformTexts() map[string]string {
	return map[string]string{
		"not-found.title": "Nothing is served here", "not-found.text": "Please check the address.",
		"suspended.title":   "This account is suspended",
		"suspended.text":    "It cannot be used at the moment. If it is yours, please contact support.",
		"closed.title":      "This account was closed",
		"closed.text":       "There is nothing here any more.",
		"maintenance.title": "Almost there", "maintenance.text": "This account is being made ready. Please try again in a moment.",
		"error.title": "This does not work right now", "error.text": "It is not your fault. Please try again in a moment.",
		"sign-in.title": "Please sign in again", "sign-in.text": "Your sign-in is missing or no longer valid.",
		"busy.title": "Too many requests", "busy.text": "Please wait a moment and try again.",
		"link.home": "Home", "link.support": "Support", "link.imprint": "Imprint", "link.privacy": "Privacy", "link.terms": "Terms",
		"link.accessibility": "Accessibility",
	}
}

// TextKeys lists the keys of texts that pages of the platform show, in order.
func TextKeys() []string { return slices.Sorted(maps.Keys(platformTexts())) }

// Text is what the brand says for a key, in the language that fits a reader best, with the language that it is in. prefer is
// what the reader prefers, as in the field Accept-Language (RFC 9110). A key that the best language lacks is looked for in
// the languages around it (de-AT, then de), in the brand's own, and then in the platform's English: for the keys of
// [TextKeys] it is never blank, for others it may be.
func (b Brand) Text(key, prefer string) (text, tag string) {
	if text, tag, ok := b.said(b.Texts, key, prefer); ok {
		return text, tag
	}
	return platformTexts()[key], fallback
}

// Term is the brand's word for a thing of the product ("workspace" may be "Project"), found as [Brand.Text] is; word
// itself where it has none.
func (b Brand) Term(word, prefer string) string {
	if text, _, ok := b.said(b.Terms, word, prefer); ok {
		return text
	}
	return word
}

// Locales lists the languages in which the brand says something, its own first.
func (b Brand) Locales() []string {
	var all []string
	for tag := range b.Texts {
		all = append(all, tag)
	}
	for tag := range b.Terms {
		all = append(all, tag)
	}
	for tag := range b.Messages {
		all = append(all, tag)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	if i := slices.Index(all, b.Locale); i > 0 {
		all = slices.Insert(slices.Delete(all, i, i+1), 0, b.Locale)
	}
	return all
}

// maxPrefer bounds what of Accept-Language is read.
const maxPrefer = 200

// said looks a key up in the languages that fit, the best first.
func (b Brand) said(table map[string]map[string]string, key, prefer string) (text, tag string, ok bool) {
	for _, tag := range chain(b.Locale, table, prefer) {
		if text := table[tag][key]; text != "" {
			return text, tag, true
		}
	}
	return "", "", false
}

// chain lists the languages of a table that may answer a reader, the best first; own is the brand's, or "".
func chain[V any](own string, table map[string]V, prefer string) []string {
	return languagesOf(own, table).chain(preferred(prefer))
}

// spokenIn are the languages of a table, ready to be matched with what readers prefer. Making one costs more than asking it.
type spokenIn struct {
	own     string
	tags    []language.Tag
	matcher language.Matcher
}

func languagesOf[V any](own string, table map[string]V) spokenIn {
	if len(table) == 0 {
		return spokenIn{}
	}
	own = cmp.Or(own, fallback)
	tags := []language.Tag{language.Make(own)} // what nobody fits falls to the first
	for _, tag := range slices.Sorted(maps.Keys(table)) {
		if tag != own {
			tags = append(tags, language.Make(tag))
		}
	}
	return spokenIn{own, tags, language.NewMatcher(tags)}
}

// chain is that of the function of this name.
func (s spokenIn) chain(wanted []language.Tag) []string {
	if len(s.tags) == 0 {
		return nil
	}
	_, best, _ := s.matcher.Match(wanted...)
	var chain []string
	for t := s.tags[best]; t != language.Und; t = t.Parent() {
		chain = append(chain, t.String())
	}
	return append(chain, s.own)
}

// preferred reads what a reader prefers, nothing of what cannot be read.
func preferred(prefer string) []language.Tag {
	if len(prefer) > maxPrefer {
		prefer = prefer[:strings.LastIndexAny(prefer[:maxPrefer], ",;")+1]
	}
	wanted, _, err := language.ParseAcceptLanguage(strings.TrimRight(prefer, ",;"))
	if err != nil {
		return nil
	}
	return wanted
}

// languages reads texts and terms.
func (r *brandReader) languages(o Object, b *Brand) {
	b.Locale = r.text(o, "", "locale")
	if b.Locale != "" {
		r.tag("/locale", b.Locale)
	}
	b.Texts, b.Terms = r.byLanguage(o, "texts", checkText), r.byLanguage(o, "terms", checkTerm)
}

// byLanguage reads a member that has texts by language and key.
func (r *brandReader) byLanguage(o Object, name string, check func(string) error) map[string]map[string]string {
	in := r.object(o, "", name)
	if len(in) == 0 {
		return nil
	}
	out := make(map[string]map[string]string, len(in))
	for _, tag := range slices.Sorted(maps.Keys(in)) {
		r.tag(Pointer(name, tag), tag)
		out[tag] = r.lines(in, "/"+name, tag, check)
	}
	return out
}

// tag takes a language tag (BCP 47) as everybody writes it, so that no two names mean one language.
func (r *brandReader) tag(at, s string) {
	t, err := language.Parse(s)
	if err != nil || t.String() != s {
		r.refuse(at, "locale", `is not a language tag in its usual form, such as "en" or "de-AT"`)
	}
}
