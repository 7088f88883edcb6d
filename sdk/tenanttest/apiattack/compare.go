package apiattack

import (
	"encoding/hex"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// flat is an answer as path → value.
type flat map[string]string

// flatten spells an answer out. What own holds, the ids and texts that the call brought
// itself, is replaced: two answers are the same when only these differ.
func (a answer) flatten(own []string) flat {
	f := flat{"code": a.status.Code().String(), "message": a.status.Message()}
	if a.open {
		f["end"] = "open"
	}
	for i, detail := range a.status.Details() {
		path := fmt.Sprintf("details[%d]", i)
		m, ok := detail.(proto.Message)
		if !ok {
			f[path] = a.status.Proto().GetDetails()[i].String()
			continue
		}
		f[path] = string(m.ProtoReflect().Descriptor().FullName())
		f.message(path, m.ProtoReflect())
	}
	f["details.#"] = strconv.Itoa(len(a.status.Details()))
	for where, md := range map[string]map[string][]string{"header": a.header, "trailer": a.trailer} {
		for name, values := range md {
			f[where+"."+name] = strings.Join(values, "\n")
		}
	}
	for i, m := range a.messages {
		f.message(fmt.Sprintf("messages[%d]", i), m.ProtoReflect())
	}
	f["messages.#"] = strconv.Itoa(len(a.messages))
	neutral := neutralizer(own)
	same := make(flat, len(f))
	for path, value := range f {
		if strings.Contains(path, `"`) { // a map's key
			path = neutral(path)
		}
		same[path] = neutral(value)
	}
	return same
}

func (f flat) message(path string, m protoreflect.Message) {
	if unknown := m.GetUnknown(); len(unknown) > 0 {
		f[path+".unknown"] = hex.EncodeToString(unknown)
	}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		at := path + "." + string(fd.Name())
		one := func(at string, fd protoreflect.FieldDescriptor, v protoreflect.Value) {
			if fd.Message() != nil {
				f[at] = "set"
				f.message(at, v.Message())
				return
			}
			f[at] = textOf(fd, v)
		}
		switch {
		case fd.IsMap():
			f[at+".#"] = strconv.Itoa(v.Map().Len())
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				one(at+"["+strconv.Quote(k.String())+"]", fd.MapValue(), v)
				return true
			})
		case fd.IsList():
			f[at+".#"] = strconv.Itoa(v.List().Len())
			for i := range v.List().Len() {
				one(fmt.Sprintf("%s[%d]", at, i), fd, v.List().Get(i))
			}
		default:
			one(at, fd, v)
		}
		return true
	})
}

// neutralizer returns a function that replaces what is a call's own, in the spellings in
// which errors repeat it.
func neutralizer(own []string) func(string) string {
	var all, short []string
	add := func(s string) {
		if len(s) >= frontLength {
			all = append(all, s)
		} else if s != "" {
			short = append(short, `\b`+regexp.QuoteMeta(s)+`\b`)
		}
	}
	for _, value := range own {
		if at := strings.LastIndexByte(value, '/'); at >= 0 {
			add(value[at+1:])
		}
		add(value)
	}
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, value := range all {
		spellings := []string{value, url.QueryEscape(value), url.PathEscape(value), strings.ToUpper(value), strings.ToLower(value),
			strings.Trim(strconv.Quote(value), `"`), hex.EncodeToString([]byte(value))}
		for _, spelling := range spellings {
			pairs = append(pairs, spelling, "‹own›")
		}
	}
	replace := strings.NewReplacer(pairs...)
	var words *regexp.Regexp
	if len(short) > 0 {
		words = regexp.MustCompile(strings.Join(short, "|"))
	}
	return func(text string) string {
		text = replace.Replace(text)
		if words != nil && utf8.ValidString(text) {
			text = words.ReplaceAllString(text, "‹own›")
		}
		return text
	}
}

// differences returns the paths at which got is not as both controls are. What differs
// between the controls varies by itself.
func differences(got, control1, control2 flat) map[string]string {
	noise := unlike(control1, control2)
	found := map[string]string{}
	for path := range unlike(got, control1) {
		if !covered(path, noise) {
			found[path] = fmt.Sprintf("%s is %s, and %s for what never existed", path, show(got, path), show(control1, path))
		}
	}
	return found
}

// changes returns the paths at which two answers to one question differ, but for noise.
func changes(before, after flat, noise map[string]bool) map[string]string {
	found := map[string]string{}
	for path := range unlike(before, after) {
		if !covered(path, noise) {
			found[path] = fmt.Sprintf("%s was %s and is %s", path, show(before, path), show(after, path))
		}
	}
	return found
}

func unlike(a, b flat) map[string]bool {
	paths := map[string]bool{}
	for path, value := range a {
		if other, ok := b[path]; !ok || other != value {
			paths[path] = true
		}
	}
	for path := range b {
		if _, ok := a[path]; !ok {
			paths[path] = true
		}
	}
	return paths
}

// covered reports whether a path is noise, or below a list that is of another length each time.
func covered(path string, noise map[string]bool) bool {
	if noise[path] {
		return true
	}
	for n := range noise {
		if list, ok := strings.CutSuffix(n, ".#"); ok && strings.HasPrefix(path, list+"[") {
			return true
		}
	}
	return false
}

func show(f flat, path string) string {
	value, ok := f[path]
	if !ok {
		return "absent"
	}
	const most = 120
	if len(value) > most {
		value = value[:most] + "…"
	}
	return strconv.QuoteToGraphic(value)
}

// sentence joins what was found, the plainest first.
func sentence(found map[string]string) string {
	paths := slices.SortedFunc(maps.Keys(found), func(a, b string) int {
		if rank := weight(a) - weight(b); rank != 0 {
			return rank
		}
		return strings.Compare(a, b)
	})
	const most = 3
	var parts []string
	for _, path := range paths[:min(most, len(paths))] {
		parts = append(parts, found[path])
	}
	if more := len(paths) - most; more > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(parts, "; ")
}

func weight(path string) int {
	for i, first := range []string{"code", "message", "details", "messages"} {
		if path == first || strings.HasPrefix(path, first+"[") || strings.HasPrefix(path, first+".") {
			return i
		}
	}
	return 4
}
