package apiattack

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"regexp"
	"regexp/syntax"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/google/uuid"
)

const (
	letters = "abcdefghijklmnopqrstuvwxyz"
	digits  = "0123456789"
)

// random makes the values of a run from its seed. It is safe for concurrent use.
type random struct {
	mu sync.Mutex
	r  *rand.Rand // guarded by mu
}

func newRandom(seed uint64) *random {
	return &random{r: rand.New(rand.NewPCG(seed, seed))} //nolint:gosec // a run must be repeatable; secrets are the canary's
}

func (r *random) below(n int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.r.IntN(n)
}

func (r *random) word(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = letters[r.below(len(letters))]
	}
	return string(b)
}

func (r *random) uuid() string {
	var id uuid.UUID
	for i := range id {
		id[i] = byte(r.below(256)) //nolint:gosec // below 256
	}
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id.String()
}

// counted is how many digits a number gets that nobody has counted to. It fits in 32 bits.
const counted = 9

// alike returns a text of the same form as id: what follows its last separator is another
// of the same kinds of character. The front often says what kind of id it is.
func (r *random) alike(id string) string {
	if !utf8.ValidString(id) {
		return r.alikeBytes(id)
	}
	from := 0
	if at := strings.LastIndexAny(id, "/:._"); at >= 0 && len(id)-at > 4 {
		from = at + 1
	} else if at := strings.LastIndexByte(id, '/'); at >= 0 {
		from = at + 1
	}
	tail := []byte(id[from:])
	if uuid.Validate(string(tail)) == nil && len(tail) == 36 {
		return id[:from] + string(tail[:24]) + r.like(tail[24:], true)
	}
	if number := strings.Trim(id[from:], digits) == "" && id[from:] != ""; number && len(tail) < counted {
		tail = []byte(strings.Repeat("1", counted)) // small ones are taken
	}
	return id[:from] + r.like(tail, isHex(tail))
}

// alikeBytes is alike for ids that are no text: the second half is another.
func (r *random) alikeBytes(id string) string {
	b := []byte(id)
	for i := len(b) / 2; i < len(b); i++ {
		b[i] = byte(r.below(256)) //nolint:gosec // below 256
	}
	return string(b)
}

func (r *random) like(text []byte, hexadecimal bool) string {
	const af = "abcdef"
	b := make([]byte, len(text))
	for i, c := range text {
		low := letters
		if hexadecimal {
			low = af
		}
		switch {
		case '0' <= c && c <= '9' && hexadecimal && i > 0:
			b[i] = (digits + af)[r.below(16)]
		case '0' <= c && c <= '9' && i == 0:
			b[i] = digits[1+r.below(9)]
		case '0' <= c && c <= '9':
			b[i] = digits[r.below(10)]
		case 'a' <= c && c <= 'z':
			b[i] = low[r.below(len(low))]
		case 'A' <= c && c <= 'Z':
			b[i] = low[r.below(len(low))] - 'a' + 'A'
		default:
			b[i] = c
		}
	}
	return string(b)
}

func isHex(text []byte) bool {
	for _, c := range text {
		if !strings.ContainsRune("0123456789abcdefABCDEF-", rune(c)) {
			return false
		}
	}
	return bytes.ContainsAny(text, "abcdefABCDEF")
}

// matching returns a text that the pattern matches, of at most about 4 × size characters
// where the pattern leaves it open.
func (r *random) matching(pattern string, size int) (string, error) {
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return "", fmt.Errorf("pattern %s: %w", pattern, err)
	}
	compiled, err := regexp.Compile(pattern)
	if err != nil {
		return "", fmt.Errorf("pattern %s: %w", pattern, err)
	}
	const tries = 20
	for range tries {
		var b strings.Builder
		if err := r.spell(&b, tree, size); err != nil {
			return "", fmt.Errorf("pattern %s: %w", pattern, err)
		}
		if compiled.MatchString(b.String()) {
			return b.String(), nil
		}
	}
	return "", fmt.Errorf("no text was found that matches %s", pattern)
}

// spell writes one text of a pattern's tree.
func (r *random) spell(b *strings.Builder, tree *syntax.Regexp, size int) error {
	repeat := func(least, most int) error {
		n := max(least, size)
		if most >= 0 {
			n = min(n, most)
		}
		for range n {
			if err := r.spell(b, tree.Sub[0], size); err != nil {
				return err
			}
		}
		return nil
	}
	switch tree.Op {
	case syntax.OpNoMatch:
		return errors.New("it matches nothing")
	case syntax.OpLiteral:
		b.WriteString(string(tree.Rune))
	case syntax.OpCharClass:
		if len(tree.Rune) == 0 {
			return errors.New("it matches nothing")
		}
		b.WriteRune(r.of(tree.Rune))
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b.WriteString(r.word(1))
	case syntax.OpStar:
		return repeat(0, -1)
	case syntax.OpPlus:
		return repeat(1, -1)
	case syntax.OpQuest:
		return nil
	case syntax.OpRepeat:
		return repeat(tree.Min, tree.Max)
	case syntax.OpAlternate:
		return r.spell(b, tree.Sub[r.below(len(tree.Sub))], size)
	case syntax.OpCapture, syntax.OpConcat:
		for _, sub := range tree.Sub {
			if err := r.spell(b, sub, size); err != nil {
				return err
			}
		}
	default: // the empty matches
	}
	return nil
}

// of returns one character of a class, a letter or digit where there is one.
func (r *random) of(ranges []rune) rune {
	var plain []rune
	for i := 0; i < len(ranges); i += 2 {
		for _, c := range letters + digits {
			if ranges[i] <= c && c <= ranges[i+1] {
				plain = append(plain, c)
			}
		}
	}
	if len(plain) > 0 {
		return plain[r.below(len(plain))]
	}
	return ranges[0]
}
