package canary

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
)

const (
	keyLength = 8  // bytes of a needle that are looked up at each place
	piece     = 12 // letters of a secret that are enough: 60 bits
)

type key [keyLength]byte

// needle is what is looked for: a piece of a secret, or a whole id, in one spelling.
type needle struct {
	bytes []byte
	exact bool // case matters; else bytes are lower-case and meet lowered data
	form  string
	owner string // of a secret
	value string // the id
}

func keyOf(b []byte) key { return key(b[:keyLength]) }

// pieces returns all needles of a secret, which is lower-case letters and digits.
func pieces(secret string) (all []needle) {
	const (
		letter  = piece // a spelling of one byte for one letter
		escaped = 10    // longer spellings show fewer letters at least: 50 bits
	)
	cut := func(form string, text []byte, size, step int, exact bool) {
		for at := 0; at+size <= len(text); at += step {
			all = append(all, needle{bytes: text[at : at+size], form: form, exact: exact})
		}
	}
	backwards := []byte(secret)
	slices.Reverse(backwards)
	cut("plain", []byte(secret), letter, 1, false)
	cut("backwards", backwards, letter, 1, false)
	cut("hex", []byte(hex.EncodeToString([]byte(secret))), 2*escaped, 2, false)
	cut("URL-escaped", []byte(each(secret, "%%%02x")), 3*escaped, 3, false)
	cut("JSON-escaped", []byte(each(secret, `\u%04x`)), 6*escaped, 6, false)
	little, big := utf16Bytes(secret)
	cut("UTF-16", little, 2*escaped, 2, false)
	cut("UTF-16", big, 2*escaped, 2, false)
	for _, text := range base64Spellings([]byte(secret)) {
		cut("base64", text, 16, 1, true) // 12 bytes
	}
	return all
}

// spellings returns the needles of an id: only the whole of it is somebody's, since ids
// made at one time begin alike.
func spellings(id string) (all []needle) {
	seen := map[string]bool{}
	add := func(form string, text []byte, exact bool) {
		if !exact {
			text = bytes.ToLower(text)
		}
		if len(text) >= keyLength && !seen[string(text)] {
			seen[string(text)] = true
			all = append(all, needle{bytes: text, form: form, exact: exact})
		}
	}
	add("plain", []byte(id), false)
	add("URL-escaped", []byte(url.QueryEscape(id)), false)
	add("JSON-escaped", []byte(strings.Trim(strconv.QuoteToASCII(id), `"`)), false)
	add("hex", []byte(hex.EncodeToString([]byte(id))), false)
	little, big := utf16Bytes(id)
	add("UTF-16", little, false)
	add("UTF-16", big, false)
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		add("base64", []byte(encoding.EncodeToString([]byte(id))), true) // by itself: inside, its ends are shared
	}
	digits := strings.ReplaceAll(id, "-", "")
	if raw, err := hex.DecodeString(digits); err == nil && len(raw) == 16 { // a UUID
		add("plain", []byte(digits), false)
		add("binary", raw, true)
	}
	return all
}

func each(text, format string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		fmt.Fprintf(&b, format, c)
	}
	return b.String()
}

func utf16Bytes(text string) (little, big []byte) {
	for _, unit := range utf16.Encode([]rune(text)) {
		low, high := byte(unit&0xff), byte(unit>>8)
		little, big = append(little, low, high), append(big, high, low)
	}
	return little, big
}

// base64Spellings returns text as it stands inside of longer base64, at each of the three
// places where it can begin, in both alphabets, without the digits that its neighbours share.
func base64Spellings(text []byte) (all [][]byte) {
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for before := range 3 {
			encoded := []byte(encoding.EncodeToString(append(make([]byte, before), text...)))
			from := (before*8 + 5) / 6
			to := (before + len(text)) * 8 / 6
			all = append(all, encoded[from:to])
		}
	}
	return all
}

// scan calls found for each needle in data. The caller holds mu.
func (w *Watch) scan(data []byte, found func(n needle, at int)) {
	if len(w.needles) == 0 {
		return
	}
	lowered := lower(data)
	for at := 0; at+keyLength <= len(data); at++ {
		for _, n := range w.needles[keyOf(lowered[at:])] {
			if !n.exact && bytes.HasPrefix(lowered[at:], n.bytes) {
				found(n, at)
			}
		}
		for _, n := range w.needles[keyOf(data[at:])] {
			if n.exact && bytes.HasPrefix(data[at:], n.bytes) {
				found(n, at)
			}
		}
	}
}

// lower makes ASCII letters small and leaves all other bytes: bytes.ToLower would change
// the length of what is not UTF-8.
func lower(data []byte) []byte {
	small := bytes.Clone(data)
	for i, c := range small {
		if 'A' <= c && c <= 'Z' {
			small[i] = c + 'a' - 'A'
		}
	}
	return small
}

// excerpt is what stands around data[at:at+n].
func excerpt(data []byte, at, n int) string {
	const around = 24
	from, to := max(0, at-around), min(len(data), at+n+around)
	return strconv.QuoteToASCII(string(data[from:to]))
}
