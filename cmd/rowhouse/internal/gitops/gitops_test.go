package gitops_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/rowhouse-platform/rowhouse/cmd/rowhouse/internal/gitops"
	"github.com/rowhouse-platform/rowhouse/sdk/flags"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// house is a config service in memory: it compares etags, knows namespaces, and can fail.
type house struct {
	items map[string]gitops.Item
	next  int
	// done are the changes that it made; before the one that is number crash it goes away.
	done  []string
	crash int
	// refuse is a name whose changes it refuses, until unless exists.
	refuse, unless string
}

func newHouse() *house { return &house{items: map[string]gitops.Item{}, crash: -1} }

func (h *house) put(name, content string) {
	h.next++
	o, err := settings.Parse([]byte(content))
	if err != nil {
		panic(err)
	}
	h.items[name] = gitops.Item{Name: name, Content: string(settings.Canonical(o)), Etag: strconv.Itoa(h.next)}
}

func (h *house) Namespaces(context.Context) ([]gitops.Item, error) {
	return append(h.list("namespaces/"), h.list("approvals/")...), nil
}

func (h *house) Documents(_ context.Context, parent string) ([]gitops.Item, error) {
	switch prefix, wild := strings.CutSuffix(parent, "-"); {
	case parent == "-":
		return slices.DeleteFunc(h.list(""), func(i gitops.Item) bool { return !strings.Contains(i.Name, "/config/") }), nil
	case wild:
		return h.list(prefix), nil
	default:
		return h.list(parent + "/config/"), nil
	}
}

func (h *house) list(prefix string) (out []gitops.Item) {
	for name, i := range h.items {
		if strings.HasPrefix(name, prefix) {
			out = append(out, i)
		}
	}
	return out
}

func (h *house) Check(_ context.Context, c gitops.Change) (string, error) {
	is, ok := h.items[c.Name]
	_, namespace, document := strings.Cut(c.Name, "/config/")
	_, known := h.items["namespaces/"+namespace]
	_, unless := h.items[h.unless]
	refuse := func(why string) (string, error) { return "", &gitops.RefusalError{Err: errors.New(why)} }
	switch {
	case c.Name == h.refuse && !unless:
		return refuse("breaks a rule in tenants/acme")
	case document && !known:
		return refuse("the namespace does not exist")
	case c.Action == gitops.Create && ok:
		return refuse("exists")
	case c.Action != gitops.Create && !ok:
		return refuse("does not exist")
	case c.Etag != "" && ok && c.Etag != is.Etag:
		return refuse("changed meanwhile")
	case !ok:
		return "none", nil
	default:
		return is.Etag, nil
	}
}

func (h *house) Do(ctx context.Context, c gitops.Change) error {
	if len(h.done) == h.crash {
		return errors.New("the connection broke")
	}
	if _, err := h.Check(ctx, c); err != nil {
		return err
	}
	h.done = append(h.done, string(c.Action)+" "+c.Name)
	if c.Action == gitops.Delete {
		delete(h.items, c.Name)
		return nil
	}
	h.put(c.Name, c.Content)
	return nil
}

// sample is a house with something at each layer.
func sample() *house {
	h := newHouse()
	h.put("namespaces/portal", `{"type":"object"}`)
	h.put("approvals/portal", `{"layers":["plan","platform"],"count":1}`)
	h.put("namespaces/flags", flags.Schema())
	h.put("namespaces/flag-kills", flags.KillSchema())
	h.put("namespaces/setting-kills", settings.KillSchema())
	h.put("plans/free/config/setting-kills", `{"x":{}}`)
	h.put("platform/config/portal", `{"title":"Notes","page":{"size":50}}`)
	h.put("platform/config/flags", `{"flags":{"a":{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off"}}}`)
	h.put("platform/config/flag-kills", `{"a":{"reason":"wrong","by":"x","at":"2026-01-01T00:00:00Z"}}`)
	h.put("plans/free/config/portal", `{"page":{"size":10},"no":"yes","css":".a {\n  color: red;\n}\n"}`)
	h.put("regions/eu-central/config/portal", `{"host":"eu.example"}`)
	h.put("tenants/acme/config/portal", `{"title":"Acme"}`)
	h.put("tenants/acme/environments/staging/config/portal", `{"title":"Acme, staging"}`)
	return h
}

func everything(t *testing.T) gitops.Scope {
	t.Helper()
	s, err := gitops.Narrow([]string{"*"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func export(t *testing.T, h *house, dir string, s gitops.Scope) gitops.Written {
	t.Helper()
	items, err := gitops.Read(t.Context(), h, s)
	if err != nil {
		t.Fatal(err)
	}
	w, err := gitops.Write(dir, s, items, false)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// plan is what apply would do.
func plan(t *testing.T, h *house, dir string, prune bool) gitops.Plan {
	t.Helper()
	tree, err := gitops.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	house, err := gitops.Read(t.Context(), h, tree.Scope)
	if err != nil {
		t.Fatal(err)
	}
	p, err := gitops.Compare(tree, house, prune)
	if err == nil {
		err = p.Ask(t.Context(), h)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func apply(t *testing.T, h *house, dir string) error {
	t.Helper()
	p := plan(t, h, dir, false)
	return p.Apply(t.Context(), h, func(gitops.Change) {})
}

// snapshot is all files below a folder.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(at string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, at))
		out[at] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestExportIsAppliedToAnEmptyHouse(t *testing.T) {
	t.Parallel()
	h, dir := sample(), t.TempDir()
	export(t, h, dir, everything(t))
	files := snapshot(t, dir)
	want := []string{
		"approvals/portal.yaml", "namespaces/portal.yaml", "plans/free/portal.yaml", "platform/flags.yaml", "platform/portal.yaml", "regions/eu-central/portal.yaml",
		"rowhouse.yaml", "tenants/acme/environments/staging/portal.yaml", "tenants/acme/portal.yaml",
	}
	var got []string
	for name := range files {
		got = append(got, name)
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("files (-want +got):\n%s", diff)
	}
	const free = "css: |\n  .a {\n    color: red;\n  }\n\"no\": \"yes\"\npage:\n  size: 10\n"
	if diff := cmp.Diff(free, files["plans/free/portal.yaml"]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	empty := newHouse()
	empty.put("namespaces/flags", flags.Schema())
	if err := apply(t, empty, dir); err != nil {
		t.Fatal(err)
	}
	order := []string{
		"create namespaces/portal", "create platform/config/flags", "create platform/config/portal", "create plans/free/config/portal",
		"create regions/eu-central/config/portal", "create tenants/acme/config/portal", "create tenants/acme/environments/staging/config/portal",
		"create approvals/portal",
	}
	if diff := cmp.Diff(order, empty.done); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	again := t.TempDir()
	export(t, empty, again, everything(t))
	if diff := cmp.Diff(files, snapshot(t, again)); diff != "" {
		t.Errorf("the second export differs (-first +second):\n%s", diff)
	}
	if err := apply(t, empty, dir); err != nil || len(empty.done) != len(order) {
		t.Errorf("a second apply made %v, %v", empty.done[len(order):], err)
	}
}

func TestExportKeepsWhatSaysTheSame(t *testing.T) {
	t.Parallel()
	h, dir := sample(), t.TempDir()
	export(t, h, dir, everything(t))
	const mine = "# why it is ten\npage: {size: 10}\n'no': 'yes'\ncss: \".a {\\n  color: red;\\n}\\n\"\n"
	write(t, dir, "plans/free/portal.yaml", mine)
	if err := os.Remove(filepath.Join(dir, "platform", "flags.yaml")); err != nil {
		t.Fatal(err)
	}
	write(t, dir, "platform/flags.json", `{"flags":{}}`)
	write(t, dir, "plans/gone/portal.yaml", "a: 1\n")
	write(t, dir, "README.md", "# Ours\n")
	w := export(t, h, dir, everything(t))
	if diff := cmp.Diff(gitops.Written{Files: []string{"platform/flags.json"}, Stale: []string{"plans/gone/portal.yaml"}, Same: 7}, w); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	files := snapshot(t, dir)
	if files["plans/free/portal.yaml"] != mine || files["README.md"] != "# Ours\n" || !strings.Contains(files["platform/flags.json"], `"defaultVariant": "off"`) {
		t.Errorf("%q", files)
	}
}

func write(t *testing.T, dir, at, text string) {
	t.Helper()
	at = filepath.Join(dir, at)
	if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o700), os.WriteFile(at, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

func TestDriftAfterAChangeByHand(t *testing.T) {
	t.Parallel()
	h, dir := sample(), t.TempDir()
	export(t, h, dir, gitops.DefaultScope())
	if p := plan(t, h, dir, false); len(p.Changes)+len(p.Unmanaged) > 0 {
		t.Fatalf("after an export: %+v", p)
	}
	h.put("plans/free/config/portal", `{"page":{"size":11},"no":"yes","css":".a {\n  color: red;\n}\n","new":1}`)
	h.put("plans/gold/config/portal", `{}`)
	h.put("tenants/acme/config/portal", `{"title":"what a tenant sets itself is no drift"}`)
	p := plan(t, h, dir, false)
	want := []gitops.Difference{{Pointer: "/new", House: "1"}, {Pointer: "/page/size", House: "11", File: "10"}}
	if len(p.Changes) != 1 || p.Changes[0].Name != "plans/free/config/portal" || p.Changes[0].File != "plans/free/portal.yaml" {
		t.Fatalf("%+v", p.Changes)
	}
	if diff := cmp.Diff(want, p.Changes[0].Differences); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"plans/gold/config/portal"}, p.Unmanaged); diff != "" {
		t.Errorf("in no file (-want +got):\n%s", diff)
	}
	pruned := plan(t, h, dir, true)
	if err := pruned.Apply(t.Context(), h, func(gitops.Change) {}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"update plans/free/config/portal", "delete plans/gold/config/portal"}, h.done); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A house that goes away between any two changes is put right by the same command again.
func TestApplyGoesOnAfterACrash(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	export(t, sample(), dir, everything(t))
	for crash := range 8 {
		h := newHouse()
		h.put("namespaces/flags", flags.Schema())
		h.crash = crash
		if err := apply(t, h, dir); err == nil || len(h.done) != crash {
			t.Fatalf("crash before %d: %v, %v", crash, h.done, err)
		}
		h.crash = -1
		if err := apply(t, h, dir); err != nil {
			t.Fatal(err)
		}
		if p := plan(t, h, dir, true); len(p.Changes) > 0 || len(h.done) != 8 {
			t.Errorf("crash before %d: %d changes are left, %v", crash, len(p.Changes), h.done)
		}
	}
}

func TestWhatChangedSinceThePlanIsRefused(t *testing.T) {
	t.Parallel()
	for name, meddle := range map[string]func(*house){
		"changed":      func(h *house) { h.put("plans/free/config/portal", `{"by":"hand"}`) },
		"made":         func(h *house) { h.put("plans/new/config/portal", `{"by":"hand"}`) },
		"made, opened": func(h *house) { h.put("platform/config/other", `{"by":"hand"}`) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, dir := sample(), t.TempDir()
			export(t, h, dir, gitops.DefaultScope())
			write(t, dir, "plans/free/portal.yaml", "a: 1\n")
			write(t, dir, "plans/new/portal.yaml", "a: 1\n")
			write(t, dir, "namespaces/other.yaml", "{}\n")
			write(t, dir, "platform/other.yaml", "a: 1\n")
			p := plan(t, h, dir, false)
			meddle(h)
			before := len(h.items)
			var refusal *gitops.RefusalError
			if err := p.Apply(t.Context(), h, func(gitops.Change) {}); !errors.As(err, &refusal) {
				t.Errorf("%v", err)
			}
			for _, i := range h.items {
				if i.Content == `{"by":"hand"}` {
					before = 0
				}
			}
			if before != 0 {
				t.Error("what was changed by hand is gone")
			}
		})
	}
}

func TestPlanAsksTheHouse(t *testing.T) {
	t.Parallel()
	h, dir := sample(), t.TempDir()
	export(t, h, dir, gitops.DefaultScope())
	write(t, dir, "plans/free/portal.yaml", "a: 1\n")
	h.refuse, h.unless = "plans/free/config/portal", "platform/config/more"
	p := plan(t, h, dir, false)
	if !p.Refused() || p.Changes[0].Check != gitops.Refused || !strings.Contains(p.Changes[0].Why, "tenants/acme") {
		t.Errorf("%+v", p.Changes)
	}
	write(t, dir, "platform/portal.yaml", "title: Other\n") // it comes first, and may mend the other
	if p = plan(t, h, dir, false); p.Refused() || p.Changes[0].Check != gitops.Accepted || p.Changes[1].Check != gitops.Open {
		t.Errorf("%+v", p.Changes)
	}
	if err := p.Apply(t.Context(), h, func(gitops.Change) {}); err == nil || len(h.done) != 1 || !p.Changes[0].Done || p.Changes[1].Done {
		t.Errorf("%v, %v", h.done, err)
	}
}

func TestHostileTrees(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	write(t, outside, "portal.yaml", "a: 1\n")
	for name, c := range map[string]struct {
		make func(t *testing.T, dir string) error
		want string
	}{
		"a link out of the tree": {func(_ *testing.T, dir string) error {
			return os.Symlink(filepath.Join(outside, "portal.yaml"), filepath.Join(dir, "platform", "other.yaml"))
		}, "platform/other.yaml: "},
		"a link upwards": {func(_ *testing.T, dir string) error {
			return os.Symlink("../../"+filepath.Base(outside)+"/portal.yaml", filepath.Join(dir, "platform", "other.yaml"))
		}, "platform/other.yaml: "},
		"a folder behind a link": {func(_ *testing.T, dir string) error {
			return os.Symlink("platform", filepath.Join(dir, "plans"))
		}, "links to folders"},
		"no place": {func(t *testing.T, dir string) error {
			t.Helper()
			write(t, dir, "plan/free/portal.yaml", "a: 1\n")
			return nil
		}, "plan/free/portal.yaml: no document stands here"},
		"a name that is none": {func(t *testing.T, dir string) error {
			t.Helper()
			write(t, dir, "plans/Free/portal.yaml", "a: 1\n")
			return nil
		}, "no document stands here"},
		"twice": {func(t *testing.T, dir string) error {
			t.Helper()
			write(t, dir, "platform/portal.json", "{}")
			return nil
		}, "says the same"},
		"outside of the scope": {func(t *testing.T, dir string) error {
			t.Helper()
			write(t, dir, "tenants/acme/portal.yaml", "a: 1\n")
			return nil
		}, "outside of what rowhouse.yaml says"},
		"kills": {func(t *testing.T, dir string) error {
			t.Helper()
			write(t, dir, "platform/flag-kills.yaml", "{}\n")
			return nil
		}, "kills are not kept in files"},
		"a scope with a typing error": {func(t *testing.T, dir string) error {
			t.Helper()
			write(t, dir, "rowhouse.yaml", "layer: [platform]\n")
			return nil
		}, "layers"},
		"a layer that is none": {func(t *testing.T, dir string) error {
			t.Helper()
			write(t, dir, "rowhouse.yaml", "layers: [plan/free]\n")
			return nil
		}, `"plan/free" is no layer`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, dir, "platform/portal.yaml", "a: 1\n")
			write(t, dir, ".git/config.yaml", "not: [ours\n")
			if _, err := gitops.Load(dir); err != nil {
				t.Fatal(err)
			}
			if err := c.make(t, dir); err != nil {
				t.Fatal(err)
			}
			if _, err := gitops.Load(dir); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q", err, c.want)
			}
		})
	}
}

// A link to a file of the tree is one, as where Kubernetes mounts a ConfigMap.
func TestLinksWithinTheTree(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "..data/portal.yaml", "a: 1\n")
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "platform"), 0o700),
		os.Symlink("../..data/portal.yaml", filepath.Join(dir, "platform", "portal.yaml"))); err != nil {
		t.Fatal(err)
	}
	tree, err := gitops.Load(dir)
	if err != nil || tree.Items["platform/config/portal"].Content != `{"a":1}` {
		t.Errorf("%+v, %v", tree, err)
	}
}

// A house cannot make an export write anywhere else.
func TestHostileHouse(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"platform/config/../../x", "../config/x", "plans/../config/x", "tenants/a/../../config/x", "platform/config/.git", "/etc/config/x", "platform/config/a/b",
		"plans/free\x00/config/x", "platform/config/x.yaml", "", "namespaces/../x",
	} {
		h, parent := newHouse(), t.TempDir()
		h.put(name, `{"evil":true}`)
		dir := filepath.Join(parent, "tree")
		s, err := gitops.Narrow(nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = gitops.Write(dir, s, h.items, false)
		if err == nil {
			t.Errorf("%q was written", name)
		}
		if files := snapshot(t, parent); len(files) > 1 {
			t.Errorf("%q made %v", name, files)
		}
	}
	dir, outside := t.TempDir(), t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "platform")); err != nil {
		t.Fatal(err)
	}
	if _, err := gitops.Write(dir, gitops.DefaultScope(), sample().items, false); err == nil || len(snapshot(t, outside)) > 0 {
		t.Errorf("an export followed a link: %v, %v", err, snapshot(t, outside))
	}
}

func TestScope(t *testing.T) {
	t.Parallel()
	for pattern, c := range map[string]struct{ in, out []string }{
		"platform":                          {[]string{"platform"}, []string{"plans/free", "tenants/platform"}},
		"plans":                             {[]string{"plans/free"}, []string{"platform", "regions/eu"}},
		"plans/free":                        {[]string{"plans/free"}, []string{"plans/freedom"}},
		"tenants/acme":                      {[]string{"tenants/acme", "tenants/acme/environments/a"}, []string{"tenants/acmes", "platform"}},
		"tenants/*/environments/staging":    {[]string{"tenants/a/environments/staging"}, []string{"tenants/a", "tenants/a/environments/live"}},
		"tenants/acme/environments/*":       {[]string{"tenants/acme/environments/x"}, []string{"tenants/acme", "tenants/b/environments/x"}},
		"*":                                 {[]string{"platform", "tenants/a/environments/b"}, nil},
		"tenants":                           {[]string{"tenants/a", "tenants/a/environments/b"}, []string{"plans/a"}},
		"tenants/*":                         {[]string{"tenants/a", "tenants/a/environments/b"}, []string{"plans/a"}},
		"tenants/acme/environments/staging": {[]string{"tenants/acme/environments/staging"}, []string{"tenants/acme"}},
	} {
		s, err := gitops.Narrow([]string{pattern}, []string{"portal"})
		if err != nil {
			t.Fatal(err)
		}
		for _, layer := range c.in {
			if !s.Owns(layer+"/config/portal") || s.Owns(layer+"/config/other") {
				t.Errorf("%s and %s", pattern, layer)
			}
		}
		for _, layer := range c.out {
			if s.Owns(layer + "/config/portal") {
				t.Errorf("%s has %s", pattern, layer)
			}
		}
	}
}

// Whatever two houses hold, applying the one's export with prune makes the other like it.
func TestApplyMakesHousesAlike(t *testing.T) {
	t.Parallel()
	names := []string{
		"platform/config/portal", "platform/config/more", "plans/a/config/portal", "plans/b/config/more", "regions/r/config/portal",
		"tenants/t/config/portal", "tenants/t/environments/e/config/more",
	}
	trees := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		houses := []*house{newHouse(), newHouse()}
		for i, h := range houses {
			h.put("namespaces/portal", `{}`)
			h.put("namespaces/more", `{}`)
			for name, n := range rapid.MapOf(rapid.SampledFrom(names), rapid.IntRange(0, 2)).Draw(rt, strconv.Itoa(i)) {
				h.put(name, fmt.Sprintf(`{"n":%d}`, n))
			}
		}
		dir := filepath.Join(trees, strconv.Itoa(len(snapshot(t, trees))))
		export(t, houses[0], dir, everything(t))
		p := plan(t, houses[1], dir, true)
		if err := p.Apply(t.Context(), houses[1], func(gitops.Change) {}); err != nil {
			rt.Fatal(err)
		}
		contents := func(h *house) map[string]string {
			out := map[string]string{}
			for name, i := range h.items {
				out[name] = i.Content
			}
			return out
		}
		if diff := cmp.Diff(contents(houses[0]), contents(houses[1])); diff != "" {
			rt.Fatalf("(-one +other):\n%s", diff)
		}
	})
}
