// Package brand holds what white-label brands rest on: what a tenant uploads is read strictly and written anew, so that
// no byte of an upload is ever served. Below it stand svg and css (sanitisers), picture (raster images and icons) and
// colour (contrast and derived colours). Config calls them when a brand is published, the gateway may call them again.
// None of them knows wire, database or tenant. Start with svg.Sanitise.
package brand

import (
	"bytes"
	"fmt"
	"regexp"
	"unicode/utf8"
)

// A Refusal says what in an upload is not allowed. Nothing is repaired in silence: who uploads mends it.
type Refusal struct {
	Rule         string // stable, in kebab-case: "element", "attribute", "url", …
	Text         string // what was found, for a person
	Line, Column int    // where, from 1 and in bytes; 0 where the whole upload is meant
}

// Error says rule, place and text.
func (r *Refusal) Error() string {
	if r.Line == 0 {
		return fmt.Sprintf("%s: %s", r.Rule, r.Text)
	}
	return fmt.Sprintf("%d:%d: %s: %s", r.Line, r.Column, r.Rule, r.Text)
}

// At is the refusal of what stands at an offset of the upload.
func At(upload []byte, offset int, rule, text string) *Refusal {
	before := upload[:min(offset, len(upload))]
	return &Refusal{
		Rule: rule, Text: text,
		Line:   bytes.Count(before, []byte("\n")) + 1,
		Column: len(before) - bytes.LastIndexByte(before, '\n'),
	}
}

// CheckText refuses what is longer than limit bytes, is not UTF-8, or holds a control character other than white space.
func CheckText(upload []byte, limit int) error {
	if len(upload) > limit {
		return &Refusal{Rule: "size", Text: fmt.Sprintf("%d bytes, allowed are %d", len(upload), limit)}
	}
	for i := 0; i < len(upload); {
		r, n := utf8.DecodeRune(upload[i:])
		if r == utf8.RuneError && n == 1 {
			return At(upload, i, "encoding", "not UTF-8")
		}
		if !Printable(r) {
			return At(upload, i, "character", fmt.Sprintf("%U", r))
		}
		i += n
	}
	return nil
}

// Printable reports whether a character may stand in text: no control but white space, no noncharacter, nothing that
// turns the direction of what follows (as in "Trojan Source", CVE-2021-42574), no byte order mark, no line separator, and not
// U+FFFD, which stands for what could not be decoded.
func Printable(r rune) bool {
	switch {
	case r == '\t', r == '\n', r == '\r', r == '\f':
		return true
	case r < ' ', r >= 0x7f && r < 0xa0, r == 0xfeff, r == 0xfffd, r&0xfffe == 0xfffe, r >= 0xfdd0 && r <= 0xfdef:
		return false
	case r >= 0x2028 && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r >= 0xe0000 && r <= 0xe007f:
		return false
	}
	return true
}

var assetPath = regexp.MustCompile(`^/\.well-known/rowhouse/b/[0-9a-f]{64}\.(png|jpg|gif|svg|woff2)$`)

// IsAssetPath reports whether path is written as that of a brand's asset. Whose asset it is, the caller knows.
func IsAssetPath(path string) bool { return assetPath.MatchString(path) }
