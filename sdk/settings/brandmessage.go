package settings

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/text/language"

	"github.com/rowhouse-platform/rowhouse/sdk/icu"
	"github.com/rowhouse-platform/rowhouse/sdk/mail"
)

// ErrMessageKind is wrapped by what asks for a message of a kind that no product declares.
var ErrMessageKind = errors.New("settings: no such kind of message")

// Bounds of kinds of messages and of what their places take.
const (
	maxPlaces = 20
	maxValue  = 1000 // characters
	// maxTerms bounds the terms of all languages together.
	maxTerms = 1000
)

// Format is what the brand says for a kind of message, with its places filled in, and the language that it is in. values has
// what the kind declares, all of it and nothing else: a line of text for "text", an int, an int64 or a float64 for
// "number". The message is found as [Brand.Text] finds texts, and in English last; plurals and numbers are as the reader
// writes them, where prefer names a region of the message's language. Terms of the brand stand in the message as places
// without a value. The result is plain text, not HTML. Errors wrap [ErrMessageKind], [icu.ErrValue] and [icu.ErrTooLong].
func (b Brand) Format(kind, prefer string, values map[string]any) (text, tag string, err error) {
	declared, ok := b.MessageKinds[kind]
	if !ok {
		return "", "", fmt.Errorf("%w: %.40q", ErrMessageKind, kind)
	}
	if err := checkValues(declared, values); err != nil {
		return "", "", err
	}
	wanted := preferred(prefer)
	said := b.known().kind(b, kind)
	for _, tag := range append(said.languages.chain(wanted), fallback) {
		m := said.messages[tag]
		if m == nil { // there is none, or it cannot be read; it was checked when it was written
			continue
		}
		text, err := m.Format(spoken(tag, wanted), b.filled(m, declared, values, tag))
		return text, tag, err
	}
	return "", "", fmt.Errorf("%w: %.40q is not said in any language", ErrMessageKind, kind)
}

// A phrasebook is what is worked out of a brand's messages when they are first asked for, and kept with the brand, for
// reading messages and matching languages cost more than filling places in. All copies of a brand have one.
type phrasebook struct {
	mu    sync.Mutex
	kinds map[string]said
	terms map[string]map[string]string // by the language of the message, and term
}

// said is a kind of message in all languages.
type said struct {
	languages spokenIn
	messages  map[string]*icu.Message
}

// known is the brand's phrasebook. A brand that was not read has a new one each time.
func (b Brand) known() *phrasebook {
	if b.phrases != nil {
		return b.phrases
	}
	return new(phrasebook)
}

// kind reads the messages of a kind that is declared.
func (p *phrasebook) kind(b Brand, name string) said {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s, ok := p.kinds[name]; ok {
		return s
	}
	texts := make(map[string]string)
	for tag, of := range b.Messages {
		if s := of[name]; s != "" {
			texts[tag] = s
		}
	}
	s := said{languagesOf(b.Locale, texts), make(map[string]*icu.Message, len(texts))}
	may := places{b.MessageKinds[name], termsOf(b)}
	for tag, text := range texts {
		if m, err := icu.Parse(text, may); err == nil {
			s.messages[tag] = m
		}
	}
	if p.kinds == nil {
		p.kinds = make(map[string]said)
	}
	p.kinds[name] = s
	return s
}

// term is a term in the language of a message. There are no more of those than the brand has languages.
func (p *phrasebook) term(b Brand, word, tag string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	text, ok := p.terms[tag][word]
	if ok {
		return text
	}
	if p.terms == nil {
		p.terms = make(map[string]map[string]string)
	}
	if p.terms[tag] == nil {
		p.terms[tag] = make(map[string]string)
	}
	text = b.Term(word, tag)
	p.terms[tag][word] = text
	return text
}

// checkValues refuses values that are not those of a kind. The error holds no value.
func checkValues(declared icu.Arguments, values map[string]any) error {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if _, ok := declared[name]; !ok {
			return fmt.Errorf("%w: %.40q is not declared", icu.ErrValue, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(declared)) {
		v := values[name]
		s, isText := v.(string)
		switch {
		case !declared[name].Takes(v):
			return fmt.Errorf("%w: %q is missing or not of type %q", icu.ErrValue, name, declared[name])
		case isText && (!utf8.ValidString(s) || utf8.RuneCountInString(s) > maxValue || strings.ContainsFunc(s, mail.Unseen)):
			return fmt.Errorf("%w: %q is not a line of at most %d characters", icu.ErrValue, name, maxValue)
		}
	}
	return nil
}

// places are what a message of a kind may use: what the kind declares, and the brand's terms.
type places struct {
	declared icu.Arguments
	terms    map[string]bool
}

// Place implements [icu.Places].
func (p places) Place(name string) (icu.Type, bool) {
	if t, ok := p.declared[name]; ok {
		return t, true
	}
	return icu.Text, p.terms[name]
}

// termsOf are the brand's terms, whatever their language.
func termsOf(b Brand) map[string]bool {
	all := make(map[string]bool)
	for _, of := range b.Terms {
		for term := range of {
			all[term] = true
		}
	}
	return all
}

// filled are values, with the terms of a language that a message uses.
func (b Brand) filled(m *icu.Message, declared icu.Arguments, values map[string]any, tag string) map[string]any {
	all := make(map[string]any, len(values))
	maps.Copy(all, values)
	for name := range m.Names() {
		if _, given := declared[name]; !given {
			all[name] = b.known().term(b, name, tag)
		}
	}
	return all
}

// spoken is the language of a message as the reader writes it: of "de", and a reader of "de-CH", that.
func spoken(tag string, wanted []language.Tag) language.Tag {
	own := language.Make(tag)
	base, script, region := own.Raw()
	for _, p := range wanted {
		if b, s, r := p.Raw(); b == base && s == script && region == (language.Region{}) && r != region {
			t, err := language.Compose(b, s, r) // without what else a tag may say
			if err == nil {
				return t
			}
		}
	}
	return own
}

// messages reads the kinds of messages that products declare, and the messages. Whether those are sound, [CheckBrand] looks
// at.
func (r *brandReader) messages(o Object, b *Brand) {
	kinds := r.object(o, "", "message-kinds")
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		k, err := readMessageKind(kinds[name])
		if err != nil {
			r.refuse(Pointer("message-kinds", name), "message-kind", err.Error())
			continue
		}
		if b.MessageKinds == nil {
			b.MessageKinds = make(map[string]icu.Arguments)
		}
		b.MessageKinds[name] = k
	}
	b.Messages = r.byLanguage(o, "messages", checkText)
}

func readMessageKind(v any) (icu.Arguments, error) {
	o, ok := v.(Object)
	if !ok {
		return nil, errors.New("is not an object")
	}
	in, ok := o["variables"].(Object)
	if _, set := o["variables"]; set && !ok || len(in) > maxPlaces {
		return nil, fmt.Errorf("has variables that are not an object of at most %d", maxPlaces)
	}
	out := make(icu.Arguments, len(in))
	for name, v := range in {
		s, _ := v.(string)
		t := icu.Type(s)
		if !t.Known() || !placePattern(name) {
			return nil, fmt.Errorf("has a variable %.40q of type %.40q", name, s)
		}
		out[name] = t
	}
	return out, nil
}

// placePattern reports whether a name is one of a place: small letters, digits and _, a letter first.
func placePattern(name string) bool {
	const most = 40
	odd := func(r rune) bool { return r != '_' && (r < 'a' || r > 'z') && (r < '0' || r > '9') }
	return name != "" && len(name) <= most && name[0] >= 'a' && name[0] <= 'z' && !strings.ContainsFunc(name, odd)
}

// checkMessages says what is wrong with the messages of a sound brand.
func checkMessages(b Brand) (found []Problem) {
	count := 0
	for _, of := range b.Terms {
		count += len(of)
	}
	if count > maxTerms {
		found = append(found, Problem{"/terms", "terms", fmt.Sprintf("has more than %d terms in all languages together", maxTerms)})
	}
	terms := termsOf(b)
	for _, tag := range slices.Sorted(maps.Keys(b.Messages)) {
		for _, kind := range slices.Sorted(maps.Keys(b.Messages[tag])) {
			at := Pointer("messages", tag, kind)
			declared, ok := b.MessageKinds[kind]
			if !ok {
				found = append(found, Problem{at, "message-kind", "is of no kind that there is"})
				continue
			}
			_, err := icu.Parse(b.Messages[tag][kind], places{declared, terms})
			if wrong := (*icu.Error)(nil); errors.As(err, &wrong) {
				found = append(found, Problem{at, wrong.Rule, "is no message: " + wrong.Error()})
			}
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(b.MessageKinds)) {
		own := b.Locale
		if own == "" {
			own = fallback
		}
		if b.Messages[own][kind] == "" && b.Messages[fallback][kind] == "" {
			found = append(found, Problem{
				Pointer("message-kinds", kind), "messages", "has no message in the brand's own language, nor in English",
			})
		}
	}
	return found
}
