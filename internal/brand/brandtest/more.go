package brandtest

import (
	"fmt"
	"strings"
)

func references() []string {
	return wrapped([]string{
		`<use href="#none"/>`, `<use id="a" href="#a"/>`, `<g id="a"><use href="#a"/></g>`,
		`<g id="a"><use href="#b"/></g><g id="b"><use href="#a"/></g>`,
		`<mask id="a"><path mask="url(#a)"/></mask><path mask="url(#a)"/>`, `<clipPath id="a"><path clip-path="url(#a)"/></clipPath>`,
		`<mask id="a" mask="url(#a)"/>`,
		`<pattern id="a"><path fill="url(#a)"/></pattern>`, `<pattern id="a" href="#a"/>`,
		`<linearGradient id="a" href="#b"/><radialGradient id="b" href="#a"/>`,
		`<pattern id="a"><path style="stroke:url(#b)"/></pattern><pattern id="b"><path fill="url(#a)"/></pattern>`,
		`<path fill="url(#a)"/><g id="a"/>`, `<path mask="url(#a)"/><clipPath id="a"/>`,
		`<use href="#a"/><linearGradient id="a"/>`, `<g id="a"/><g id="a"/>`, `<linearGradient id="a" href="#b"/><pattern id="b"/>`,
		`<path fill="url(#none) red"/>`, `<path id="a" fill="url(#a)"/>`,
	})
}

// bombs are small to send and large to draw.
func bombs() []Attack {
	var doubling, paths, masks strings.Builder
	for i := range 16 {
		fmt.Fprintf(&doubling, `<g id="a%d"><use href="#a%d"/><use href="#a%d"/></g>`, i, i+1, i+1)
	}
	fmt.Fprintf(&paths, `<path id="p" d="M0 0%s"/>`, strings.Repeat("h1", 15_000))
	paths.WriteString(strings.Repeat(`<use href="#p"/>`, 900))
	masks.WriteString(`<mask id="m0"><path/></mask>`)
	for i := range 14 {
		fmt.Fprintf(&masks, `<mask id="m%d"><path mask="url(#m%d)"/><path mask="url(#m%d)"/></mask>`, i+1, i, i)
	}
	return family("bomb", wrap(doubling.String()+`<g id="a16"/>`), wrap(paths.String()), wrap(masks.String()),
		wrap(strings.Repeat(`<g>`, 5000)+strings.Repeat(`</g>`, 5000)), wrap(strings.Repeat(`<path/>`, 10_001)), wrap(strings.Repeat(` `,
			70_000)),
		wrap(`<title>`+strings.Repeat(`'`, 15_000)+`</title>`), wrap(`<g `+strings.Repeat(`a="" `, 10_000)+`/>`))
}

// Disguised returns files that look hostile and are not, for what they hold is text or has no effect: they may be let
// through, and are worth a look in a browser.
func Disguised() []Attack {
	var inside []string
	for _, text := range []string{
		`&lt;script>` + Trap + `&lt;/script>`, `<![CDATA[<script>` + Trap + `</script>]]>`, `&lt;/title>&lt;img src=x onerror="` + Trap + `">`,
		`<![CDATA[</title><svg onload="` + Trap + `">]]>`,
		`<![CDATA[--><img src=x onerror="` + Trap + `">]]>`, `&#60;iframe src=//foreign.test>`,
		`<![CDATA[</style></noscript></textarea></desc><img src=//foreign.test/x>]]>`, `]]&gt;&lt;script>` + Trap + `&lt;/script>`,
		`&amp;lt;script&amp;gt;` + Trap, `<!-- <script>` + Trap + `</script> -->`, "`${" + Trap + "}`",
		`{{constructor.constructor("` + Trap + `")()}}`, `<![CDATA[<]]>script<![CDATA[>]]>` + Trap,
	} {
		inside = append(inside, each(`%s`, `<title>`+text+`</title>`, `<desc>`+text+`</desc>`, `<text y="5">`+text+`</text>`,
			`<text><tspan>`+text+`</tspan></text>`)...)
	}
	inside = append(inside,
		`<path id="alert" fill="url('#g') red" d="M0 0h9v9z"/><linearGradient id="g"><stop offset="0" stop-color="red"/></linearGradient>`,
		`<symbol id="s"><path d="M0 0h9" style="stroke: RED ; enable-background:new 0 0 1 1"/></symbol>`+
			`<use xmlns:xlink="http://www.w3.org/1999/xlink" xlink:href="#s"/>`,
		`<g id="document"><g id="constructor"/></g>`, `<path id="__proto__" d="M0,0 L9-9.5.5z" transform="rotate( 45 ) translate(1,2)"/>`,
		`<text font-family="'A B', &quot;C&quot;">x</text>`,
		`<path fill="javascript" stroke="expression"/>`, `<mask id="m"><rect width="9" height="9"/></mask><g mask='url( "#m" )'/>`,
		`<!-- comment --><path/>`, `<text><![CDATA[]]></text>`, "<path\r\nd='M0\t0'/>",
	)
	return family("disguised", wrapped(inside)...)
}

// CSS returns sheets each of which has to be refused; own is the path of an asset of the tenant.
func CSS(own string) []Attack {
	var all []Attack
	add := func(name string, inputs ...string) { all = append(all, family(name, inputs...)...) }
	add("at-rule", `@import "//foreign.test/x.css";`, `@import url(//foreign.test/x.css);`, `@\69mport "//foreign.test";`,
		`@IMPORT '//foreign.test';`, `@charset "utf-7";`, `@namespace url(//foreign.test);`,
		`@layer x;`, `@layer x{}`, `@layer rh-tenant;`, `@layer rh-tenant,x{}`, `@layer{}`, `@supports (color:red){}`, `@container x{}`,
		`@property --rh-x{}`, `@page{}`, `@keyframes x{}`, `@document url(//foreign.test){}`,
		`@scope (.rh-a){}`, `@starting-style{}`, `@view-transition{}`, `@-moz-document url-prefix(){}`, `@counter-style x{}`, `@media print{}`,
		`@media (x:1){}`, `@media not (min-width:1px){}`, `@media (min-width:1px),all{}`,
		`@media (min-width:url(//foreign.test)){}`, `@media (orientation:a_b){}`, `@media (min-width:1px){@media (min-width:1px){}}`,
		`@layer rh-tenant{@layer rh-tenant{}}`,
		`@media (min-width:1px){@font-face{}}`,
		`@layer rh-tenant{@media (min-width:1px){@media (min-width:1px){}}}`, `@media (min-width:1px){@layer rh-tenant{}}`)
	add("foreign font", each(`@font-face{font-family:x;src:%s}`, foreignAddresses()...)...)
	add("font", `@font-face{font-family:x;unicode-range:U+0041;src:url("`+own+`")}`, `@font-face{src:local("x")}`,
		`@font-face{src:"//foreign.test"}`, `@font-face{color:red}`, `@font-face{font-family:"</style>"}`)
	add("selector", each(`%s{color:red}`, foreignSelectors()...)...)
	add("property", each(`.rh-a{%s}`, foreignDeclarations()...)...)
	for _, property := range []string{"background", "background-image", "color", "font", "box-shadow", "transition"} {
		add("address in "+property, each(`.rh-a{`+property+`:%s}`, foreignAddresses()...)...)
		add("value of "+property, each(`.rh-a{`+property+`:%s}`, foreignValues()...)...)
	}
	add("syntax", brokenSheets()...)
	add("bomb", strings.Repeat(`.rh-a{color:red}`, 2001), strings.Repeat(` `, 65_537), `.rh-a{width:`+strings.Repeat(`calc(`,
		9)+`1px`+strings.Repeat(`)`, 9)+`}`, strings.Repeat(`.rh-a,`, 10_900)+`.rh-a{}`,
		`.rh-a{width:`+strings.Repeat(`calc(`, 10_000), strings.Repeat(`@media (min-width:1px){`, 1000))
	return all
}

func foreignAddresses() []string {
	return []string{
		`url(//foreign.test/x)`, `url("//foreign.test/x")`, `url('https://foreign.test/x')`, `URL(//foreign.test/x)`, `u\72l(//foreign.test/x)`,
		`\75 rl(//foreign.test/x)`, `\000075\000072\00006c(//foreign.test)`, `u\rl(//foreign.test)`,
		`url( //foreign.test/x )`, `url(\2f\2f foreign.test/x)`, `url("\2f/foreign.test")`, `url(/x.png)`, `url(x.png)`, `url(#a)`, `url()`,
		`url("")`, `url(data:image/png;base64,x)`, `url(data:text/css,x)`, `url(javascript:1)`, `url(blob:x)`,
		`url(/.well-known/rowhouse/b/` + strings.Repeat("0", 64) + `.png?x)`,
		`url(/.well-known/rowhouse/b/../b/` + strings.Repeat("0", 64) + `.png)`,
		`url(//foreign.test/.well-known/rowhouse/b/` + strings.Repeat("0", 64) + `.png)`,
		`url(/.well-known/rowhouse/b/` + strings.Repeat("0", 64) + `.html)`, `url(/.well-known/rowhouse/b/` + strings.Repeat("f", 64) + `.png)`,
		`src("//foreign.test")`, `image("//foreign.test")`, `image-set("//foreign.test" 1x)`,
		`-webkit-image-set(url(//foreign.test) 1x)`, `cross-fade(url(//foreign.test),red)`, `-webkit-cross-fade(url(x),url(y),1)`, `element(#a)`,
		`paint(x)`, `local("x")`, `var(--rh-a,url(//foreign.test))`, `url(//foreign.test`, `url("//foreign.test`,
		`url(a b)`, `url(a"b)`, `url("a" "b")`, `url("a" crossorigin(anonymous))`, `url-prefix(//foreign.test)`,
		`if(style(--x:1):url(//foreign.test))`, `attr(x type(<url>))`, "url(/\\\n/foreign.test)", "url(\"/\\\n/foreign.test\")",
	}
}

func foreignSelectors() []string {
	return []string{
		`*`, `body`, `html`, `:root`, `a`, `#x`, `.x`, `.rh`, `.rh-`, `.rh_a`, `.rh-A`, `.RH-a`, `input[value^="a"]`, `[value]`,
		`.rh-a[value^=a]`, `.rh-a[x]`, `.rh-a:hover`, `.rh-a:visited`, `.rh-a:has(.rh-b)`, `.rh-a:not(.x)`, `:is(.rh-a)`,
		`:where(body)`, `.rh-a::before`, `.rh-a::after`, `.rh-a:before`, `.rh-a::selection`, `.rh-a::part(x)::before`, `.rh-a::part(x):hover`,
		`.rh-a::part(x) .rh-b`, `.rh-a::part(x y)`, `.rh-a::part()`, `.rh-a::part(X)`, `.rh-a::part("x")`, `.rh-a::part(\7b)`, `.rh-a::part(1)`,
		`::part(x)`, `.rh-a:part(x)`, `.rh-a::slotted(x)`,
		`:host`, `::view-transition`, `.rh-a+.rh-b`, `.rh-a~.rh-b`, `.rh-brand+.rh-b`, `.rh-brand ~ .rh-b`, `+.rh-a`, `>.rh-a`, `.rh-a||.rh-b`,
		`.rh-a|b`, `&`, `&.rh-a`, `.rh-a &`, `.rh-a,`, `,.rh-a`, `.rh-a,,.rh-b`, `.rh-a,body`, `.rh-a body`, `.rh-a>*`,
		`.rh-a>`, `.rh-a> >.rh-b`, `. rh-a`, `.rh-a. rh-b`, `.r\68-a\20`, `.rh-a\.x`, `.rh-\61\{`, `.rh-а`, `.rh-a/**/b`, `%`, `.rh-a!`, `100%`,
		`<!--.rh-a`, ``, `.rh-a{}body`, `.rh-a}body`, `.rh-"a"`, `.rh-a/deep/.rh-b`, `.rh-a>>>.rh-b`, `.rh--a`, `.rh-a-`,
	}
}

func foreignDeclarations() []string {
	return []string{
		`position:fixed`, `position:absolute`, `POSITION:fixed`, `p\6fsition:fixed`, `position:sticky`, `z-index:9`, `content:"x"`,
		`content:attr(value)`, `behavior:url(x)`, `-moz-binding:url(//foreign.test)`, `-ms-behavior:url(x)`, `filter:progid:x()`,
		`cursor:url(//foreign.test),auto`,
		`list-style:url(//foreign.test)`, `list-style-image:url(//foreign.test)`, `mask:url(//foreign.test)`, `clip-path:url(//foreign.test)`,
		`filter:url(//foreign.test)`, `offset-path:url(#x)`, `shape-outside:url(x)`, `border-image:url(//foreign.test)`, `transform:scale(99)`,
		`translate:9px`, `float:left`, `inset:0`, `top:0`, `left:0`, `display:none`, `visibility:hidden`, `opacity:0`, `pointer-events:none`,
		`clip:rect(0,0,0,0)`, `overflow:hidden`, `animation:x 1s`, `animation-name:x`, `all:unset`, `margin:-9px`, `margin-top:-9px`,
		`margin-left:calc(0px - 99px)`, `margin:min(0px,-9px)`, `text-indent:-9999px`, `outline-offset:-9px`, `--rh-x:red`,
		`outline:100vmax solid #fff`, `outline-width:65px`, `outline-width:1e3px`, `outline-width:9em`, `outline-offset:99cm`,
		`OUTLINE:100\76max solid`, `outline:calc(100vmax + 1px) solid red`, `outline:var(--rh-x,100vmax) solid red`,
		`box-shadow:0 0 0 100vmax #fff`,
		`box-shadow:0 0 1px rgb(0 0 0),-999px 0 0 0 red`, `box-shadow:0 0 0 min(99px,100vw) red`,
		`text-shadow:0 50vh 0 red`, `text-shadow:2em 0 red`,
		`text-decoration:underline 100vmax red`, `text-decoration-thickness:500%`, `text-underline-offset:-99px`,
		`--x:url(//foreign.test)`, `--rh-x:{position:fixed}`, `color:red!important`, `color:red !important`, `color:red ! important`,
		`color:red!\69mportant`, `*color:red`,
		`_color:red`, `color:expression(1)`, `color:e\78pression(1)`, `width:expression(alert(1))`, `-webkit-user-modify:read-write`,
		`src:url(x)`, `color`, `color:`, `:red`, `color red`, `color:red}body{color:red`, `.rh-b{color:red}`, `&:hover{color:red}`,
		`@media (min-width:1px){}`,
		`color::red`, `color:red:blue`, `{}`, `color:{}`, `color:[red]`, `color:red;;;}body{`, `"color":red`, `1:red`, `anchor-name:--x`,
		`view-transition-name:x`, `container:x`, `counter-reset:x`, `zoom:9`, `resize:both`, `columns:9`, `direction:rtl`,
		`unicode-bidi:bidi-override`, `writing-mode:vertical-rl`,
	}
}

func foreignValues() []string {
	return []string{
		`"</style><script>1</script>"`, `</style>`, `<!--`, `-->`, `"\3c/style\3e"`, `"a\"b"`, `"a\\b"`, "'a\\\nb'", `"a`, "'a\nb'", `red\`,
		`r\65 d\3b x`, `\7d body\7b`, `red\0`, `red\110000`, `red\d800`, `ré`, `rеd`, "\u202ered", `attr(value)`, `env(x)`, `counter(x)`,
		`var(--x)`, `var(--rh-x`,
		`var(red,--x)`, `--rh-x`, `calc(1px`, `calc(1px))`, `(red)`, `)`, `]`, `a=b`, `a|b`, `~`, `@x`, `#ggg`, `#12345`, `#`, `1x`, `1e999px`,
		`1p\78 y`, `1.`, `+`, `*`, `$x`, `%`, `&`, `?`, `^`, `|=`, `~=`, `||`, `U+26`, `red_x`, `-`, `--`, `a--b`, `!`, `!x`, `! important`, `<`,
		`>`, `=`, `;url(x`, "\x00", "\x7f", "`",
		`progid:DXImageTransform.Microsoft.x()`, `javascript:1`, `url (x)`, `rgb(url(//foreign.test))`,
		`linear-gradient(url(//foreign.test),red)`, `rgb (1,2,3)`, `@import`, `"` + strings.Repeat("a", 101) + `"`,
	}
}

func brokenSheets() []string {
	return []string{
		`{`, `}`, `.rh-a`, `.rh-a{`, `.rh-a{color:red`, `.rh-a{color:red;`, `.rh-a{}}`, `;`, `.rh-a{};`, `/*`, `.rh-a{color:red/*`, `/* */ x`,
		`<!-- .rh-a{} -->`, `-->`, `@`, `@;`, `\`, `"`, `.rh-a{color:"`, `@media (min-width:1px){.rh-a{color:red}`, `@layer rh-tenant{`,
		`@layer rh-tenant{}}`,
		"\xff", "\x00", ".rh-a{color:red}\x00body{}", "\ufeff.rh-a{}", ".rh-a{color:r\u200eed}", ".rh-a{color:\xc0\xafred}", `]`, `)`,
		`.rh-a{color:red)}`, `/*/`, `//x`, `.rh-a{color:red}//`, `<style>`, `</style>`, `@media{}`, `@media (min-width:1px){`, `.rh-a{(}`,
		`.rh-a{color:(;)}`,
	}
}

// Sheets returns sheets that are let through although they look odd.
func Sheets(own string) []Attack {
	return family("sheet", ``, `/* </style><script>`+Trap+`</script> */`, `.rh-a{}`, `.rh-a,.rh-b > .rh-c::part( x ){color:RED;;}`,
		`.r\68-a{c\6flor:r\65 d}`, `.rh-a{background:URL( '`+own+`' ) no-repeat}`, `.rh-a{background:url(`+own+`)}`,
		`.rh-a{background:u\rl("`+strings.Replace(own, "/", `\2f `, 1)+`")}`,
		`@MEDIA (min-width: 3PX) and (prefers-color-scheme:dark){.rh-brand.rh-x{font:12px/1.5 "A B",serif;width:calc((1px + 2px)*3 - -1px)}}`,
		`@font-face{font-family:"X Y";src:url("`+own+`") format("woff2");font-weight:100 900}`,
		`.rh-brand{color:var(--rh-primary, #FFF)}.rh-brand .rh-brand .rh-a{margin:0 auto;margin-top:var(--rh-gap)}`,
		`@layer rh-tenant{.rh-a{color:red}}.rh-b{color:oklch(70% .1 120deg / 50%)}`, `.rh-a{color:red/**/;/**/padding:1px/**/2px}`,
		`.rh-a{transition:color .2s cubic-bezier(.1,-.6,.2,0),padding 1s steps(3,end)}`,
		`.rh-a{background:linear-gradient(to right,rgb(1 2 3/.5),hsla(120,50%,50%,.3) 20%)}`, `.rh-a{font-family:A,"B-c",-apple-system}`,
		`.rh-a{letter-spacing:-.02em;line-height:+1.5;width:1e2px}`,
		`.rh-a{color:javascript}`, `.rh-a{font-family:"import url foreign test"}`, `.rh-a{aspect-ratio:16/9}`, `.rh-a.rh-b.rh-c .rh-d>.rh-e{}`)
}
