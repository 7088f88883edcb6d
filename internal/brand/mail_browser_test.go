package brand_test

import (
	"fmt"
	"html"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/mail"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// A postman shows mails as the programs that people read them with do: as a document, and within a page of their own, parsed
// twice. No header guards them.
type postman []string

func (p postman) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, folder, _ := strings.Cut(r.URL.Path, "/")
	folder, number, _ := strings.Cut(folder, "/")
	n, _ := strconv.Atoi(number)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	switch folder {
	case "":
		fmt.Fprint(w, `<!doctype html><title>all</title>`)
		for i := range p {
			fmt.Fprintf(w, `<iframe src="/mail/%[1]d"></iframe><iframe src="/inner/%[1]d"></iframe>`, i)
		}
	case "mail":
		fmt.Fprint(w, p[n])
	case "inner":
		fmt.Fprintf(w, `<!doctype html><title>x</title><div id="d"></div><script>{
			const x = new XMLHttpRequest(); x.open("GET", "/mail/%d", false); x.send()
			const d = document.getElementById("d"); d.innerHTML = x.responseText; d.innerHTML = d.innerHTML}</script>`, n)
	default:
		http.NotFound(w, r)
	}
}

// shown lists what is in all mails, as the browser understands it: addresses, handlers, and elements that mails do not have.
const shown = `[...new Set([...document.querySelectorAll("iframe")].flatMap(f => !f.contentDocument ? ["gone elsewhere"] :
	[...f.contentDocument.querySelectorAll("*")].flatMap(e => {
	const found = []
	for (const a of e.attributes) {
		if (a.name.startsWith("on")) found.push("handler " + a.name)
		if (["href", "src", "srcset", "action", "data", "poster", "background", "formaction", "ping"].includes(a.name)) {
			found.push(a.name + " " + (e[a.name] || a.value))
		}
		if (a.name === "style" && /url|expression|import/i.test(a.value)) found.push("style " + a.value)
	}
	if (!"HTML HEAD META TITLE BODY TABLE TBODY THEAD TR TH TD IMG P BR HR STRONG EM B I U SPAN CODE A H1 H2 H3 UL OL LI BLOCKQUOTE PRE DIV"
		.split(" ").includes(e.nodeName) && !(e.nodeName === "SCRIPT" && e.textContent.includes("XMLHttpRequest"))) found.push("element " + e.nodeName)
	if (e.nodeName === "META" && e.httpEquiv) found.push("meta " + e.httpEquiv)
	return found
})))].sort()`

// evils are what nobody should be called. Those that are addresses are taken by variables of that type.
func evils() []string {
	const run, load = `console.log(1)`, `https://evil.example/ran`
	return []string{
		`"><script>` + run + `</script>`, `<img src=x onerror=` + run + `>`, `<img src=` + load + `>`, `' autofocus tabindex=1 onfocus='` + run,
		`" style="background:url(` + load + `)" x="`, `</p></td></tr></table></body></html><script>` + run + `</script>`,
		`<iframe src=` + load + `></iframe>`, `<style>@import "` + load + `";</style>`, `<svg onload=` + run + `><circle r=1>`,
		`<a href="javascript:` + run + `">x</a>`, `<meta http-equiv=refresh content="0;url=` + load + `">`, `<base href=https://evil.example/>`,
		`<link rel=stylesheet href=` + load + `>`, `<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=` + run + `&gt;">`,
		`<!--><img src=x onerror=` + run + `>-->`, `&lt;script&gt;` + run + `&lt;/script&gt;`, `&#60;img src=x onerror=` + run + `&#62;`,
		`<noscript><p title="</noscript><img src=x onerror=` + run + `>">`, `<form action=` + load + `><button autofocus>x`, `<object data=` + load + `>`,
		`<video poster=` + load + ` src=` + load + `>`, `<textarea><script>` + run + `</script>`, `</title><script>` + run + `</script>`,
		`<template><script>` + run + `</script></template>`, "<script\u00a0src=" + load + ">", `{{.link}}{{printf "%s" .link}}`, `<![CDATA[<img src=x onerror=` + run + `>]]>`,
		`javascript:` + run, load, `//evil.example/ran`, `data:text/html,<script>` + run + `</script>`, `https://evil.example\@a.example`,
		`https://a.example/?q=javascript:` + run, `https://a.example/%22%3E%3Cscript%3E` + run, `https://a.example/&quot;&#32;onclick=` + run,
		`https://a.example/&gt;<script>`, `https://user:pass@evil.example/ran`, `HTTPS://a.example/Ä?ß=1`,
	}
}

const digest = `"mail-kinds":{"digest":{"variables":{"week":"text","note":"lines"},"lists":{"items":{"title":"text","link":"url"}},"required":["week"],"unsubscribe":true}}`

// own are templates of a tenant's, which say all that their kinds have, in each place where it may stand.
func own() settings.Object {
	page := func(names ...string) settings.Object {
		var text, rich strings.Builder
		for _, name := range append(names, "brand") {
			place := "{{." + name + "}}"
			fmt.Fprintf(&text, "{{if .%s}}%s{{end}}\n\n", name, place)
			fmt.Fprintf(&rich, `{{if .%s}}<h1>%s</h1><p class="muted">a%sb</p><ul><li><b>%s</b></li></ul><pre>%s</pre>{{end}}`, name, place, place, place, place)
			if name == "link" || name == "unsubscribe" {
				fmt.Fprintf(&rich, `<p><a class="button" href="%s">%s</a></p>`, place, place)
			}
		}
		// What is required stands outside of conditions as well.
		for _, name := range names {
			text.WriteString("{{." + name + "}}\n")
			rich.WriteString("<p>{{." + name + "}}</p>")
		}
		return settings.Object{"subject": "x {{.brand}}", "text": text.String(), "html": rich.String()}
	}
	all := settings.Object{
		"invitation":     page("link", "recipient", "inviter", "expires"),
		"password-reset": page("link", "recipient", "expires"),
		"verification":   page("link", "code", "recipient", "expires"),
		"notice":         page("title", "message", "unsubscribe", "link", "recipient"),
		"digest":         page("week", "note", "unsubscribe"),
	}
	list := all["digest"].(settings.Object)
	list["html"] = list["html"].(string) + `<table><tbody><tr><td>{{range .items}}<a href="{{.link}}">{{.title}}</a>{{.title}}{{end}}</td></tr></tbody></table>`
	list["text"] = list["text"].(string) + "{{range .items}}{{.title}} {{.link}}\n{{end}}"
	return all
}

// letters writes a mail for each kind, template and evil, and returns them with the addresses that they may show.
func letters(t *testing.T) (mails []string, may map[string]bool) {
	t.Helper()
	may = make(map[string]bool)
	common, err := settings.Parse([]byte(`{"links":{"support":"https://house.example/help"},` + digest + `}`))
	if err != nil {
		t.Fatal(err)
	}
	common["mails"] = settings.Object{"en": settings.Object{"digest": own()["digest"]}, "de": own()}
	for i, evil := range evils() {
		o := maps.Clone(common)
		if len([]rune(evil)) <= 80 {
			o["name"] = evil
		}
		o["texts"] = settings.Object{"de": settings.Object{"link.support": evil}, "en": settings.Object{"link.support": evil}}
		if found := settings.CheckBrand(o); len(found) > 0 {
			t.Fatalf("%s: %v", evil, found)
		}
		b, err := settings.BrandOf(settings.Effective{Object: o})
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range b.MailKindNames() {
			k, _ := b.MailKind(kind)
			locale := []string{"en", "de"}[i%2] // the platform's template, or the tenant's
			if kind == "digest" {
				locale = "de"
			}
			m, err := b.Mail(settings.MailRequest{Kind: kind, Locale: locale, Vars: poisoned(k, evil, may)})
			if err != nil {
				t.Fatalf("%s with %s: %v", kind, evil, err)
			}
			mails = append(mails, m.HTML)
		}
	}
	return mails, may
}

// poisoned are the values of a kind with an evil wherever it is taken, and harmless ones elsewhere.
func poisoned(k mail.Kind, evil string, may map[string]bool) mail.Vars {
	v := k.Sample()
	put := func(values map[string]string, types map[string]mail.Type) {
		for name := range values {
			if types[name] != mail.URL {
				values[name] = evil
			} else if mail.CheckLink(evil) == nil {
				values[name] = evil
			}
			if types[name] == mail.URL {
				may[values[name]] = true
			}
		}
	}
	put(v.Values, k.All())
	delete(v.Values, mail.BrandVariable) // which is the brand's name
	for list, items := range v.Lists {
		for _, item := range items {
			put(item, k.Lists[list])
		}
	}
	return v
}

// No mail runs a script, asks for anything or leads anywhere but to its links, whatever people and tenants are called, in a
// real browser, as a document and inside of another page. The same browser sees what such names do in a mail that is put
// together without care.
func TestABrowserFindsNothingToRunInMails(t *testing.T) {
	t.Parallel()
	browser := chromium(t)
	mails, may := letters(t)
	seen := visit(browser, t, postman(some(mails, 2)), shown)
	for _, what := range append(seen.scripts, seen.foreign...) {
		t.Errorf("a mail: %s", html.UnescapeString(what))
	}
	may["https://house.example/help"] = true
	for address := range maps.Clone(may) {
		may[plain(t, address)] = true
	}
	links := 0
	for _, found := range seen.answers {
		address, isLink := strings.CutPrefix(found, "href ")
		if links++; !isLink || !strings.HasPrefix(address, "https://") || !may[plain(t, address)] {
			t.Errorf("in a mail: %s", found)
		}
	}
	if links < 3 {
		t.Errorf("only %d links: %v", links, seen.answers)
	}
	var careless postman
	for _, evil := range evils() {
		careless = append(careless, `<!doctype html><title>x</title><p>`+evil+`</p><a href="`+evil+`">x</a>`)
	}
	control := visit(browser, t, careless, shown)
	ran := func(address string) bool { return strings.Contains(address, "evil.example") }
	if len(control.scripts) == 0 || !slices.ContainsFunc(control.foreign, ran) || !slices.ContainsFunc(control.answers, func(s string) bool {
		return strings.HasPrefix(s, "handler ") || strings.HasPrefix(s, "href javascript:")
	}) {
		t.Errorf("the trap catches nothing: %d scripts, %d requests, %v", len(control.scripts), len(control.foreign), control.answers)
	}
	t.Logf("%d mails with %d links; careless ones ran %d scripts and sent %d requests", len(mails), links, len(control.scripts), len(control.foreign))
}

// plain is an address without the escapes that a browser or a writer of HTML may choose.
func plain(t *testing.T, address string) string {
	t.Helper()
	out, err := url.PathUnescape(strings.Replace(address, "HTTPS:", "https:", 1))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A mail for a host loads that host's logo and nothing else.
func TestABrowserLoadsTheLogoAlone(t *testing.T) {
	t.Parallel()
	browser := chromium(t)
	o, err := settings.Parse([]byte(`{"name":"Acme","logos":{"email":"` + strings.Repeat("a", 64) + `.png"}}`))
	if err != nil {
		t.Fatal(err)
	}
	b, err := settings.BrandOf(settings.Effective{Object: o})
	if err != nil {
		t.Fatal(err)
	}
	k, _ := b.MailKind("invitation")
	v := k.Sample()
	delete(v.Values, mail.BrandVariable)
	m, err := b.Mail(settings.MailRequest{Kind: "invitation", Host: "acme.example", Vars: v})
	if err != nil {
		t.Fatal(err)
	}
	seen := visit(browser, t, postman{m.HTML}, "")
	logo := "https://acme.example/.well-known/rowhouse/b/" + strings.Repeat("a", 64) + ".png"
	if slices.Sort(seen.foreign); len(seen.scripts) > 0 || !slices.Equal(slices.Compact(seen.foreign), []string{logo}) {
		t.Errorf("%v, %v", seen.scripts, seen.foreign)
	}
}
