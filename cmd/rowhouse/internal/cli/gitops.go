package cli

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rowhouse-platform/rowhouse/cmd/rowhouse/internal/gitops"
)

// filesCommands keep settings as files; see package gitops.
func (a *app) filesCommands() []*cobra.Command {
	return []*cobra.Command{a.exportCommand(), a.planCommand(), a.applyCommand(), a.driftCommand()}
}

// files are the flags by which files are named.
type files struct {
	path, overrides    string
	layers, namespaces []string
	prune              bool
}

func (f *files) define(a *app, c *cobra.Command) {
	f.scope(c)
	c.Flags().StringVarP(&f.path, "file", "f", "", "the folder of the tree; with a layer and a namespace: the file of one document, or -")
	_ = c.MarkFlagRequired("file") // defined above
	c.ValidArgsFunction = a.completeArgs(verb{fields: named(configForm)})
}

func (f *files) scope(c *cobra.Command) {
	c.Flags().StringSliceVar(&f.layers, "layers", nil, "leave everything aside but these layers, for example platform,plans,tenants/acme")
	c.Flags().StringSliceVar(&f.namespaces, "namespaces", nil, "leave everything aside but these namespaces")
}

func (f *files) overriding(c *cobra.Command) {
	c.Flags().StringVar(&f.overrides, "overrides", "refuse", "what becomes of values that new locks and clamps are against: refuse or shadow")
}

// narrow is the scope that the flags leave, and whether they leave something out.
func (f *files) narrow() (gitops.Scope, bool, error) {
	s, err := gitops.Narrow(f.layers, f.namespaces)
	return s, f.layers != nil || f.namespaces != nil, usageError(err)
}

// tree reads the files, and what the house has of what they are about.
func (f *files) tree(ctx context.Context, c *cobra.Command, h gitops.House, args []string) (gitops.Tree, map[string]gitops.Item, error) {
	t, err := f.load(c, args)
	if err != nil {
		return t, nil, usageError(err)
	}
	narrow, narrowed, err := f.narrow()
	if err != nil {
		return t, nil, err
	}
	scope := t.Scope
	if narrowed {
		t = t.Narrow(narrow)
		scope = scope.And(narrow)
	}
	house, err := gitops.Read(ctx, h, scope)
	return t, house, err
}

// load reads the files.
func (f *files) load(c *cobra.Command, args []string) (gitops.Tree, error) {
	if len(args) == 0 {
		info, err := os.Stat(f.path)
		if err == nil && !info.IsDir() {
			err = fmt.Errorf("%s is no folder; for a single file say whose it is: %s LAYER NAMESPACE -f %s", f.path, c.CommandPath(), f.path)
		}
		if err != nil {
			return gitops.Tree{}, err
		}
		return gitops.Load(f.path)
	}
	name, rest, err := fill(configForm, args)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("what is %q?", rest[0])
	}
	if err != nil {
		return gitops.Tree{}, err
	}
	text, err := readInput(c, f.path)
	if err != nil {
		return gitops.Tree{}, err
	}
	layer, namespace, _ := strings.Cut(name, "/config/")
	return gitops.One(layer, namespace, f.path, text)
}

const filesUse = " [<layer> <namespace>]"

func (a *app) exportCommand() *cobra.Command {
	var f files
	c := &cobra.Command{
		Use: "export <folder>", Short: "Write settings as a tree of files",
		Long: `Write settings as a tree of YAML files, the same bytes for the same settings: a file for the schema of each
namespace and for each document, and rowhouse.yaml, which says what the tree is about. A file that says the same
already stays as it is, with its comments. Without --layers and a rowhouse.yaml: platform, plans and regions.

RPC: rowhouse.config.v1.DocumentService.ListDocuments, rowhouse.config.v1.NamespaceService.ListNamespaces
Permission: config.documents.list, config.namespaces.list`,
		Example: "  rowhouse config export house\n  rowhouse config export acme --layers tenants/acme --namespaces brand,flags",
		Args:    cobra.ExactArgs(1),
	}
	f.scope(c)
	c.Flags().BoolVar(&f.prune, "prune", false, "remove files of what the house does not have")
	c.RunE = func(c *cobra.Command, args []string) error {
		scope, narrowed, err := f.narrow()
		if err != nil {
			return err
		}
		own, found, err := gitops.ScopeOf(args[0])
		switch {
		case err != nil:
			return usageError(err)
		case found && narrowed:
			scope = own.And(scope)
		case !narrowed:
			scope = own
		}
		items, err := gitops.Read(c.Context(), &configHouse{app: a, command: c}, scope)
		if err != nil {
			return err
		}
		written, err := gitops.Write(args[0], scope, items, f.prune)
		for _, at := range written.Files {
			_, _ = fmt.Fprintln(c.OutOrStdout(), printable(at)) // the files are there
		}
		verb := "stay, though the house has nothing of the kind; --prune removes them"
		if f.prune {
			verb = "were removed"
		}
		if len(written.Stale) > 0 && err == nil {
			_, _ = fmt.Fprintf(c.ErrOrStderr(), "%d files %s: %s\n", len(written.Stale), verb, printable(strings.Join(written.Stale, ", ")))
		}
		a.note(c.ErrOrStderr(), fmt.Sprintf("%d files written, %d said the same already", len(written.Files), written.Same))
		return err
	}
	return c
}

func (a *app) planCommand() *cobra.Command {
	var f files
	c := &cobra.Command{
		Use: "plan" + filesUse, Short: "Show what apply would change",
		Long: `Show what apply would change, value by value, and ask the house about each change. What it refuses today is
shown with the tenants concerned; where an earlier change of the plan may mend that, it is open. Nothing is changed.

Exit status: 0 the plan can be applied, 1 the house refuses a part of it.

RPC: rowhouse.config.v1.DocumentService.UpdateDocument, with validate_only
Permission: config.documents.list, config.namespaces.list; config.documents.update for what the house says`,
		Example: "  rowhouse config plan -f house\n  rowhouse config plan plans/free portal -f portal.json\n" +
			"  rowhouse config plan -f house --prune -o json",
		Args: cobra.MaximumNArgs(2),
	}
	f.define(a, c)
	f.overriding(c)
	c.Flags().BoolVar(&f.prune, "prune", false, "delete what the house has and no file says")
	c.RunE = func(c *cobra.Command, args []string) error {
		p, _, err := a.plan(c, &f, args)
		if err != nil {
			return err
		}
		if err := a.showPlan(c, p); err != nil {
			return err
		}
		if p.Refused() {
			return errors.New("the house refuses a part of the plan")
		}
		return nil
	}
	return c
}

// plan compares, and asks the house.
func (a *app) plan(c *cobra.Command, f *files, args []string) (gitops.Plan, gitops.House, error) {
	if err := a.checkFormat(); err != nil {
		return gitops.Plan{}, nil, err
	}
	h, err := newConfigHouse(a, c, f.overrides)
	if err != nil {
		return gitops.Plan{}, nil, err
	}
	t, house, err := f.tree(c.Context(), c, h, args)
	if err != nil {
		return gitops.Plan{}, nil, err
	}
	p, err := gitops.Compare(t, house, f.prune)
	if err == nil {
		err = p.Ask(c.Context(), h)
	}
	return p, h, err
}

func (a *app) applyCommand() *cobra.Command {
	var f files
	var yes bool
	var reason, proposal string
	c := &cobra.Command{
		Use: "apply" + filesUse, Short: "Make the house as files say",
		Long: `Make the house as files say: show the plan, ask, and make one change after the other, schemas first and then the
widest layer. What changed since the plan is refused, and so is what breaks a rule; the command stops there. What was
made stays, and the same command again goes on. A second time there is nothing to do.

Where an approval rule holds, nobody makes changes alone. With --as-change the plan is not applied but proposed: its
edits, up to 20, become one change, which is submitted for approval and goes live when somebody publishes or schedules
it, all of it or nothing.

RPC: rowhouse.config.v1.DocumentService.UpdateDocument, rowhouse.config.v1.NamespaceService.UpdateNamespace and the like;
with --as-change rowhouse.config.v1.ChangeService.CreateChange, rowhouse.config.v1.ChangeService.SubmitChange
Permission: config.documents.list, config.documents.update, config.namespaces.list, and config.namespaces.create,
config.namespaces.update, config.documents.delete for what the plan needs; config.changes.create and
config.changes.update with --as-change`,
		Example: "  rowhouse config apply -f house --yes --reason \"merge of #4711\"\n" +
			"  rowhouse config apply -f house --yes --as-change merge-4711 --reason \"merge of #4711\"\n" +
			"  rowhouse config apply platform flags -f flags.flagd.json --yes",
		Args: cobra.MaximumNArgs(2),
	}
	f.define(a, c)
	f.overriding(c)
	c.Flags().BoolVar(&f.prune, "prune", false, "delete what the house has and no file says")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.Flags().StringVar(&reason, "reason", "", "why; it goes into the audit chain")
	c.Flags().StringVar(&proposal, "as-change", "", "propose the plan as the change with this id, to be approved, instead of applying it")
	c.RunE = func(c *cobra.Command, args []string) error {
		if proposal != "" {
			return a.propose(c, &f, args, &configHouse{app: a, command: c, reason: cmp.Or(reason, "rowhouse config apply")}, proposal, yes)
		}
		p, h, err := a.plan(c, &f, args)
		if err != nil {
			return err
		}
		h.(*configHouse).reason = cmp.Or(reason, "rowhouse config apply") //nolint:forcetypeassert // plan made it
		if !a.forPrograms(c) || len(p.Changes) == 0 || p.Refused() {      // what is made is told to programs at the end
			if err := a.showPlan(c, p); err != nil || len(p.Changes) == 0 {
				return err
			}
		}
		if p.Refused() {
			return errors.New("nothing was changed: the house refuses a part of the plan" + needsApproval(p))
		}
		if err := a.agreed(c, yes, f.path, fmt.Sprintf("make %d changes", len(p.Changes))); err != nil {
			return err
		}
		return a.apply(c, p, h)
	}
	return c
}

// agreed asks whether to go on, unless that was said.
func (a *app) agreed(c *cobra.Command, yes bool, path, what string) error {
	if yes {
		return nil
	}
	if path == "-" || !a.terminal(c.InOrStdin()) || !a.terminal(c.ErrOrStderr()) {
		return usagef("nothing was changed: pass --yes to %s", what)
	}
	_, _ = fmt.Fprintf(c.ErrOrStderr(), "About to %s. Only yes is a yes: ", what) // who cannot read it will not say yes
	said, _ := bufio.NewReader(c.InOrStdin()).ReadString('\n')                    // an end is no yes
	if strings.TrimSpace(said) != "yes" {
		return errors.New("nothing was changed")
	}
	return nil
}

// apply makes the plan's changes and tells each.
func (a *app) apply(c *cobra.Command, p gitops.Plan, h gitops.House) error {
	programs := a.forPrograms(c)
	made := 0
	err := p.Apply(c.Context(), h, func(change gitops.Change) {
		made++
		if !programs {
			_, _ = fmt.Fprintf(c.OutOrStdout(), "%sd %s\n", change.Action, change.Name) // it is made
		}
	})
	if err != nil {
		err = &stoppedError{made, len(p.Changes), err}
	}
	if programs {
		return errors.Join(a.showPlan(c, p), err)
	}
	return err
}

// stoppedError says how far an apply came.
type stoppedError struct {
	made, of int
	cause    error
}

// Error implements error.
func (e *stoppedError) Error() string {
	return fmt.Sprintf("stopped after %d of %d changes: %v; the same command again goes on from there", e.made, e.of, e.cause)
}

// Unwrap returns why.
func (e *stoppedError) Unwrap() error { return e.cause }

// forPrograms says whether what is shown is for programs.
func (a *app) forPrograms(c *cobra.Command) bool {
	format := a.formatFor(c)
	return format == formatJSON || format == formatYAML
}

// driftError says that files and house differ. Everything else that goes wrong with a comparison has another status than 1.
type driftError struct{ differences int }

// Error implements error.
func (e driftError) Error() string {
	return fmt.Sprintf("files and house differ in %d documents or schemas", e.differences)
}

// blindError says that files and house could not be compared.
type blindError struct{ error }

// Unwrap returns why.
func (e blindError) Unwrap() error { return e.error }

func (a *app) driftCommand() *cobra.Command {
	var f files
	c := &cobra.Command{
		Use: "drift" + filesUse, Short: "Tell whether the house is as files say",
		Long: `Tell whether the house is as files say: show each value in which they differ, and what the house has in no file.
It reads only.

Exit status: 0 they agree, 1 they differ, 5 they could not be compared; 2, 3 and 4 as for all commands: a mistake in
the command line or in a file, time that ran out, a caller who is not allowed.

RPC: rowhouse.config.v1.DocumentService.ListDocuments, rowhouse.config.v1.NamespaceService.ListNamespaces
Permission: config.documents.list, config.namespaces.list`,
		Example: "  rowhouse config drift -f house\n  rowhouse config drift platform flags -f flags.flagd.json\n" +
			"  rowhouse config drift -f house -o json",
		Args: cobra.MaximumNArgs(2),
	}
	f.define(a, c)
	c.RunE = func(c *cobra.Command, args []string) error {
		if err := a.checkFormat(); err != nil {
			return err
		}
		t, house, err := f.tree(c.Context(), c, &configHouse{app: a, command: c}, args)
		if err != nil {
			return blindError{err}
		}
		p, err := gitops.Compare(t, house, false)
		if err == nil {
			err = a.showPlan(c, p)
		}
		if err != nil {
			return blindError{err}
		}
		if n := len(p.Changes) + len(p.Unmanaged); n > 0 {
			return driftError{n}
		}
		return nil
	}
	return c
}

// showPlan writes a plan for people, or as a document for programs.
func (a *app) showPlan(c *cobra.Command, p gitops.Plan) error {
	out := bufio.NewWriter(c.OutOrStdout())
	switch a.formatFor(c) {
	case formatJSON, formatYAML:
		b, err := json.MarshalIndent(p, "", "  ")
		if err == nil && a.formatFor(c) == formatYAML {
			b, err = yamlOf(b)
		}
		if err != nil {
			return err
		}
		_, _ = out.Write(append([]byte(strings.TrimRight(string(b), "\n")), '\n')) // Flush tells
	case formatName:
		for _, change := range p.Changes {
			_, _ = fmt.Fprintln(out, change.Name) // Flush tells
		}
	default:
		planText(out, p)
	}
	return out.Flush()
}

// planText tells a plan to people. Errors are told by out's Flush.
func planText(out *bufio.Writer, p gitops.Plan) {
	signs := map[gitops.Action]string{gitops.Create: "+", gitops.Update: "~", gitops.Delete: "-"}
	count := map[gitops.Action]int{}
	for _, change := range p.Changes {
		count[change.Action]++
		_, _ = fmt.Fprintf(out, "%s %s\n", signs[change.Action], change.Name)
		for _, d := range change.Differences {
			_, _ = fmt.Fprintf(out, "    %s: %s\n", printable(cmp.Or(d.Pointer, "/")), differenceText(d))
		}
		switch change.Check {
		case gitops.Refused:
			_, _ = fmt.Fprintf(out, "  ! refused: %s\n", printable(change.Why))
		case gitops.Open:
			_, _ = fmt.Fprintf(out, "  ? open until what comes before is made; today: %s\n", printable(change.Why))
		case gitops.Unchecked:
			_, _ = fmt.Fprintf(out, "  ? %s\n", gitops.ErrUnchecked)
		case gitops.Accepted:
		}
	}
	if count[gitops.Delete] == 0 {
		for _, name := range p.Unmanaged {
			_, _ = fmt.Fprintf(out, "  %s is in no file\n", name)
		}
	}
	if len(p.Changes)+len(p.Unmanaged) == 0 {
		_, _ = fmt.Fprintln(out, "files and house agree")
		return
	}
	_, _ = fmt.Fprintf(out, "%d to create, %d to update, %d to delete", count[gitops.Create], count[gitops.Update], count[gitops.Delete])
	if n := len(p.Unmanaged) - count[gitops.Delete]; n > 0 {
		_, _ = fmt.Fprintf(out, "; %d in no file, which --prune deletes", n)
	}
	_, _ = fmt.Fprintln(out)
}

// differenceText is a difference in one line.
func differenceText(d gitops.Difference) string {
	short := func(value string) string {
		const most = 60
		if runes := []rune(value); len(runes) > most {
			value = fmt.Sprintf("%s… (%d bytes)", string(runes[:most]), len(value))
		}
		return printable(value)
	}
	switch {
	case d.House == "":
		return short(d.File)
	case d.File == "":
		return short(d.House) + " goes"
	default:
		return short(d.House) + " -> " + short(d.File)
	}
}
