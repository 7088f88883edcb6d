package css

import (
	"errors"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tdewolff/parse/v2"
	lexer "github.com/tdewolff/parse/v2/css"

	"github.com/rowhouse-platform/rowhouse/internal/brand"
)

// A kind is what the parser has to tell apart.
type kind int

const (
	end kind = iota
	space
	ident       // decoded, lower case unless it is a value
	at          // @name, decoded, without the @
	call        // name(, decoded, lower case, without the bracket
	url         // decoded, without url( and quotes
	text        // a string, decoded, without quotes
	numeric     // number, percentage or dimension, decoded, lower case
	hash        // # and what follows, decoded
	punctuation // one character
)

// A token is what a lexical token of CSS means.
type token struct {
	kind   kind
	text   string
	offset int // in the upload
}

func (t token) is(sign string) bool { return t.kind == punctuation && t.text == sign }

// scan cuts a sheet into tokens, without comments. It refuses what a browser would have to guess at: strings and addresses
// that do not end, <!-- and -->, operators of selectors that we have not.
func scan(upload []byte) ([]token, error) {
	l := lexer.NewLexer(parse.NewInputBytes(append([]byte(nil), upload...))) // the lexer writes behind its input
	var all []token
	for offset := 0; ; {
		kindOf, data := l.Next()
		if kindOf == lexer.ErrorToken {
			if !errors.Is(l.Err(), io.EOF) || offset != len(upload) {
				return nil, brand.At(upload, offset, "syntax", "no token of CSS")
			}
			return append(all, token{end, "", offset}), nil
		}
		t, rule := meaning(kindOf, string(data))
		if rule != "" {
			return nil, brand.At(upload, offset, rule, strconv.QuoteToASCII(string(data[:min(len(data), 40)])))
		}
		if kindOf != lexer.CommentToken {
			t.offset = offset
			all = append(all, t)
		}
		offset += len(data)
	}
}

// meaning is the token, or the rule that forbids it.
func meaning(k lexer.TokenType, data string) (t token, rule string) {
	switch k {
	case lexer.CommentToken:
		if len(data) < 4 || !strings.HasSuffix(data, "*/") {
			return t, "syntax"
		}
	case lexer.WhitespaceToken:
		t = token{kind: space, text: " "}
	case lexer.IdentToken, lexer.CustomPropertyNameToken:
		t = token{kind: ident, text: unescape(data)}
	case lexer.AtKeywordToken:
		t = token{kind: at, text: strings.ToLower(unescape(data[1:]))}
	case lexer.FunctionToken:
		t = token{kind: call, text: strings.ToLower(unescape(data[:len(data)-1]))}
	case lexer.NumberToken, lexer.PercentageToken, lexer.DimensionToken:
		t = token{kind: numeric, text: strings.ToLower(unescape(data))}
	case lexer.HashToken:
		t = token{kind: hash, text: "#" + unescape(data[1:])}
	case lexer.StringToken:
		if len(data) < 2 || data[len(data)-1] != data[0] {
			return t, "syntax"
		}
		t = token{kind: text, text: unescape(data[1 : len(data)-1])}
	case lexer.URLToken:
		// The name may be written with escapes; what is between the brackets counts.
		inside, closed := strings.CutSuffix(data[strings.IndexByte(data, '(')+1:], ")")
		inside = strings.Trim(inside, " \t\r\n\f")
		if n := len(inside); n >= 2 && (inside[0] == '"' || inside[0] == '\'') && inside[n-1] == inside[0] {
			inside = inside[1 : n-1]
		}
		if !closed {
			return t, "syntax"
		}
		t = token{kind: url, text: unescape(inside)}
	case lexer.DelimToken, lexer.ColonToken, lexer.SemicolonToken, lexer.CommaToken, lexer.LeftParenthesisToken,
		lexer.RightParenthesisToken, lexer.LeftBraceToken, lexer.RightBraceToken, lexer.LeftBracketToken, lexer.RightBracketToken:
		t = token{kind: punctuation, text: data}
	default: // bad strings and addresses, <!--, -->, unicode ranges, ~= and its kin
		return t, "syntax"
	}
	return t, ""
}

// unescape decodes escapes as CSS Syntax 3, 4.3.7 says: up to six hex digits and one white space, or the character itself. What
// names no character becomes U+FFFD, which no list here has; so does a line end behind a backslash, which CSS leaves out.
func unescape(s string) string {
	if !strings.ContainsRune(s, '\\') {
		return s
	}
	var out strings.Builder
	for s != "" {
		plain, escaped, found := strings.Cut(s, `\`)
		out.WriteString(plain)
		if !found {
			break
		}
		digits := 0
		for digits < min(6, len(escaped)) && strings.IndexByte("0123456789abcdefABCDEF", escaped[digits]) >= 0 {
			digits++
		}
		if digits == 0 {
			r, n := utf8.DecodeRuneInString(escaped)
			if r < ' ' {
				r = utf8.RuneError
			}
			out.WriteRune(r)
			s = escaped[n:]
			continue
		}
		code, err := strconv.ParseInt(escaped[:digits], 16, 32)
		if err != nil || code == 0 || code > utf8.MaxRune {
			code = utf8.RuneError
		}
		out.WriteRune(rune(code)) // a surrogate is written as U+FFFD
		s = escaped[digits:]
		if strings.HasPrefix(s, "\r\n") {
			s = s[1:]
		}
		if s != "" && strings.IndexByte(" \t\r\n\f", s[0]) >= 0 {
			s = s[1:]
		}
	}
	return out.String()
}
