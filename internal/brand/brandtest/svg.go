// Package brandtest makes hostile uploads in families: for tests of the sanitisers, and of whatever serves what they let
// through. Where a script of theirs runs it calls Trap, and where they reach out, they reach for Foreign.
package brandtest

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// Foreign is the host that nothing may ask.
const Foreign = "foreign.test"

// Trap is the script: it reports itself on the console and by a request.
const Trap = `console.log('rowhouse-trap');new Image().src='//` + Foreign + `/ran'`

// An Attack is one upload.
type Attack struct {
	Name  string // family and number
	Input string
}

// wrap puts the inside of an SVG into one.
func wrap(inside string) string {
	return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9">` + inside + `</svg>`
}

func family(name string, inputs ...string) (all []Attack) {
	for i, input := range inputs {
		all = append(all, Attack{fmt.Sprintf("%s %d", name, i+1), input})
	}
	return all
}

// each makes an input of every value.
func each(format string, values ...string) (all []string) {
	for _, v := range values {
		all = append(all, fmt.Sprintf(format, v))
	}
	return all
}

func wrapped(inputs []string) (all []string) {
	for _, input := range inputs {
		all = append(all, wrap(input))
	}
	return all
}

// SVG returns files each of which has to be refused.
func SVG() []Attack {
	var all []Attack
	add := func(name string, inputs ...string) { all = append(all, family(name, inputs...)...) }
	add("element", wrapped(forbiddenElements())...)
	add("nested element", wrapped(each(`<g><defs><symbol>%s</symbol></defs></g>`, forbiddenElements()...))...)
	add("in text", wrapped(each(`<text>%s</text>`, forbiddenElements()...))...)
	add("in title", wrapped(each(`<title>%s</title>`, forbiddenElements()...))...)
	add("in desc", wrapped(each(`<desc>%s</desc>`, append(forbiddenElements(), `<g/>`, `<title/>`, `<path/>`)...))...)
	add("handler", wrapped(handlers())...)
	add("handler of the root", each(`<svg xmlns="http://www.w3.org/2000/svg" %s="`+Trap+`"/>`, "onload", "onbegin", "onerror", "onfocus",
		"ONLOAD")...)
	for _, attribute := range []string{"href", "xlink:href", "src", "data", "action", "to", "from", "values", "attributeName", "formaction"} {
		add("address in "+attribute, wrapped(each(`<use xmlns:xlink="http://www.w3.org/1999/xlink" `+attribute+`="%s"/>`, addresses()...))...)
	}
	for _, property := range []string{"fill", "stroke", "mask", "clip-path", "filter", "marker", "marker-start", "cursor", "font-family",
		"transform", "d", "color",
		"style", "class", "id", "width", "opacity", "font"} {
		add("value of "+property, wrapped(each(`<path `+property+`="%s"/>`, values()...))...)
		add("style of "+property, wrapped(each(`<path style="`+property+`:%s"/>`, values()...))...)
	}
	add("namespace", namespaces()...)
	add("entity", entities()...)
	add("instruction", instructions()...)
	add("encoding", encodings()...)
	add("syntax", malformed()...)
	add("reference", references()...)
	add("mXSS", wrapped(mutations())...)
	return append(all, bombs()...)
}

func forbiddenElements() []string {
	return []string{
		`<script>` + Trap + `</script>`, `<script href="//foreign.test/x.js"/>`, `<SCRIPT>` + Trap + `</SCRIPT>`, `<sCrIpT/>`,
		`<script type="module"/>`,
		`<script><![CDATA[` + Trap + `]]></script>`, `<foreignObject><b/></foreignObject>`, `<foreignobject/>`,
		`<foreignObject><iframe xmlns="http://www.w3.org/1999/xhtml" srcdoc="x"/></foreignObject>`,
		`<style>@import "//foreign.test/x.css";</style>`, `<style/>`, `<image href="//foreign.test/x.png"/>`,
		`<img src="x" onerror="` + Trap + `"/>`,
		`<feImage href="//foreign.test/x.png"/>`, `<filter id="f"><feImage href="//foreign.test/x"/></filter>`,
		`<a href="javascript:` + Trap + `"><text>x</text></a>`,
		`<animate attributeName="href" values="javascript:x"/>`, `<set attributeName="onmouseover" to="` + Trap + `"/>`,
		`<animateTransform onbegin="` + Trap + `"/>`,
		`<animateMotion/>`, `<discard/>`, `<handler/>`, `<listener/>`, `<iframe src="//foreign.test"/>`, `<embed/>`, `<object/>`, `<audio/>`,
		`<video/>`, `<source/>`,
		`<link rel="stylesheet" href="//foreign.test/x.css"/>`, `<meta http-equiv="refresh" content="0;//foreign.test"/>`,
		`<base href="//foreign.test/"/>`, `<form/>`,
		`<input/>`, `<math/>`, `<textPath href="#x">x</textPath>`, `<tref href="//foreign.test/x#x"/>`,
		`<font-face-uri href="//foreign.test/x"/>`, `<cursor/>`,
		`<mpath href="//foreign.test/x"/>`, `<switch/>`, `<view/>`, `<metadata/>`, `<marker/>`, `<svg/>`, `<html/>`, `<body/>`, `<p/>`,
		`<noscript/>`, `<template/>`,
		`<xmp/>`, `<plaintext/>`, `<solidcolor/>`, `<hatch/>`, `<unknown/>`, `<рath/>`, `<ſcript/>`, `<script&#x20;/>`,
	}
}

func handlers() (all []string) {
	names := strings.Fields(`onload onerror onclick onmouseover onfocus onfocusin onbegin onend onrepeat onactivate onanimationstart
		ontransitionend onpointerover onwheel onscroll ontoggle oncopy
		onunload onresize onzoom onabort onmessage OnLoad ONERROR onload&#9; formaction srcdoc ping
		data-x aria-label tabindex autofocus contenteditable is slot part nonce crossorigin externalResourcesRequired xml:base xml:id
		requiredExtensions systemLanguage`)
	for _, element := range []string{"g", "path", "use", "text", "rect", "linearGradient"} {
		all = append(all, each(`<`+element+` %s="`+Trap+`"/>`, names...)...)
	}
	return all
}

func addresses() []string {
	return []string{
		`https://foreign.test/x.svg#a`, `//foreign.test/x#a`, `http:/foreign.test`, `\\foreign.test\x`, `/x.svg#a`, `x.svg#a`, `?#a`,
		`data:image/svg+xml,&lt;svg onload=1>`,
		`data:image/svg+xml;base64,PHN2Zy8+#a`, `javascript:1`, `JaVaScRiPt:1`, `java&#9;script:1`, `java&#10;script:1`, ` javascript:1`,
		`&#1;javascript:1`, `&#106;avascript:1`,
		`vbscript:1`, `blob:x`, `file:///etc/passwd`, `ftp://foreign.test`, `mhtml:x`, `feed:x`, `#a b`, `#a"`, `#`, ``, `#xpointer(id('a'))`,
		`#svgView(viewBox(0,0,1,1))`, `#а`,
		`&#x2f;/foreign.test/x`, `a:b`, `#a/../x`, `#%61`, `##a`, `https&colon;//foreign.test`, `javascript&#x3a;1`, `#a;url(//foreign.test)`,
	}
}

func values() []string {
	return []string{
		`url(//foreign.test/x)`, `url('//foreign.test/x#a')`, `url(&quot;https://foreign.test/x#a&quot;)`, `URL(//foreign.test)`,
		`u\72l(//foreign.test)`, `\75\72\6c(//foreign.test)`,
		`url(#a) url(//foreign.test)`, `url(data:image/svg+xml,x)`, `url(javascript:1)`, `url(x.svg#a)`, `url(#a`,
		`url(#a);x:url(//foreign.test)`, `expression(1)`, `red;@import '//foreign.test'`,
		`image-set('//foreign.test/x' 1x)`, `src('//foreign.test')`, `image(//foreign.test)`, `var(--x,url(//foreign.test))`, `attr(x url)`,
		`env(x)`, `element(#a)`, `-moz-element(#a)`,
		`red/**/url(//foreign.test)`, `red&quot; onload=&quot;1`, `&lt;script>1&lt;/script>`, `red!important`, `}`, `{}`, `\`, `red\9`,
		`&#x202e;red`, `&#xa0;\72 ed`, `"//foreign.test"`,
		`url(  "#a' )`, `url(#а)`, `x&#0;`, `x&#xfffe;`, `-moz-binding:url(//foreign.test)`, `behavior:url(x)`,
	}
}

func namespaces() []string {
	const ns = `xmlns="http://www.w3.org/2000/svg"`
	return []string{
		`<svg/>`, `<svg xmlns=""/>`, `<svg xmlns="http://www.w3.org/1999/xhtml"/>`, `<svg xmlns="http://www.w3.org/2000/svg/"/>`,
		`<svg xmlns="HTTP://WWW.W3.ORG/2000/SVG"/>`,
		`<html xmlns="http://www.w3.org/1999/xhtml"><script>` + Trap + `</script></html>`, `<x:svg xmlns:x="http://www.w3.org/2000/svg"/>`,
		`<svg ` + ns + ` xmlns:x="http://www.w3.org/1999/xhtml"><x:script>` + Trap + `</x:script></svg>`,
		`<svg ` + ns + ` xmlns:x="http://www.w3.org/2000/svg"><x:script/></svg>`,
		`<svg ` + ns + `><g xmlns="http://www.w3.org/1999/xhtml"><path/></g></svg>`, `<svg ` + ns + `><g xmlns=""><path/></g></svg>`,
		`<svg ` + ns + ` xmlns:xlink="http://foreign.test"/>`,
		`<svg ` + ns + ` xmlns:xl="http://www.w3.org/1999/xlink"><use xl:href="//foreign.test/x"/></svg>`,
		`<svg ` + ns + ` xmlns:ev="http://www.w3.org/2001/xml-events" ev:event="load"/>`,
		`<svg ` + ns + ` xmlns:on="http://www.w3.org/2000/svg" on:load="1"/>`, `<svg ` + ns + `><:path/></svg>`,
		`<svg ` + ns + `><path :href="x"/></svg>`, `<svg ` + ns + `><a:b:c/></svg>`,
		`<svg ` + ns + ` xml:base="//foreign.test/"/>`, `<svg ` + ns + ` xmlns:xml="http://foreign.test"/>`,
		`<svg ` + ns + ` xmlns:xmlns="http://foreign.test"/>`,
		`<svg ` + ns + `><x:path/></svg>`, `<svg ` + ns + `><g id="a"/><use href="#a" xlink:href="#a"/></svg>`,
		`<svg ` + ns + `><g fill="red" x:fill="blue"/></svg>`,
		`<svg xmlns="http://www.w3.org/2000/svg" xmlns="http://www.w3.org/1999/xhtml"/>`,
		`<svg ` + ns + `><use href="#a" xlink:href="#b"/></svg>`, `<svg ` + ns + `/><svg ` + ns + `/>`,
	}
}

func entities() []string {
	const svg = `<svg xmlns="http://www.w3.org/2000/svg"><title>&a;</title></svg>`
	var laughs strings.Builder
	laughs.WriteString(`<!DOCTYPE svg [<!ENTITY a0 "ha">`)
	for i := range 9 {
		fmt.Fprintf(&laughs, `<!ENTITY a%d "%s">`, i+1, strings.Repeat(fmt.Sprintf("&a%d;", i), 10))
	}
	laughs.WriteString(`<!ENTITY a "&a9;">]>`)
	return []string{
		`<!DOCTYPE svg>` + wrap(``), `<!doctype html>` + wrap(``), `<!DOCTYPE svg [<!ENTITY a "<script>1</script>">]>` + svg,
		`<!DOCTYPE svg [<!ENTITY a SYSTEM "file:///etc/passwd">]>` + svg,
		`<!DOCTYPE svg [<!ENTITY % a SYSTEM "http://foreign.test/x.dtd">%a;]>` + svg,
		`<!DOCTYPE svg PUBLIC "-//W3C//DTD SVG 1.1//EN" "http://foreign.test/x.dtd">` + wrap(``), laughs.String() + svg,
		`<!DOCTYPE svg [<!ATTLIST svg onload CDATA "` + Trap + `">]>` + wrap(``), svg, wrap(`<title>&nbsp;</title>`), wrap(`<title>&</title>`),
		wrap(`<title>&lt</title>`), wrap(`<title>&#0;</title>`),
		wrap(`<title>&#x110000;</title>`), wrap(`<title>&#xd800;</title>`), wrap(`<title>&#x1b;</title>`), wrap(`<title>&#x202e;</title>`),
		wrap(`<title>&#xfeff;</title>`), wrap(`<title>&#x85;</title>`),
		wrap(`<!ELEMENT x ANY>`), wrap(`<![INCLUDE[x]]>`),
	}
}

func instructions() []string {
	return []string{
		`<?xml-stylesheet href="//foreign.test/x.css"?>` + wrap(``), `<?xml-stylesheet type="text/xsl" href="#a"?>` + wrap(``),
		wrap(`<?xml version="1.0"?>`), wrap(`<?php echo 1 ?>`), wrap(``) + `<?x?>`,
		` <?xml version="1.0"?>` + wrap(``), `<?xml version="1.1"?>` + wrap(``), `<?xml version="1.0" encoding="utf-7"?>` + wrap(``),
		`<?xml version="1.0" encoding="UTF-16"?>` + wrap(``),
		`<?xml version="1.0"?><?xml version="1.0"?>` + wrap(``), `<?XML version="1.0"?>` + wrap(``),
		`<?xml version="1.0" encoding="ISO-2022-JP"?>` + wrap(``),
	}
}

func encodings() []string {
	wide := func(big bool) string {
		var out strings.Builder
		for _, r := range "\ufeff" + wrap(`<script>1</script>`) {
			if unit := [2]byte{}; big {
				binary.BigEndian.PutUint16(unit[:], uint16(r)) //nolint:gosec // of the basic plane
				out.Write(unit[:])
			} else {
				binary.LittleEndian.PutUint16(unit[:], uint16(r)) //nolint:gosec // as above
				out.Write(unit[:])
			}
		}
		return out.String()
	}
	return []string{
		wide(true), wide(false), "\xff\xfe" + wrap(``), wrap("<title>\xc0\xbcscript\xc0\xbe</title>"), wrap("<title>\xff</title>"),
		wrap("<title>\x00</title>"), "\x00" + wrap(``), wrap("<title>\xed\xa0\x80</title>"),
		wrap("<title>\u202e</title>"), wrap("<title>\u2066</title>"), wrap("<title>\x1b$B</title>"), wrap("<title>\ufffe</title>"),
		"\ufeff\ufeff" + wrap(``), `+ADw-script+AD4-` + wrap(``),
		wrap("<g\u00a0onload='1'/>"), wrap("<g\x0bonload='1'/>"), wrap("<title>\u0085</title>"), wrap("<title>\U000e0041</title>"),
		wrap("<path fill='\u212aed'/>"),
	}
}

func malformed() []string {
	return []string{
		``, ` `, `x`, `<`, `<svg`, wrap(``)[:60], wrap(`<g>`), wrap(`</g>`), wrap(`<g></G>`), wrap(`<g></path>`), wrap(`<g a=b/>`),
		wrap(`<g a/>`), wrap(`<g id="a" id="b"/>`), wrap(`<g id="<"/>`), wrap(`<g id="a"id="b"/>`),
		wrap(`<!-- -- -->`), wrap(`<!-->`), wrap(`<![CDATA[x]]>`), wrap(`]]>`), wrap(`x`), wrap(``) + `x`, `x` + wrap(``), wrap(`<g/`) + `>`,
		wrap(`< g/>`), wrap(`<g /onload="1"/>`), wrap(`<g><!--</g>`), wrap(`<title>]]></title>`),
		wrap(`<g fill="red" style="fill:red" fill="blue"/>`), wrap(`<path style="fill"/>`), wrap(`<path style=":red"/>`), wrap(`<path/text>`),
		wrap(`<g style="fill:red" style="fill:blue"/>`), wrap(`<path d="" d="M0 0"/>`),
		`<svg xmlns="http://www.w3.org/2000/svg"><g/>`, `<svg xmlns="http://www.w3.org/2000/svg"><g id="a">`,
		`<svg xmlns='http://www.w3.org/2000/svg"/>`,
	}
}

// mutations are what changes its meaning when an HTML parser reads or writes it again.
func mutations() []string {
	return []string{
		`<style><!--</style><img src="x" onerror="1"/>--></style>`, `<desc><![CDATA[</desc><script>1</script>]]></desc><script/>`,
		`<title><style><!--</title><img src="x" onerror="1"/></style></title>`,
		`<p><style><g title="&lt;/style>&lt;img src=x onerror=1>"/></style></p>`, `<g title="--&gt;&lt;img src=x onerror=1&gt;"/>`,
		`<noscript><g id="&lt;/noscript>&lt;img src=x onerror=1>"/></noscript>`,
		`<mglyph/>`, `<annotation-xml encoding="text/html"/>`, `<math><mtext><table/></mtext></math>`, `<desc><table><tr/></table></desc>`,
		`<g id="x&gt;&lt;script>1&lt;/script>"/>`, `<g id='"><script>'/>`,
		"<g id=\"``onmouseover=1\"/>", `<path fill="` + "`" + `"/>`, `<a><a/></a>`, `<font color="red"/>`, `<br/>`, `<table/>`,
	}
}
