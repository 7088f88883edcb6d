package settings

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/rowhouse-platform/rowhouse/sdk/authority"
	"github.com/rowhouse-platform/rowhouse/sdk/mail"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// MailRequest asks for a mail in the looks of a tenant.
type MailRequest struct {
	// Kind is what it is for: "invitation", "password-reset", "verification" or "notice", or a kind of the product's own.
	Kind string
	// Locale is the reader's language, as in the field Accept-Language: "de-AT". A template is looked for as [Brand.Text]
	// looks for texts, and in English last.
	Locale string
	// Host is the tenant's host that the reader knows: its brand is taken, and from there the logo is loaded. Without one the
	// mail has the brand's name instead of a logo.
	Host string
	// Vars are what the kind declares; which those are, the guide says.
	Vars mail.Vars
}

// ErrMailKind is wrapped by what asks for a kind of mail that there is not.
var ErrMailKind = errors.New("settings: no such kind of mail")

// MailFor writes a mail for the tenant of ctx, in its brand's looks and words. It sends nothing. Errors are those of
// [For], [ErrMailKind], [ErrBrand], and those of [mail.Template.Render].
func MailFor(ctx context.Context, s *Store, q MailRequest) (mail.Message, error) {
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return mail.Message{}, err
	}
	e, err := s.effective(s.reader(tc), BrandNamespace)
	if err != nil {
		return mail.Message{}, err
	}
	host, err := authority.ParseName(q.Host)
	if err != nil {
		q.Host = ""
	} else {
		q.Host = host.String()
	}
	b, err := BrandOn(e, q.Host)
	if err != nil {
		return mail.Message{}, err
	}
	b.Name = cmp.Or(b.Name, tc.ID().String())
	return b.Mail(q)
}

// Mail writes a mail as [MailFor] does.
func (b Brand) Mail(q MailRequest) (mail.Message, error) {
	kind, ok := b.MailKind(q.Kind)
	if !ok {
		return mail.Message{}, fmt.Errorf("%w: %.40q", ErrMailKind, q.Kind)
	}
	template, tag := b.mailTemplate(q.Kind, q.Locale)
	vars := mail.Vars{Values: maps.Clone(q.Vars.Values), Lists: q.Vars.Lists}
	if vars.Values == nil {
		vars.Values = make(map[string]string)
	}
	vars.Values[mail.BrandVariable] = b.Name
	return template.Render(kind, vars, b.mailLook(tag, q.Host))
}

// MailKind returns what the templates of a kind may say.
func (b Brand) MailKind(name string) (mail.Kind, bool) {
	if own, ok := b.MailKinds[name]; ok {
		return own, true
	}
	k, ok := platformMails()[name]
	return k.kind, ok
}

// MailKindNames lists the kinds of mails that there are, in order.
func (b Brand) MailKindNames() []string {
	names := slices.AppendSeq(slices.Collect(maps.Keys(platformMails())), maps.Keys(b.MailKinds))
	slices.Sort(names)
	return slices.Compact(names)
}

// mailTemplate finds the template of a kind for a reader, with its language. One template is never made of two languages.
func (b Brand) mailTemplate(kind, prefer string) (mail.Template, string) {
	table := make(map[string]mail.Template)
	for tag, kinds := range b.Mails {
		if t, ok := kinds[kind]; ok {
			table[tag] = t
		}
	}
	for _, tag := range append(chain(b.Locale, table, prefer), fallback) {
		if t, ok := table[tag]; ok {
			return t, tag
		}
	}
	return platformMails()[kind].template, fallback
}

// mailLook is what mails take over from the brand: its light side, for few programs that show mails know another.
func (b Brand) mailLook(tag, host string) mail.Look {
	p := b.LightPalette()
	l := mail.Look{
		Name: b.Name, Language: tag, Background: p.Background, Surface: p.Surface, Text: p.Text, Muted: p.TextMuted, Border: p.Border,
		Accent: p.Link, Primary: p.Primary, OnPrimary: p.OnPrimary, Font: "system-ui, sans-serif",
	}
	if known, ok := families()[b.Typography.Body]; ok {
		l.Font = known // a typeface of the brand's own would have to be loaded
	}
	if name, err := authority.ParseName(host); err == nil {
		for _, logo := range []Asset{b.Logos["email"], b.Logos["light"]} {
			if logo.Extension() == "png" {
				l.Logo = "https://" + name.String() + logo.Path()
				break
			}
		}
	}
	for _, name := range []string{"home", "support", "imprint", "privacy", "terms", "accessibility"} {
		if address := b.Links[name]; address != "" {
			label, _ := b.Text("link."+name, tag)
			l.Links = append(l.Links, mail.Link{Label: label, URL: address})
		}
	}
	return l
}

// LightPalette is the brand's light side, complete: what the brand leaves open is the platform's.
func (b Brand) LightPalette() Palette {
	p, platform := b.Light, PlatformLight()
	from := platform.Roles()
	for i, r := range p.Roles() {
		if *r.Colour == "" && r.Name != "on-primary" {
			*r.Colour = *from[i].Colour
		}
	}
	if p.OnPrimary == "" {
		p.OnPrimary = "#ffffff"
		if l := luminance(p.Primary); (l+0.05)/0.05 > 1.05/(l+0.05) {
			p.OnPrimary = "#000000"
		}
	}
	return p
}

// PlatformLight are the colours of the light side where brands say nothing. Its OnPrimary is derived from Primary.
func PlatformLight() Palette {
	return Palette{
		Primary: "#1c1917", Background: "#ffffff", Surface: "#f5f5f4", Border: "#d6d3d1", Text: "#1c1917", TextMuted: "#57534e",
		Link: "#1d4ed8", Success: "#166534", Warning: "#92400e", Error: "#b91c1c",
	}
}

// luminance is the relative luminance of WCAG 2.2.
func luminance(colour string) float64 {
	n, err := strconv.ParseUint(colour[1:], 16, 32)
	if err != nil {
		return 0 // it was checked
	}
	linear := func(channel uint64) float64 {
		c := float64(channel&0xff) / 255
		if c <= 0.04045 {
			return c / 12.92
		}
		return math.Pow((c+0.055)/1.055, 2.4)
	}
	return 0.2126*linear(n>>16) + 0.7152*linear(n>>8) + 0.0722*linear(n)
}

// mails reads the kinds that products declare, and the templates. What templates say, [CheckBrand] looks at: it costs more than
// what only wants colours should pay.
func (r *brandReader) mails(o Object, b *Brand) {
	kinds := r.object(o, "", "mail-kinds")
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		at := Pointer("mail-kinds", name)
		k, problem := readKind(kinds[name])
		if _, ours := platformMails()[name]; ours {
			problem = errors.New("is a kind of the platform's own")
		}
		if problem != nil {
			r.refuse(at, "mail-kind", problem.Error())
			continue
		}
		if b.MailKinds == nil {
			b.MailKinds = make(map[string]mail.Kind)
		}
		b.MailKinds[name] = k
	}
	all := r.object(o, "", "mails")
	for _, tag := range slices.Sorted(maps.Keys(all)) {
		r.tag(Pointer("mails", tag), tag)
		of := r.object(all, "/mails", tag)
		for _, name := range slices.Sorted(maps.Keys(of)) {
			at := "/mails" + Pointer(tag)
			in := r.object(of, at, name)
			at += Pointer(name)
			t := mail.Template{Subject: r.text(in, at, "subject"), Text: r.text(in, at, "text"), HTML: r.text(in, at, "html")}
			if tag == fallback { // the platform's English stands behind the brand's
				ours := platformMails()[name].template
				t.Subject, t.Text = cmp.Or(t.Subject, ours.Subject), cmp.Or(t.Text, ours.Text)
			}
			if b.Mails == nil {
				b.Mails = make(map[string]map[string]mail.Template)
			}
			if b.Mails[tag] == nil {
				b.Mails[tag] = make(map[string]mail.Template)
			}
			b.Mails[tag][name] = t
		}
	}
}

func readKind(v any) (k mail.Kind, err error) {
	o, ok := v.(Object)
	if !ok {
		return k, errors.New("is not an object")
	}
	types := func(v any) map[string]mail.Type {
		in, _ := v.(Object)
		out := make(map[string]mail.Type, len(in))
		for name, t := range in {
			s, _ := t.(string)
			out[name] = mail.Type(s) // an unknown one does not pass
		}
		return out
	}
	k.Variables = types(o["variables"])
	lists, _ := o["lists"].(Object)
	for name, parts := range lists {
		if k.Lists == nil {
			k.Lists = make(map[string]map[string]mail.Type)
		}
		k.Lists[name] = types(parts)
	}
	required, _ := o["required"].([]any)
	for _, v := range required {
		s, _ := v.(string)
		k.Required = append(k.Required, s)
	}
	k.Unsubscribe, _ = o["unsubscribe"].(bool)
	return k, k.Check()
}

// mailChecks are what is wrong with templates that were looked at. Domains share most, and looking at one is slow.
type mailChecks map[mailCheck][]mail.Problem

type mailCheck struct {
	kind     string
	template mail.Template
}

// check looks at a template.
func (c mailChecks) check(name string, k mail.Kind, t mail.Template) []mail.Problem {
	known, ok := c[mailCheck{name, t}]
	if !ok {
		known = t.Check(k)
		c[mailCheck{name, t}] = known
	}
	return known
}

// checkMails says what is wrong with the templates of a sound brand.
func checkMails(b Brand, known mailChecks) (found []Problem) {
	for _, tag := range slices.Sorted(maps.Keys(b.Mails)) {
		for _, name := range slices.Sorted(maps.Keys(b.Mails[tag])) {
			at := Pointer("mails", tag, name)
			k, ok := b.MailKind(name)
			if !ok {
				found = append(found, Problem{at, "mail-kind", "is of no kind that there is"})
				continue
			}
			for _, p := range known.check(name, k, b.Mails[tag][name]) {
				found = append(found, Problem{at + Pointer(p.Part), p.Rule, p.Text})
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(b.MailKinds)) {
		if t, _ := b.mailTemplate(name, ""); t == (mail.Template{}) {
			found = append(found, Problem{
				Pointer("mail-kinds", name), "mails", "has no template in the brand's own language, nor in English",
			})
		}
	}
	return found
}
