package mail

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/html"
)

// Look is what a mail takes over from a brand. Its texts may be anything; addresses that are not https are left out.
type Look struct {
	// Name is the brand's; Language is the mail's (BCP 47).
	Name, Language string
	// Logo is the absolute address of a picture; empty shows the name instead.
	Logo string
	// Links stand at the foot.
	Links []Link
	// Colours by what they are for, each "#rrggbb".
	Background, Surface, Text, Muted, Border, Accent, Primary, OnPrimary string
	// Font is a list of families as CSS has it, written by us.
	Font string
}

// Link is an address with what it is called.
type Link struct{ Label, URL string }

// Message is a mail that is ready to be sent.
type Message struct {
	// Subject is one line; Text and HTML are the two parts of multipart/alternative.
	Subject, Text, HTML string
	// Language is that of the template (BCP 47).
	Language string
	// Headers are fields that belong to the mail: List-Unsubscribe and List-Unsubscribe-Post (RFC 8058) where it has to be
	// possible to end such mails. Values have no line ends.
	Headers map[string]string
}

// Render makes a mail of the template. Errors wrap [ErrVars] where values are to blame, and [ErrTooLong].
func (t Template) Render(k Kind, v Vars, l Look) (Message, error) {
	if err := v.check(k); err != nil {
		return Message{}, err
	}
	parts := t.parts()
	subject, err := k.run(parts[0], v)
	if err != nil {
		return Message{}, err
	}
	subject = strings.TrimSpace(subject)
	if subject == "" || !visible(subject, maxTitle) { // values are of one line, but for those of type "lines"
		return Message{}, fmt.Errorf("%w: the subject would not be a line of at most %d characters", ErrVars, maxTitle)
	}
	text, err := k.run(parts[1], v)
	if err != nil {
		return Message{}, err
	}
	fragment := paragraphs(text, k, v)
	if t.HTML != "" {
		if fragment, err = k.run(parts[2], v); err != nil {
			return Message{}, err
		}
	}
	body, err := rewrite(fragment, l.style)
	if err != nil {
		return Message{}, err
	}
	m := Message{Subject: subject, Text: strings.TrimSpace(text) + "\n" + l.footText(), HTML: l.frame(subject, body), Language: l.Language}
	if end := v.Values[UnsubscribeVariable]; k.Unsubscribe {
		m.Headers = map[string]string{"List-Unsubscribe": "<" + end + ">", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}
	}
	if len(m.Text) > MaxOutput || len(m.HTML) > MaxOutput || !utf8.ValidString(m.HTML) {
		return Message{}, ErrTooLong
	}
	return m, nil
}

// paragraphs makes HTML of a text: a paragraph between blank lines, and a link of a line that is a whole value of type URL. Other
// addresses stay text, for they may be part of what somebody calls himself.
func paragraphs(text string, k Kind, v Vars) string {
	links := make(map[string]bool)
	for name, t := range k.All() {
		if t == URL && v.Values[name] != "" {
			links[v.Values[name]] = true
		}
	}
	var out strings.Builder
	for p := range strings.SplitSeq(text, "\n\n") {
		if strings.TrimSpace(p) == "" {
			continue
		}
		var lines []string
		for line := range strings.SplitSeq(strings.TrimSpace(p), "\n") {
			shown := html.EscapeString(strings.TrimSpace(line))
			if links[strings.TrimSpace(line)] {
				shown = `<a href="` + shown + `">` + shown + `</a>`
			}
			lines = append(lines, shown)
		}
		out.WriteString("<p>" + strings.Join(lines, "<br>") + "</p>")
	}
	return out.String()
}

// style is what elements look like: readers of mail drop style sheets.
func (l Look) style(element, class string) string {
	own := map[string]string{
		"p": "margin:0 0 16px", "h1": "margin:0 0 16px;font-size:24px;line-height:1.3", "h2": "margin:0 0 12px;font-size:20px;line-height:1.3",
		"h3": "margin:0 0 8px;font-size:16px", "ul": "margin:0 0 16px;padding:0 0 0 24px", "ol": "margin:0 0 16px;padding:0 0 0 24px",
		"blockquote": "margin:0 0 16px;padding:0 0 0 12px;border-left:3px solid " + l.Border, "a": "color:" + l.Accent,
		"hr":    "border:0;border-top:1px solid " + l.Border + ";margin:16px 0",
		"table": "border-collapse:collapse;margin:0 0 16px;width:100%", "td": "padding:6px 8px;border-bottom:1px solid " + l.Border,
		"th": "padding:6px 8px;text-align:left;border-bottom:2px solid " + l.Border, "code": "font-family:ui-monospace,monospace",
		"pre": "margin:0 0 16px;font-family:ui-monospace,monospace;white-space:pre-wrap",
	}[element]
	more := map[string]string{
		"button": "display:inline-block;padding:10px 18px;text-decoration:none;border-radius:4px;background:" + l.Primary +
			";color:" + l.OnPrimary,
		"muted": "color:" + l.Muted, "center": "text-align:center",
	}[class]
	if own == "" || more == "" {
		return own + more
	}
	return own + ";" + more
}

// frame puts a body into the page that every mail is.
func (l Look) frame(title, body string) string {
	e := html.EscapeString
	head := `<strong style="font-size:18px">` + e(l.Name) + `</strong>`
	if CheckLink(l.Logo) == nil {
		head = `<img src="` + e(l.Logo) + `" alt="` + e(l.Name) + `" height="40" ` +
			`style="display:block;border:0;height:40px;width:auto;max-width:240px">`
	}
	under := e(l.Name)
	var foot []string
	for _, link := range l.Links {
		if CheckLink(link.URL) == nil {
			foot = append(foot, `<a href="`+e(link.URL)+`" style="color:`+l.Muted+`">`+e(link.Label)+`</a>`)
		}
	}
	if len(foot) > 0 {
		under += `<br>` + strings.Join(foot, ` &middot; `)
	}
	table := func(style, rows string) string { // programs that show mails lay out by tables
		return `<table role="presentation" width="100%" cellpadding="0" cellspacing="0" style="` + style + "\"><tbody>\n" +
			rows + "</tbody></table>"
	}
	row := func(style, inside string) string { return `<tr><td style="` + style + `">` + inside + "</td></tr>\n" }
	sheet := table("max-width:600px;background:"+l.Surface+";border-top:4px solid "+l.Primary,
		row("padding:24px 24px 8px", head)+
			row("padding:16px 24px;color:"+l.Text+";font:16px/1.5 "+e(l.Font), body)+
			row("padding:16px 24px;border-top:1px solid "+l.Border+";color:"+l.Muted+";font:13px/1.5 "+e(l.Font), under))
	return `<!doctype html>
<html lang="` + e(l.Language) + `"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">` +
		`<meta name="color-scheme" content="light"><title>` + e(title) + `</title></head>
<body style="margin:0;padding:0;background:` + l.Background + `;color:` + l.Text + `">
` + table("background:"+l.Background, `<tr><td align="center" style="padding:24px 12px">`+sheet+"</td></tr>\n") + `</body></html>
`
}

// footText is the foot of the text part.
func (l Look) footText() string {
	var out strings.Builder
	for _, link := range l.Links {
		if CheckLink(link.URL) == nil {
			out.WriteString(link.Label + ": " + link.URL + "\n")
		}
	}
	if out.Len() == 0 {
		return ""
	}
	return "\n-- \n" + l.Name + "\n" + out.String()
}
