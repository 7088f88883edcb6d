package settings

import (
	"bytes"
	_ "embed" // brand.schema.json
	"encoding/base64"
	"errors"
	"fmt"
	"image/png"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/rowhouse-platform/rowhouse/sdk/authority"
	"github.com/rowhouse-platform/rowhouse/sdk/icu"
	"github.com/rowhouse-platform/rowhouse/sdk/mail"
)

// BrandNamespace is the namespace of brands, which exists from the start.
const BrandNamespace = "brand"

// The namespaces of feature flags, which exist from the start; package flags reads them.
const (
	// FlagsNamespace holds the flags.
	FlagsNamespace = "flags"
	// FlagKillsNamespace says which flags were killed. Only KillFlag and LiftFlag of rowhouse.config.v1 write it.
	FlagKillsNamespace = "flag-kills"
)

//go:embed brand.schema.json
var brandSchema string

// BrandSchema is the JSON Schema of the namespace "brand". [CheckBrand] looks at what
// a schema cannot say.
func BrandSchema() string { return brandSchema }

// Bounds of a brand.
const (
	maxBrandName = 80
	// maxLogo bounds the logo's file, maxLogoSide its width and height in pixels.
	maxLogo     = 96 << 10
	maxLogoSide = 1024
	logoPrefix  = "data:image/png;base64,"
)

// Brand is how a tenant looks. Only [BrandOf] and [BrandOn] make one of settings, and all in it is safe to be written
// into a page: Name as text, Logo as the source of an image, [Brand.CSS] into a style element.
type Brand struct {
	// Name is what people call the tenant; may be empty.
	Name string
	// Logo is a data URI of a PNG image; may be empty.
	Logo string
	// Light and Dark are the colours by the reader's preference; the other two are for readers who prefer more contrast.
	Light, Dark, LightContrast, DarkContrast Palette
	// Logos and Icons are the assets by what they are for: "light", "dark" and "email"; "ico", "svg", "32", "180",
	// "192", "512" and "maskable".
	Logos, Icons map[string]Asset
	// Styles is a style sheet of the tenant's own; may be empty.
	Styles Asset
	// Assets are others that the brand serves, such as the pictures in Styles.
	Assets []Asset
	// Typography is how text is set.
	Typography Typography
	// Links lead to pages about the tenant: "home", "imprint", "privacy", "terms", "accessibility", "support". All are
	// https.
	Links map[string]string
	// Exceptions are the reasons for pairs of colours that may be hard to read, by "{side}/{role}/{ground}".
	Exceptions map[string]string
	// Locale is the brand's own language; Texts and Terms are what it says by language and key. [Brand.Text] and
	// [Brand.Term] find the right one.
	Locale       string
	Texts, Terms map[string]map[string]string
	// MailKinds are the kinds of mails that products declare; Mails are the templates by language and kind. [Brand.Mail] and
	// [MailFor] make mails of them.
	MailKinds map[string]mail.Kind
	Mails     map[string]map[string]mail.Template
	// MessageKinds are the texts with places in them that products declare, with the types of the places; Messages are what
	// the brand says, by language and kind. [Brand.Format] fills the places in.
	MessageKinds map[string]icu.Arguments
	Messages     map[string]map[string]string

	phrases *phrasebook
}

// Palette holds colours by their roles, each "#rrggbb" or empty. The name of a role in
// settings and in CSS is that of its field in lower case with hyphens: "text-muted".
type Palette struct {
	Primary, OnPrimary, Background, Surface, Border, Text, TextMuted, Link, Success, Warning, Error string
}

// Role is a colour of a palette by its role.
type Role struct {
	// Name is the role, "text-muted".
	Name string
	// Colour is where the palette has it.
	Colour *string
}

// Roles lists a palette's roles in the order in which they are written.
func (p *Palette) Roles() []Role {
	return []Role{
		{"primary", &p.Primary}, {"on-primary", &p.OnPrimary}, {"background", &p.Background}, {"surface", &p.Surface},
		{"border", &p.Border}, {"text", &p.Text}, {"text-muted", &p.TextMuted}, {"link", &p.Link},
		{"success", &p.Success}, {"warning", &p.Warning}, {"error", &p.Error},
	}
}

// declarations are the palette's custom properties.
func (p Palette) declarations() string {
	var b strings.Builder
	for _, c := range p.Roles() {
		if *c.Colour != "" {
			fmt.Fprintf(&b, " --%s: %s;", c.Name, *c.Colour)
		}
	}
	return b.String()
}

// CSS returns the colours as custom properties of :root, the dark ones for readers who
// prefer them. It is empty without colours.
func (b Brand) CSS() string {
	var css strings.Builder
	if light := b.Light.declarations(); light != "" {
		fmt.Fprintf(&css, ":root {%s }\n", light)
	}
	if dark := b.Dark.declarations(); dark != "" {
		fmt.Fprintf(&css, "@media (prefers-color-scheme: dark) { :root {%s } }\n", dark)
	}
	return css.String()
}

// Problem says what is wrong with a value, without the value.
type Problem struct {
	// Pointer is the JSON pointer (RFC 6901) of the value.
	Pointer string
	// Rule is a short stable name of what it breaks.
	Rule string
	// Text is one sentence for people.
	Text string
}

// ErrBrand is wrapped by the errors of [BrandOf].
var ErrBrand = errors.New("settings: not a sound brand")

// BrandOf reads a brand of the effective value of the namespace "brand", for domains that have none of their own. It
// refuses what could do harm in a page, whatever the namespace's schema lets pass; members that it does not know are
// passed over. The error wraps [ErrBrand].
func BrandOf(e Effective) (Brand, error) { return BrandOn(e, "") }

// BrandOn is [BrandOf] for a domain, by its canonical host name: what the member "domains" says for it is merged over
// the rest.
func BrandOn(e Effective, host string) (Brand, error) {
	b, problems := readBrand(onDomain(e.Object, host))
	if len(problems) > 0 {
		return Brand{}, fmt.Errorf("%w: %s %s", ErrBrand, problems[0].Pointer, problems[0].Text)
	}
	return b, nil
}

// BrandDomains lists the domains for which a brand says something of its own, in order.
func BrandDomains(o Object) []string {
	domains, _ := o["domains"].(Object)
	return slices.Sorted(maps.Keys(domains))
}

// onDomain is the brand's object on a domain, without those of others.
func onDomain(o Object, host string) Object {
	domains, ok := o["domains"].(Object)
	if !ok {
		return o
	}
	out := maps.Clone(o)
	delete(out, "domains")
	if own, ok := domains[host].(Object); ok {
		return Merge(Layer{Object: out}, Layer{Object: own}).Object
	}
	return out
}

// CheckBrand says what [BrandOn] would refuse, on any domain, and what is wrong with templates of mails and with
// messages.
func CheckBrand(o Object) []Problem {
	parts := [][]string{
		{"name"}, {"logo"}, {"logos"}, {"icons"}, {"light"}, {"dark"}, {"light-contrast"}, {"dark-contrast"}, {"typography"},
		{"texts"}, {"links"}, {"styles"}, {"assets"}, {"exceptions"},
		{"locale", "mail-kinds", "mails"}, {"locale", "message-kinds", "messages", "terms"},
	}
	mails := make(mailChecks)
	return EachDomain(o, parts, func(o Object) []Problem {
		b, found := readBrand(o)
		return append(append(found, checkMails(b, mails)...), checkMessages(b)...)
	})
}

// EachDomain checks the object that holds on domains that have nothing of their own, and those that hold on the others, and
// puts what is wrong there in its place. What is wrong on a domain because it is wrong everywhere is left out.
//
// Parts are the members that the check looks at, those in a list of their own that are judged together. On a domain only
// the parts are checked that it says something of: there may be many domains, and nobody waits for what is known.
func EachDomain(o Object, parts [][]string, check func(Object) []Problem) []Problem {
	if domains, set := o["domains"]; set {
		if _, ok := domains.(Object); !ok {
			return []Problem{{"/domains", "type", "is not an object"}}
		}
	}
	found := check(only(o, slices.Concat(parts...)))
	common := make(map[Problem]bool)
	for _, p := range found {
		common[p] = true
	}
	domains, _ := o["domains"].(Object)
	for _, host := range BrandDomains(o) {
		at := Pointer("domains", host)
		if name, err := authority.ParseName(host); err != nil || name.String() != host {
			found = append(found, Problem{at, "host", "is not the name of a host, in small letters"})
		}
		own, _ := domains[host].(Object) // the schema says when it is none
		var touched []string
		for _, part := range parts {
			if slices.ContainsFunc(part, func(member string) bool { _, set := own[member]; return set }) {
				touched = append(touched, part...)
			}
		}
		if touched == nil {
			continue
		}
		for _, p := range check(Merge(Layer{Object: only(o, touched)}, Layer{Object: only(own, touched)}).Object) {
			if !common[p] {
				found = append(found, Problem{at + p.Pointer, p.Rule, p.Text})
			}
		}
	}
	return found
}

// only is an object with some of its members.
func only(o Object, members []string) Object {
	out := make(Object, len(members))
	for _, name := range members {
		if v, ok := o[name]; ok {
			out[name] = v
		}
	}
	return out
}

func readBrand(o Object) (Brand, []Problem) {
	r := &brandReader{}
	b := Brand{Name: r.text(o, "", "name"), Logo: r.text(o, "", "logo"), phrases: new(phrasebook)}
	if !soundName(b.Name) {
		r.refuse("/name", "name", fmt.Sprintf("is not a line of at most %d characters", maxBrandName))
	}
	if err := checkLogo(b.Logo); err != nil {
		r.refuse("/logo", "logo", err.Error())
	}
	r.palette(o, "light", &b.Light)
	r.palette(o, "dark", &b.Dark)
	r.palette(o, "light-contrast", &b.LightContrast)
	r.palette(o, "dark-contrast", &b.DarkContrast)
	r.files(o, &b)
	r.typography(o, &b.Typography)
	b.Links = r.lines(o, "", "links", mail.CheckLink)
	b.Exceptions = r.lines(o, "", "exceptions", checkText)
	r.languages(o, &b)
	r.mails(o, &b)
	r.messages(o, &b)
	return b, r.problems
}

// brandReader collects what is wrong.
type brandReader struct{ problems []Problem }

func (r *brandReader) refuse(pointer, rule, text string) {
	r.problems = append(r.problems, Problem{pointer, rule, text})
}

// text reads a string; a missing one is empty.
func (r *brandReader) text(o Object, above, name string) string {
	v, ok := o[name]
	if !ok {
		return ""
	}
	s, ok := v.(string)
	if !ok {
		r.refuse(above+"/"+name, "type", "is not a string")
	}
	return s
}

func (r *brandReader) palette(o Object, side string, p *Palette) {
	v, ok := o[side]
	if !ok {
		return
	}
	colours, ok := v.(Object)
	if !ok {
		r.refuse("/"+side, "type", "is not an object")
		return
	}
	for _, c := range p.Roles() {
		*c.Colour = r.text(colours, "/"+side, c.Name)
		if _, set := colours[c.Name]; set && !soundColour(*c.Colour) {
			r.refuse("/"+side+"/"+c.Name, "colour", "is not a colour of the form #rrggbb")
		}
	}
}

func soundColour(s string) bool {
	if len(s) != len("#rrggbb") || s[0] != '#' {
		return false
	}
	for _, c := range []byte(s[1:]) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
			return false
		}
	}
	return true
}

// soundName refuses what would not be seen or would change the direction of what follows.
func soundName(s string) bool {
	invisible := func(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co) }
	return utf8.RuneCountInString(s) <= maxBrandName && !strings.ContainsFunc(s, invisible)
}

// checkLogo takes a PNG image and nothing behind it. Other formats are no option:
// SVG would be a document with scripts in it.
func checkLogo(uri string) error {
	if uri == "" {
		return nil
	}
	encoded, ok := strings.CutPrefix(uri, logoPrefix)
	if !ok {
		return errors.New("does not begin with " + logoPrefix)
	}
	if base64.StdEncoding.DecodedLen(len(encoded)) > maxLogo+2 {
		return fmt.Errorf("is larger than %d bytes", maxLogo)
	}
	file, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || strings.ContainsAny(encoded, "\r\n") {
		return errors.New("is not base64")
	}
	// The sizes come first: decoding costs what they say.
	header, err := png.DecodeConfig(bytes.NewReader(file))
	if err != nil {
		return errors.New("is not a PNG image")
	}
	if header.Width > maxLogoSide || header.Height > maxLogoSide {
		return fmt.Errorf("is larger than %d by %d pixels", maxLogoSide, maxLogoSide)
	}
	rest := bytes.NewReader(file)
	if _, err := png.Decode(rest); err != nil {
		return errors.New("is not a sound PNG image")
	}
	if rest.Len() > 0 {
		return errors.New("has something behind the image")
	}
	return nil
}
