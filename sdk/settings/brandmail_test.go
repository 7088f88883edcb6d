package settings_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/mail"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

func link(more ...string) mail.Vars {
	v := mail.Vars{Values: map[string]string{"link": "https://acme.example/x"}}
	for i := 0; i+1 < len(more); i += 2 {
		v.Values[more[i]] = more[i+1]
	}
	return v
}

// The platform's English of each kind is sound, and a mail is never blank.
func TestPlatformMails(t *testing.T) {
	t.Parallel()
	b := brandOn(t, `{"name":"Acme","links":{"imprint":"https://acme.example/imprint"}}`, "")
	if names := b.MailKindNames(); !slices.Equal(names, []string{"invitation", "notice", "password-reset", "verification"}) {
		t.Error(names)
	}
	for _, name := range b.MailKindNames() {
		k, _ := b.MailKind(name)
		for _, v := range []mail.Vars{k.Sample(), {Values: map[string]string{}}} {
			for _, required := range append(k.Required, "unsubscribe") {
				if s, ok := k.Sample().Values[required]; ok {
					v.Values[required] = s
				}
			}
			m, err := b.Mail(settings.MailRequest{Kind: name, Locale: "fr-CH", Vars: v})
			if err != nil || m.Language != "en" || m.Subject == "" || !strings.Contains(m.HTML, ">Imprint</a>") || strings.Contains(m.Text, "\n\n\n") {
				t.Errorf("%s: %v %+v", name, err, m)
			}
		}
		if own := `{"mails":{"en":{"` + name + `":{"html":"x"}}}}`; len(problems(t, own)) == 0 {
			t.Errorf("%s takes HTML without what it requires", name)
		}
	}
	if _, err := b.Mail(settings.MailRequest{Kind: "x"}); !errors.Is(err, settings.ErrMailKind) {
		t.Error(err)
	}
}

func problems(t *testing.T, text string) (got []string) {
	t.Helper()
	o, err := settings.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range settings.CheckBrand(o) {
		got = append(got, p.Pointer+" "+p.Rule)
	}
	return got
}

func TestMailFindsItsLanguage(t *testing.T) {
	t.Parallel()
	const text = `{"name":"Acme","locale":"fr","mails":{
		"de":{"invitation":{"subject":"Einladung","text":"{{.link}}"}},
		"de-AT":{"notice":{"subject":"Servus","text":"{{.title}} {{.message}} {{.unsubscribe}}"}},
		"fr":{"password-reset":{"subject":"Oui","text":"{{.link}}"}},
		"en":{"verification":{"subject":"Mine, {{.brand}}"}}},
		"domains":{"shop.acme.example":{"mails":{"de":{"invitation":{"subject":"Im Laden"}}}}}}`
	if found := problems(t, text); len(found) > 0 {
		t.Fatal(found)
	}
	for ask, want := range map[[3]string]string{
		{"invitation", "de-AT", ""}:                  "de Einladung",
		{"invitation", "de-AT", "shop.acme.example"}: "de Im Laden",
		{"invitation", "en", ""}:                     "en You are invited to Acme",
		{"invitation", "it", ""}:                     "en You are invited to Acme",
		{"password-reset", "de", ""}:                 "fr Oui",
		{"verification", "fr", ""}:                   "en Mine, Acme",
	} {
		b := brandOn(t, text, ask[2])
		m, err := b.Mail(settings.MailRequest{Kind: ask[0], Locale: ask[1], Vars: link()})
		if got := m.Language + " " + m.Subject; err != nil || got != want {
			t.Errorf("%v: %q %v; want %q", ask, got, err, want)
		}
	}
	notice := link("title", "T", "message", "M", "unsubscribe", "https://acme.example/end")
	for locale, want := range map[string]string{"de-AT": "de-AT Servus", "de": "de-AT Servus", "en": "en T"} {
		m, err := brandOn(t, text, "").Mail(settings.MailRequest{Kind: "notice", Locale: locale, Vars: notice})
		if got := m.Language + " " + m.Subject; err != nil || got != want {
			t.Errorf("notice in %s: %q %v; want %q", locale, got, err, want)
		}
	}
}

func TestMailHasTheLooksOfItsHost(t *testing.T) {
	t.Parallel()
	logo, shop := hash("a")+".png", hash("b")+".png"
	text := `{"name":"Acme","light":{"primary":"#b91c1c","link":"#00008b"},"logos":{"light":"` + logo + `"},"typography":{"body":"Georgia"},
		"links":{"support":"https://acme.example/help"},"texts":{"de":{"link.support":"Hilfe"}},
		"mails":{"de":{"invitation":{"subject":"x","text":"{{.link}}","html":"<p><a class=\"button\" href=\"{{.link}}\">Ja</a></p>"}}},
		"domains":{"shop.acme.example":{"logos":{"email":"` + shop + `"}}}}`
	render := func(host string) string {
		m, err := brandOn(t, text, host).Mail(settings.MailRequest{Kind: "invitation", Locale: "de", Host: host, Vars: link()})
		if err != nil {
			t.Fatal(err)
		}
		return m.HTML
	}
	for host, want := range map[string]string{
		"acme.example": `src="https://acme.example/.well-known/rowhouse/b/` + logo + `"`, "shop.acme.example": `src="https://shop.acme.example/.well-known/rowhouse/b/` + shop + `"`,
		"": ">Acme</strong>", `x"><b>`: ">Acme</strong>",
	} {
		page := render(host)
		for _, w := range []string{want, "background:#b91c1c;color:#ffffff", "color:#00008b", "Georgia, serif", ">Hilfe</a>"} {
			if !strings.Contains(page, w) {
				t.Errorf("%q lacks %s:\n%s", host, w, page)
			}
		}
	}
}

func TestProductsDeclareKinds(t *testing.T) {
	t.Parallel()
	const kinds = `"mail-kinds":{"digest":{"variables":{"week":"text"},"lists":{"items":{"title":"text","link":"url"}},"required":["week"],"unsubscribe":true}}`
	const body = `"text":"{{.week}} {{range .items}}{{.title}} {{.link}}{{end}} {{.unsubscribe}}"`
	text := `{` + kinds + `,"mails":{"en":{"digest":{"subject":"{{.week}}",` + body + `}}}}`
	if found := problems(t, text); len(found) > 0 {
		t.Fatal(found)
	}
	m, err := brandOn(t, text, "").Mail(settings.MailRequest{Kind: "digest", Vars: mail.Vars{
		Values: map[string]string{"week": "7", "unsubscribe": "https://acme.example/end"},
		Lists:  map[string][]map[string]string{"items": {{"title": "A", "link": "https://acme.example/a"}}},
	}})
	if err != nil || m.Subject != "7" || m.Text != "7 A https://acme.example/a https://acme.example/end\n" || len(m.Headers) != 2 {
		t.Errorf("%v %+v", err, m)
	}
	for text, want := range map[string][]string{
		`{` + kinds + `}`: {"/mail-kinds/digest mails"},
		`{` + kinds + `,"mails":{"fr":{"digest":{"subject":"x",` + body + `}}}}`:       {"/mail-kinds/digest mails"},
		`{"mails":{"en":{"digest":{"subject":"x","text":"y"}}}}`:                       {"/mails/en/digest mail-kind"},
		`{"mail-kinds":{"notice":{}}}`:                                                 {"/mail-kinds/notice mail-kind"},
		`{"mail-kinds":{"x":{"variables":{"A":"text"}}}}`:                              {"/mail-kinds/x mail-kind"},
		`{"mail-kinds":{"x":{"variables":{"a":"html"}}}}`:                              {"/mail-kinds/x mail-kind"},
		`{"mails":{"de_AT":{}}}`:                                                       {"/mails/de_AT locale"},
		`{"mails":{"de":{"invitation":{"subject":"x"}}}}`:                              {"/mails/de/invitation/text missing"},
		`{"mails":{"de":{"invitation":{"subject":"x","text":"y"}}}}`:                   {"/mails/de/invitation/text required"},
		`{"mails":{"de":{"invitation":{"subject":"x","text":"{{printf .link}}"}}}}`:    {"/mails/de/invitation/text template"},
		`{"mails":{"en":{"invitation":{"subject":"a\nb"}}}}`:                           {"/mails/en/invitation/subject character"},
		`{"mails":{"en":{"invitation":{"html":"<p>{{.link}}</p><script></script>"}}}}`: {"/mails/en/invitation/html element"},
		`{"mails":{"en":7}}`: {"/mails/en type"},
		`{"domains":{"a.example":{"mails":{"en":{"invitation":{"subject":"{{.x}}"}}}}}}`: {"/domains/a.example/mails/en/invitation/subject variable"},
	} {
		if diff := cmp.Diff(want, problems(t, text)); diff != "" {
			t.Errorf("%s (-want +got)\n%s", text, diff)
		}
	}
}

// The tenant of the context gets its own mail, and nobody gets one without a tenant.
func TestMailFor(t *testing.T) {
	t.Parallel()
	s := new(settings.Store)
	issuer := tenanttest.NewIssuer(t, nil)
	apply(t, s, feed.Change{Reset: true, Entries: []feed.Entry{
		schemaEntry(t, settings.BrandNamespace, settings.BrandSchema()),
		docEntry(t, settings.PlatformKey(settings.BrandNamespace), `{"links":{"imprint":"https://house.example/imprint"}}`, 1),
		docEntry(t, settings.TenantKey(settings.BrandNamespace, uidOf("acme").String()), `{"domains":{"shop.acme.example":{"name":"Shop"}}}`, 2),
		docEntry(t, settings.TenantKey(settings.BrandNamespace, uidOf("globex").String()), `{"name":"Globex"}`, 3),
	}})
	for host, want := range map[string]string{"": "acme", "acme.example": "acme", "Shop.Acme.example": "Shop"} {
		m, err := settings.MailFor(issuer.In(t.Context(), t, "acme"), s, settings.MailRequest{Kind: "invitation", Host: host, Vars: link("inviter", "Ann")})
		if err != nil || m.Subject != "You are invited to "+want || !strings.Contains(m.Text, "Ann invites you") || !strings.Contains(m.Text, "house.example") {
			t.Errorf("%q: %v %+v", host, err, m)
		}
	}
	m, err := settings.MailFor(issuer.In(t.Context(), t, "globex"), s, settings.MailRequest{Kind: "invitation", Vars: link()})
	if err != nil || m.Subject != "You are invited to Globex" {
		t.Errorf("%v %+v", err, m)
	}
	_, err = settings.MailFor(t.Context(), s, settings.MailRequest{Kind: "invitation", Vars: link()})
	if fault.ReasonOf(err) != fault.ReasonContextMissing {
		t.Error(err)
	}
}
