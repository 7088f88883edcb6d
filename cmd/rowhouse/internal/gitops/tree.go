package gitops

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"strings"

	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// Tree is what files say.
type Tree struct {
	Scope Scope
	// Items are by name.
	Items map[string]Item
}

// Load reads a tree. A file of YAML or JSON that stands nowhere, or outside of the scope, is a mistake and no comment; other
// files, and what begins with a dot, are left aside. Links may lead to files within the tree only. The error has every
// mistake.
func Load(dir string) (Tree, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Tree{}, err
	}
	defer func() { _ = root.Close() }() // only read
	t := Tree{Scope: DefaultScope(), Items: make(map[string]Item)}
	text, err := read(root, ScopeFile)
	if err == nil {
		t.Scope, err = readScope(path.Join(dir, ScopeFile), text)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return t, err
	}
	var wrong []error
	err = fs.WalkDir(root.FS(), ".", func(at string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case at != "." && strings.HasPrefix(entry.Name(), "."):
			if entry.IsDir() {
				return fs.SkipDir
			}
		case entry.IsDir(), at == ScopeFile:
		default:
			wrong = append(wrong, t.add(root, dir, at))
		}
		return nil
	})
	return t, errors.Join(append(wrong, err)...)
}

// extension is that of a file that can hold a document.
func extension(name string) (string, bool) {
	e := path.Ext(name)
	return e, e == ".yaml" || e == ".yml" || e == ".json"
}

// add reads one file.
func (t *Tree) add(root *os.Root, dir, at string) error {
	info, err := root.Stat(at) // behind a link, which may not lead out
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", path.Join(dir, at), pathless(err))
	case info.IsDir():
		return fmt.Errorf("%s: links to folders are not followed", path.Join(dir, at))
	}
	ext, ok := extension(at)
	if !ok {
		return nil
	}
	shown := path.Join(dir, at)
	name, ok := NameOf(strings.TrimSuffix(at, ext))
	switch {
	case !ok:
		return fmt.Errorf("%s: no document stands here; want namespaces/NAMESPACE.yaml, approvals/NAMESPACE.yaml, LAYER/NAMESPACE.yaml "+
			"with a layer such as platform, plans/free or tenants/acme/environments/staging, or a name that begins with a dot", shown)
	case !t.Scope.Owns(name):
		return fmt.Errorf("%s: is outside of what %s says that this tree is about", shown, ScopeFile)
	case t.Items[name].Name != "":
		return fmt.Errorf("%s: %s says the same", shown, path.Join(dir, t.Items[name].File))
	}
	text, err := read(root, at)
	if err != nil {
		return fmt.Errorf("%s: %w", shown, pathless(err))
	}
	content, err := Decode(shown, text)
	if err != nil {
		return err
	}
	if isRule(name) {
		if content, err = rule(content); err != nil {
			return fmt.Errorf("%s: %w", shown, err)
		}
	}
	if _, namespace := split(name); holdsKills(namespace) {
		return fmt.Errorf("%s: kills are not kept in files; see rowhouse flags kill --help", shown)
	}
	t.Items[name] = Item{Name: name, Content: content, File: at}
	return nil
}

// pathless is an error of the file system without its path.
func pathless(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// read reads a file and bounds it.
func read(root *os.Root, at string) ([]byte, error) {
	f, err := root.Open(at)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, errors.New("is no file"))
	}
	return io.ReadAll(io.LimitReader(f, MaxFile+1))
}

// Narrow leaves aside what is outside of another scope.
func (t Tree) Narrow(s Scope) Tree {
	out := Tree{Scope: t.Scope, Items: maps.Clone(t.Items)}
	maps.DeleteFunc(out.Items, func(name string, _ Item) bool { return !s.Owns(name) })
	return out
}

// Written is what Write did.
type Written struct {
	// Files are those that changed, Same is how many did not, Stale are those of documents that the house does not have.
	Files, Stale []string
	Same         int
}

// Write makes a tree of what a house has. A file that says the same already stays as somebody wrote it, comments and all.
// Files of what the house does not have stay unless they are to be pruned. The folder is made when it is missing, and
// nothing is written outside of it.
func Write(dir string, s Scope, items map[string]Item, prune bool) (Written, error) {
	var out Written
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // for everybody who may read the repository
		return out, err
	}
	old, err := Load(dir)
	if err != nil {
		return out, fmt.Errorf("%w\nthe folder is not empty, and no tree: repair it, or choose another one", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return out, err
	}
	defer func() { _ = root.Close() }() // what was written was closed
	if _, err := root.Stat(ScopeFile); errors.Is(err, fs.ErrNotExist) {
		if err := write(root, ScopeFile, s.text()); err != nil {
			return out, err
		}
		out.Files = append(out.Files, ScopeFile)
	}
	items = maps.Clone(items)
	maps.DeleteFunc(items, func(_ string, i Item) bool { return i.Ours })
	for _, name := range sortedNames(items) {
		if was, ok := old.Items[name]; ok && was.Content == items[name].Content {
			out.Same++
			continue
		}
		at, err := writeItem(root, items[name], old.Items[name].File)
		if err != nil {
			return out, err
		}
		out.Files = append(out.Files, at)
	}
	for _, name := range sortedNames(old.Items) {
		if _, ok := items[name]; ok || !s.Owns(name) {
			continue
		}
		out.Stale = append(out.Stale, old.Items[name].File)
		if prune {
			if err := root.Remove(old.Items[name].File); err != nil {
				return out, err
			}
		}
	}
	return out, nil
}

// writeItem writes one document into the file that it had, or a new one, and returns its path.
func writeItem(root *os.Root, i Item, at string) (string, error) {
	o, err := settings.Parse([]byte(i.Content))
	if err != nil {
		return "", fmt.Errorf("%s of the house: %w", i.Name, err)
	}
	text := Encode(o)
	switch ext, _ := extension(at); {
	case at == "":
		at, err = PathOf(i.Name)
		at += ".yaml"
	case ext == ".json":
		var b bytes.Buffer
		err = json.Indent(&b, []byte(i.Content), "", "  ")
		b.WriteByte('\n')
		text = b.Bytes()
	}
	if err != nil {
		return "", err
	}
	return at, write(root, at, text)
}

// write puts a file in place as a whole.
func write(root *os.Root, at string, text []byte) error {
	if err := root.MkdirAll(path.Dir(at), 0o755); err != nil {
		return err
	}
	temporary := path.Join(path.Dir(at), "."+path.Base(at)+".new")
	if err := root.WriteFile(temporary, text, 0o644); err != nil {
		return err
	}
	return root.Rename(temporary, at)
}

// One is a tree of a single document.
func One(layer, namespace, file string, text []byte) (Tree, error) {
	name := layer + "/config/" + namespace
	if !names.MatchString(name) || holdsKills(namespace) {
		return Tree{}, fmt.Errorf("%s is not the name of a document that files can hold", name)
	}
	content, err := Decode(file, text)
	if err != nil {
		return Tree{}, err
	}
	no := false
	return Tree{
		Scope: Scope{Layers: []string{layer}, Namespaces: []string{namespace}, Schemas: &no},
		Items: map[string]Item{name: {Name: name, Content: content, File: file}},
	}, nil
}
