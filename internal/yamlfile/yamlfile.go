// Package yamlfile reads our YAML files strictly: an unknown key, a duration without a unit or a value of another type
// is an error that names file, line and, for a key, the nearest one that exists.
//
// It is for configurations and policies that people write. It is not for documents of tenants. Start at [Load].
package yamlfile

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/rowhouse-platform/rowhouse/sdk/nearest"
)

// maxSize bounds what is read; our files are far smaller.
const maxSize = 4 << 20

// Path is the path of a file that another file names. A relative one is meant from the folder of the file that names
// it, and [Load] makes it absolute or relative to the working folder accordingly.
type Path string

// Read returns what the file holds, without the white space at its end. Secrets come this way: a configuration names
// their file and never holds them.
func (p Path) Read() ([]byte, error) {
	if p == "" {
		return nil, errors.New("no file is named")
	}
	b, err := os.ReadFile(string(p))
	if err != nil {
		return nil, err
	}
	return bytes.TrimRight(b, " \t\r\n"), nil
}

// CheckFolder says why p cannot be a folder of the process's own state: it is none, or none can be made there. It makes
// nothing.
func (p Path) CheckFolder() error {
	for at := filepath.Clean(string(p)); ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		switch {
		case err == nil && info.IsDir():
			return nil
		case err == nil:
			return fmt.Errorf("%s is not a folder", at)
		case !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at):
			return err
		}
	}
}

// Validator is what a type offers that checks itself after it was read.
type Validator interface {
	Validate() error
}

// Load reads the file at path into the struct that into points to. Keys that the file lacks keep the value that into
// had. When into is a [Validator] it is asked at the end.
func Load(path string, into any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	content, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if len(content) > maxSize {
		return fmt.Errorf("%s is larger than %d bytes", path, maxSize)
	}
	return Decode(path, content, into)
}

// Decode is [Load] for content that was read already.
func Decode(path string, content []byte, into any) error {
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var document yaml.Node
	if err := decoder.Decode(&document); err != nil && !errors.Is(err, io.EOF) {
		return located(path, err)
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: more than one YAML document", path)
	}
	if len(document.Content) > 0 {
		root := document.Content[0]
		if err := check(root, reflect.TypeOf(into), ""); err != nil {
			return fmt.Errorf("%s:%w", path, err)
		}
		if err := root.Decode(into); err != nil {
			return located(path, err)
		}
	}
	rebase(reflect.ValueOf(into), filepath.Dir(path))
	if v, ok := into.(Validator); ok {
		if err := v.Validate(); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// located puts the path before the line that the decoder names.
func located(path string, err error) error {
	var typed *yaml.TypeError
	if errors.As(err, &typed) && len(typed.Errors) > 0 {
		return fmt.Errorf("%s:%s", path, strings.TrimPrefix(typed.Errors[0], "line "))
	}
	return fmt.Errorf("%s:%s", path, strings.TrimPrefix(err.Error(), "yaml: line "))
}

// check walks node beside the type it is meant for. Its errors begin with the line.
func check(node *yaml.Node, t reflect.Type, where string) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if node.Kind == yaml.AliasNode || node.Anchor != "" {
		return fmt.Errorf("%d: anchors and aliases are not supported", node.Line)
	}
	if t == reflect.TypeFor[time.Duration]() {
		return checkDuration(node, where)
	}
	if reads(t) {
		return nil
	}
	switch {
	case t.Kind() == reflect.Struct && node.Kind == yaml.MappingNode:
		return checkStruct(node, t, where)
	case t.Kind() == reflect.Map && node.Kind == yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			if err := check(node.Content[i+1], t.Elem(), join(where, node.Content[i].Value)); err != nil {
				return err
			}
		}
	case t.Kind() == reflect.Slice && node.Kind == yaml.SequenceNode:
		for i, item := range node.Content {
			if err := check(item, t.Elem(), fmt.Sprintf("%s[%d]", where, i)); err != nil {
				return err
			}
		}
	}
	return nil // what does not fit at all, the decoder refuses
}

// reads reports whether t decodes itself.
func reads(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(reflect.TypeFor[yaml.Unmarshaler]()) || p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// checkDuration refuses a number without a unit, which the decoder would take as nanoseconds.
func checkDuration(node *yaml.Node, where string) error {
	if _, err := time.ParseDuration(node.Value); err != nil || node.Kind != yaml.ScalarNode {
		return fmt.Errorf("%d: %s: %q is no duration; write 500ms, 5s, 10m or 24h", node.Line, where, node.Value)
	}
	return nil
}

func checkStruct(node *yaml.Node, t reflect.Type, where string) error {
	known := map[string]reflect.Type{}
	keys(t, known)
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		field, ok := known[key.Value]
		if !ok {
			return unknown(key, known, where)
		}
		if err := check(value, field, join(where, key.Value)); err != nil {
			return err
		}
	}
	return nil
}

// keys collects the keys of a struct as the decoder sees them.
func keys(t reflect.Type, into map[string]reflect.Type) {
	for field := range t.Fields() {
		name, options, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		switch {
		case options == "inline":
			keys(field.Type, into)
		case name == "-" || !field.IsExported():
		case name == "":
			into[strings.ToLower(field.Name)] = field.Type
		default:
			into[name] = field.Type
		}
	}
}

func unknown(key *yaml.Node, known map[string]reflect.Type, where string) error {
	in := ""
	if where != "" {
		in = " in " + where
	}
	hint := ""
	if near := nearest.Name(key.Value, slices.Sorted(maps.Keys(known))); near != "" {
		hint = fmt.Sprintf("; the nearest known key is %q", near)
	}
	return fmt.Errorf("%d: unknown key %q%s%s", key.Line, key.Value, in, hint)
}

// rebase makes relative paths relative to dir.
func rebase(v reflect.Value, dir string) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			rebase(v.Elem(), dir)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if field := v.Type().Field(i); field.IsExported() || field.Anonymous {
				rebase(v.Field(i), dir)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			rebase(v.Index(i), dir)
		}
	case reflect.Map:
		rebaseMap(v, dir)
	case reflect.String:
		if p, ok := reflect.TypeAssert[Path](v); ok && p != "" && !filepath.IsAbs(string(p)) && v.CanSet() {
			v.SetString(filepath.Join(dir, string(p)))
		}
	default:
	}
}

// rebaseMap replaces the map's values, which cannot be changed in place.
func rebaseMap(v reflect.Value, dir string) {
	for _, key := range v.MapKeys() {
		value := reflect.New(v.Type().Elem())
		value.Elem().Set(v.MapIndex(key))
		rebase(value, dir)
		v.SetMapIndex(key, value.Elem())
	}
}

func join(where, key string) string {
	if where == "" {
		return key
	}
	return where + "." + key
}
