package mail_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/rowhouse-platform/rowhouse/sdk/mail"
)

// digest is a kind with everything that kinds have.
func digest() mail.Kind {
	return mail.Kind{
		Variables: map[string]mail.Type{"name": mail.Text, "link": mail.URL, "note": mail.Lines},
		Lists:     map[string]map[string]mail.Type{"items": {"title": mail.Text, "link": mail.URL}},
		Required:  []string{"link"}, Unsubscribe: true,
	}
}

const (
	subject = `{{if .name}}{{.name}}, {{end}}news of {{.brand}}`
	text    = "{{.link}}\n{{range .items}}- {{.title}} {{.link}} {{$.name}}\n{{else}}nothing\n{{end}}\n{{.unsubscribe}}\n"
	page    = `<h1>{{.brand}}</h1><p><a class="button" href="{{.link}}">Go</a></p>{{if .note}}<p>{{.note}}</p>{{end}}` +
		`<ul>{{range .items}}<li lang="de"><a href="{{.link}}">{{.title}}</a></li>{{end}}</ul><p class="muted"><a href="{{.unsubscribe}}">End</a></p>`
)

func whole() mail.Template { return mail.Template{Subject: subject, Text: text, HTML: page} }

func vars() mail.Vars {
	return mail.Vars{
		Values: map[string]string{
			"brand": "Acme", "name": "Ann", "link": "https://acme.example/a?b=c&d=e", "unsubscribe": "https://acme.example/end/1",
		},
		Lists: map[string][]map[string]string{"items": {{"title": "One", "link": "https://acme.example/1"}, {"title": "Two", "link": "https://acme.example/2"}}},
	}
}

func look() mail.Look {
	return mail.Look{
		Name: "Acme", Language: "en", Logo: "https://acme.example/logo.png", Font: "Georgia, serif", Background: "#ffffff", Surface: "#f5f5f4",
		Text: "#000000", Muted: "#57534e", Border: "#d6d3d1", Accent: "#1d4ed8", Primary: "#b91c1c", OnPrimary: "#ffffff",
		Links: []mail.Link{{"Imprint", "https://acme.example/imprint"}, {"No", "javascript:1"}},
	}
}

func TestRender(t *testing.T) {
	t.Parallel()
	if found := whole().Check(digest()); len(found) > 0 {
		t.Fatal(found)
	}
	m, err := whole().Render(digest(), vars(), look())
	if err != nil {
		t.Fatal(err)
	}
	if m.Subject != "Ann, news of Acme" || m.Headers["List-Unsubscribe"] != "<https://acme.example/end/1>" ||
		m.Headers["List-Unsubscribe-Post"] != "List-Unsubscribe=One-Click" || m.Language != "en" {
		t.Errorf("%q %v", m.Subject, m.Headers)
	}
	const wantText = "https://acme.example/a?b=c&d=e\n- One https://acme.example/1 Ann\n- Two https://acme.example/2 Ann\n\n" +
		"https://acme.example/end/1\n\n-- \nAcme\nImprint: https://acme.example/imprint\n"
	if m.Text != wantText {
		t.Errorf("text %q", m.Text)
	}
	for _, want := range []string{
		`<a href="https://acme.example/a?b=c&amp;d=e" style="color:#1d4ed8;display:inline-block`, `background:#b91c1c;color:#ffffff`,
		`<li lang="de"><a href="https://acme.example/2"`, `<img src="https://acme.example/logo.png" alt="Acme"`, `>Imprint</a>`, `<html lang="en">`,
	} {
		if !strings.Contains(m.HTML, want) {
			t.Errorf("HTML lacks %s:\n%s", want, m.HTML)
		}
	}
	if strings.Contains(m.HTML, "javascript") || strings.Contains(m.HTML, "{{") {
		t.Error(m.HTML)
	}
}

// Without HTML the text becomes it; a line that is a whole address given as one becomes a link, and no other does.
func TestHTMLOfText(t *testing.T) {
	t.Parallel()
	k := mail.Kind{Variables: map[string]mail.Type{"name": mail.Text, "link": mail.URL}, Required: []string{"link"}}
	tpl := mail.Template{Subject: "Hi", Text: "Hello {{.name}},\n\n{{.link}}\n\nBye <b>&\n"}
	v := mail.Vars{Values: map[string]string{"name": "https://evil.example/ <i>", "link": "https://acme.example/1"}}
	m, err := tpl.Render(k, v, look())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(m.HTML, `<a href="https://acme.example/1"`) != 1 || strings.Contains(m.HTML, `href="https://evil`) ||
		!strings.Contains(m.HTML, "Bye &lt;b&gt;&amp;") || strings.Contains(m.HTML, "<i>") {
		t.Error(m.HTML)
	}
	if m.Headers != nil {
		t.Error(m.Headers)
	}
}

// What authors may not write is refused before it runs.
func TestHostileTemplates(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("{{if .name}}", 20) + "x" + strings.Repeat("{{end}}", 20)
	everywhere := map[string][]string{
		"template": {
			`{{printf "%s" .name}}`, `{{.name | html}}`, `{{call .name}}`, `{{index .items 0}}`, `{{len .items}}`, `{{define "x"}}{{end}}`,
			`{{template "x"}}`, `{{block "x" .}}{{end}}`, `{{with .name}}x{{end}}`, `{{$x := .name}}`, `{{$x}}`, `{{.}}`, `{{"x"}}`, `{{1}}`, `{{true}}`,
			`{{nil}}`, `{{(.name)}}`, `{{.name.Foo}}`, `{{.name.String}}`, `{{and .name .name}}`, `{{not .name}}`, `{{print .}}`, `{{js .name}}`, `{{`, `{{.name`,
			`{{if .name}}`, `{{end}}`, `{{if eq .name "a"}}x{{end}}`, `{{range $i, $x := .items}}x{{end}}`, `{{range .name}}x{{end}}`,
			`{{range .items}}{{break}}{{end}}`, `{{range .items}}{{continue}}{{end}}`, `{{range 9}}x{{end}}`,
			`{{if $x := .name}}x{{end}}`, `{{$.name.x}}`, `{{$}}`, `{{slice .name 1}}`, `{{range .items}}{{range $.items}}x{{end}}{{end}}`,
		},
		"variable": {
			`{{.secret}}`, `{{.Name}}`, `{{range .items}}{{.name}}{{end}}`, `{{range .items}}{{$.title}}{{end}}`, `{{if .secret}}x{{end}}`, `{{.items}}`,
			`{{$.secret}}`, `{{range .secrets}}x{{end}}`, `{{range .items}}{{range .items}}x{{end}}{{end}}`,
		},
		"depth":     {deep},
		"size":      {strings.Repeat("x", 40<<10)},
		"character": {"a\x00b", "a\u202eb", "a\ue000b", "a\U000f0000b", "\xff", "a\u2028b", "a\rb"},
		"missing":   {" "},
	}
	check := func(part, rule, source string) {
		tpl := mail.Template{Subject: "Hi", Text: "{{.link}} {{.unsubscribe}}", HTML: ""}
		need := `<p>{{.link}}{{.unsubscribe}}</p>`
		switch part {
		case "subject":
			tpl.Subject = source
		case "text":
			tpl.Text = "{{.link}} {{.unsubscribe}}" + source
		default:
			tpl.HTML = need + source
		}
		found := tpl.Check(digest())
		if !slices.ContainsFunc(found, func(p mail.Problem) bool { return p.Part == part && p.Rule == rule }) {
			t.Errorf("%s %.80q: %v; want %s", part, source, found, rule)
		}
		if _, err := tpl.Render(digest(), vars(), look()); err == nil {
			t.Errorf("%s %.80q renders", part, source)
		}
	}
	for rule, sources := range everywhere {
		for _, source := range sources {
			if rule != "missing" {
				check("text", rule, source)
				check("html", rule, source)
			}
			check("subject", rule, source)
		}
	}
	check("subject", "character", "a\nb")
	check("subject", "character", "a\r\nBcc: x@example.com")
	for rule, sources := range hostileHTML() {
		for _, source := range sources {
			check("html", rule, source)
		}
	}
}

// hostileHTML is what may not stand in HTML, by the rule that says so.
func hostileHTML() map[string][]string {
	return map[string][]string{
		"element": {
			`<script>1</script>`, `<img src="https://evil.example/x.png">`, `<style>a{}</style>`, `<iframe></iframe>`, `<svg></svg>`, `<math></math>`,
			`<form></form>`, `<input>`, `<object></object>`, `<link rel="x">`, `<meta charset="x">`, `<base href="https://x.example">`, `<title>x</title>`,
			`<textarea>{{.name}}</textarea>`, `<noscript>x</noscript>`, `<template></template>`, `<body></body>`, `<html></html>`, `<x-y></x-y>`,
			`<p><p>x</p></p>`, `<p><div>x</div></p>`, `<a href="https://a.example"><a href="https://b.example">x</a></a>`, `<ul><p>x</p></ul>`,
			`<table><tr><td>x</td></tr></table>`, `<li>x</li>`, `<td>x</td>`, `<p/>`, `<b><p>x</p></b>`, `<video></video>`, `<button>x</button>`,
			`<p{{if .name}} class="muted"{{end}}>x</p>`, `<br{{.name}}>`, strings.Repeat("<div>", 30) + strings.Repeat("</div>", 30),
		},
		"attribute": {
			`<p style="color:red">x</p>`, `<p onclick="1">x</p>`, `<p id="x">x</p>`, `<p class="{{.name}}">x</p>`, `<p class="evil">x</p>`, `<p lang="{{.name}}">x</p>`,
			`<a>x</a>`, `<a href="https://a.example" target="x">x</a>`,
			`<p {{.name}}="x">x</p>`, `<p {{.name}}>x</p>`, `<a href="https://a.example" ping="https://b.example">x</a>`, `<p dir="x">x</p>`, `<p colspan="2">x</p>`,
			`<p {{if .name}}class="muted"{{end}}>x</p>`, `<p href="https://a.example">x</p>`, `<p background="https://a.example">x</p>`,
		},
		"link": {
			`<a href="javascript:1">x</a>`, `<a href="http://a.example">x</a>`, `<a href="//a.example">x</a>`, `<a href="/x">x</a>`, `<a href="data:text/html,x">x</a>`,
			`<a href="mailto:a@b.example">x</a>`, `<a href="">x</a>`, `<a href="{{.name}}">x</a>`, `<a href="https://{{.name}}">x</a>`, `<a href="{{.link}}{{.link}}">x</a>`,
			`<a href="https://a.example/{{.name}}">x</a>`, `<a href="{{if .name}}https://a.example{{end}}">x</a>`, `<a href="https://user:pass@a.example">x</a>`,
			`<a href="javascript&colon;1">x</a>`, `<a href=" https://a.example">x</a>`, "<a href=\"https://a.example/\n\">x</a>",
			`<a href={{.name}}>x</a>`, `<a href="{{.note}}">x</a>`, `<a href="https://a.example/{{range .items}}{{.title}}{{end}}">x</a>`,
		},
		"html": {
			`<!-- x -->`, `<!doctype html>`, `<![CDATA[x]]>`, `<?php 1 ?>`, `</p>`, `<p>x`, `<p>x</div>`, `<p`, `<a href="`, `<p>x</p></p>`, `</>`,
			`{{if .name}}<p>x{{else}}</p>{{end}}`, `{{if .name}}<p>{{end}}x</p>`, `<p>x{{if .name}}</p>{{end}}`, `<div>{{if .name}}</div><div>{{end}}</div>`,
			`<p>{{if .name}}<b>{{else}}</b>{{end}}</p>`, `<!--{{.name}}-->`, `<{{.name}}>`, `<{{.name}} x>`, `a < b`, `<p>&#xe000;x</p>`,
		},
		"text":      {`<ul>x</ul>`, `<ul>{{.name}}</ul>`, `<table><thead>{{.name}}</thead></table>`, `<table><tbody><tr>x</tr></tbody></table>`},
		"place":     {`<p>&#xf0000;</p>`, `<a href="&#xf0000;">x</a>`, `&#xf0000;`},
		"character": {`<p>&#x202e;</p>`},
	}
}

// A required variable counts as shown only where nothing can hide it.
func TestRequiredIsShown(t *testing.T) {
	t.Parallel()
	k := mail.Kind{
		Variables: map[string]mail.Type{"name": mail.Text, "link": mail.URL}, Required: []string{"link"},
		Lists: map[string]map[string]mail.Type{"items": {"link": mail.URL}},
	}
	for source, good := range map[string]bool{
		`{{.link}}`: true, `x`: false, `{{if .name}}{{.link}}{{end}}`: false, `{{if .name}}a {{.link}}{{else}}b {{.link}}{{end}}`: true,
		`{{if .link}}{{.link}}{{end}}`: true, `{{range .items}}{{.link}}{{end}}`: false, `{{range .items}}{{$.link}}{{end}}`: false,
		`{{if .link}}x{{end}}`: false, `{{if .name}}x{{else if .link}}{{.link}}{{end}}`: false, `{{if .items}}{{.link}}{{else}}{{.link}}{{end}}`: true,
	} {
		found := mail.Template{Subject: "x", Text: source}.Check(k)
		if bad := slices.ContainsFunc(found, func(p mail.Problem) bool { return p.Rule == "required" }); bad == good {
			t.Errorf("%s: %v", source, found)
		}
	}
}

func TestVarsRefused(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(v mail.Vars){
		"unknown":              func(v mail.Vars) { v.Values["secret"] = "x" },
		"missing":              func(v mail.Vars) { delete(v.Values, "link") },
		"blank":                func(v mail.Vars) { v.Values["link"] = "" },
		"no unsubscribe":       func(v mail.Vars) { delete(v.Values, "unsubscribe") },
		"line end in a line":   func(v mail.Vars) { v.Values["name"] = "Ann\nBcc: x@example.com" },
		"carriage return":      func(v mail.Vars) { v.Values["name"] = "Ann\rX" },
		"header by both":       func(v mail.Vars) { v.Values["brand"] = "Ann\r\nBcc: x@example.com" },
		"direction":            func(v mail.Vars) { v.Values["name"] = "Ann\u202egpj" },
		"not UTF-8":            func(v mail.Vars) { v.Values["name"] = "\xff" },
		"zero":                 func(v mail.Vars) { v.Values["name"] = "a\x00" },
		"too long":             func(v mail.Vars) { v.Values["name"] = strings.Repeat("x", 1001) },
		"script":               func(v mail.Vars) { v.Values["link"] = "javascript:alert(1)" },
		"http":                 func(v mail.Vars) { v.Values["link"] = "http://acme.example" },
		"end of an attribute":  func(v mail.Vars) { v.Values["link"] = `https://acme.example/"onclick="1` },
		"end of a header":      func(v mail.Vars) { v.Values["unsubscribe"] = "https://acme.example/>\r\nBcc: x" },
		"bracket in a header":  func(v mail.Vars) { v.Values["unsubscribe"] = "https://acme.example/>,<mailto:x@example.com" },
		"user":                 func(v mail.Vars) { v.Values["link"] = "https://acme.example@evil.example" },
		"unknown list":         func(v mail.Vars) { v.Lists["x"] = nil },
		"too many":             func(v mail.Vars) { v.Lists["items"] = make([]map[string]string, 101) },
		"unknown part":         func(v mail.Vars) { v.Lists["items"][0]["x"] = "y" },
		"script in a list":     func(v mail.Vars) { v.Lists["items"][0]["link"] = "javascript:1" },
		"a list as a variable": func(v mail.Vars) { v.Values["items"] = "x" },
	} {
		v := vars()
		change(v)
		if _, err := whole().Render(digest(), v, look()); !errors.Is(err, mail.ErrVars) {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(err.Error(), "evil") || strings.Contains(err.Error(), "Bcc") {
			t.Errorf("%s: the error holds the value: %v", name, err)
		}
	}
	v := vars()
	v.Values["note"] = "two\nlines"
	if _, err := whole().Render(digest(), v, look()); err != nil {
		t.Error(err)
	}
	lines := mail.Template{Subject: "{{.note}}", Text: "{{.link}}{{.unsubscribe}}"}
	if _, err := lines.Render(digest(), v, look()); !errors.Is(err, mail.ErrVars) { // lines in a subject
		t.Error(err)
	}
}

// However much a template repeats, it ends early and in little memory.
func TestOutputIsBounded(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 8<<10)
	k := digest()
	v := vars()
	for range 98 {
		v.Lists["items"] = append(v.Lists["items"], map[string]string{"title": strings.Repeat("y", 1000)})
	}
	tpl := mail.Template{Subject: "x", Text: "{{.link}}{{.unsubscribe}}{{range .items}}" + big + "{{.title}}{{end}}"}
	began := time.Now()
	if _, err := tpl.Render(k, v, look()); !errors.Is(err, mail.ErrTooLong) {
		t.Error(err)
	}
	empty := mail.Template{Subject: "x", Text: "{{.link}}{{.unsubscribe}}" + strings.Repeat("{{range .items}}{{end}}", 600)}
	if _, err := empty.Render(k, v, look()); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestKindsRefused(t *testing.T) {
	t.Parallel()
	text := map[string]mail.Type{"a": mail.Text}
	for name, k := range map[string]mail.Kind{
		"type": {Variables: map[string]mail.Type{"a": "html"}}, "name": {Variables: map[string]mail.Type{"A": mail.Text}},
		"ours": {Variables: map[string]mail.Type{"unsubscribe": mail.URL}}, "brand": {Lists: map[string]map[string]mail.Type{"brand": text}},
		"twice": {Variables: text, Lists: map[string]map[string]mail.Type{"a": text}}, "required": {Required: []string{"x"}},
		"part": {Lists: map[string]map[string]mail.Type{"l": {"x-y": mail.Text}}},
	} {
		if k.Check() == nil {
			t.Error(name)
		}
	}
	if err := digest().Check(); err != nil {
		t.Error(err)
	}
}

// Whatever is in variables, a mail has the elements and addresses of its template alone.
func FuzzVariables(f *testing.F) {
	for _, v := range []string{
		"Ann", `"><script>alert(1)</script>`, "' onmouseover='1", "</p></td></tr></table><a href=https://evil.example>x</a>", "{{.link}}", "{{printf 1}}",
		"&lt;script&gt;", "<!--", "-->", "]]>", "javascript:1", "https://evil.example", "a\r\nBcc: b", "\u202e", "<a href=\"https://evil.example\">", "\\u003cb\\u003e",
		"`${1}`", "&#60;b&#62;", "\u2028", "\x00", "=?utf-8?q?x?=",
	} {
		f.Add(v, v, v, v)
	}
	want := ""
	f.Fuzz(func(t *testing.T, name, note, title, link string) {
		v := vars()
		v.Values["name"], v.Values["note"] = name, "n"+note
		v.Lists["items"][0]["title"] = title
		if mail.CheckLink(link) == nil && len(link) < 2000 {
			v.Lists["items"][0]["link"] = link
		}
		m, err := whole().Render(digest(), v, look())
		if err != nil {
			if !errors.Is(err, mail.ErrVars) && !errors.Is(err, mail.ErrTooLong) {
				t.Fatal(err)
			}
			return
		}
		if strings.ContainsAny(m.Subject, "\r\n\x00") {
			t.Fatalf("subject %q", m.Subject)
		}
		for name, value := range m.Headers {
			if strings.ContainsAny(name+value, "\r\n\x00 ") {
				t.Fatalf("header %q %q", name, value)
			}
		}
		if got := skeleton(t, m.HTML); want == "" {
			want = got
		} else if got != want {
			t.Fatalf("the mail's elements change with its variables:\n%s\n%s", got, want)
		}
	})
}

// skeleton lists the elements of a page with their attributes. Addresses are https or nothing.
func skeleton(tb testing.TB, page string) string {
	tb.Helper()
	root, err := html.Parse(strings.NewReader(page))
	if err != nil {
		tb.Fatal(err)
	}
	var out strings.Builder
	for n := range root.Descendants() {
		if n.Type == html.TextNode {
			continue
		}
		fmt.Fprintf(&out, "<%d %s", n.Type, n.Data)
		for _, a := range n.Attr {
			if a.Key == "href" || a.Key == "src" {
				if !strings.HasPrefix(a.Val, "https://") {
					tb.Fatalf("an address %q", a.Val)
				}
				a.Val = ""
			}
			fmt.Fprintf(&out, " %s=%q", a.Key, a.Val)
		}
	}
	return out.String()
}

// Whatever an author writes, it is refused or makes a mail of the elements on the list, and nothing that runs or loads.
func FuzzTemplates(f *testing.F) {
	f.Add(subject, text, page)
	for _, sources := range hostileHTML() {
		for _, s := range sources {
			f.Add("Hi", "{{.link}}{{.unsubscribe}}", `<p>{{.link}}{{.unsubscribe}}</p>`+s)
		}
	}
	f.Fuzz(func(t *testing.T, subject, text, page string) {
		tpl := mail.Template{Subject: subject, Text: text, HTML: page}
		if len(tpl.Check(digest())) > 0 {
			return
		}
		m, err := tpl.Render(digest(), vars(), look())
		if err != nil {
			if !errors.Is(err, mail.ErrVars) && !errors.Is(err, mail.ErrTooLong) {
				t.Fatalf("%q passed the check and does not render: %v", page, err)
			}
			return
		}
		root, err := html.Parse(strings.NewReader(m.HTML))
		if err != nil {
			t.Fatal(err)
		}
		known := strings.Fields("html head meta title body table tbody thead tr th td img p br hr strong em b i u span code a h1 h2 h3 ul ol li blockquote pre div")
		for n := range root.Descendants() {
			if n.Type == html.CommentNode || (n.Type == html.ElementNode && (n.Namespace != "" || !slices.Contains(known, n.Data))) {
				t.Fatalf("%q made <%s>", page, n.Data)
			}
			for _, a := range n.Attr {
				if strings.HasPrefix(a.Key, "on") || ((a.Key == "href" || a.Key == "src") && mail.CheckLink(a.Val) != nil) {
					t.Fatalf("%q made %s=%q", page, a.Key, a.Val)
				}
			}
		}
	})
}
