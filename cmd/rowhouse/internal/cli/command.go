package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	pageSize    = 1000
	waitDefault = 5 * time.Minute
)

// invocation is one run of a verb.
type invocation struct {
	noun     noun
	verb     verb
	call     call
	values   map[string]*flagValue // by path
	response proto.Message
}

// nounCommand makes the command of a noun, with its verbs below.
func (a *app) nounCommand(n noun) *cobra.Command {
	c := &cobra.Command{Use: n.name, Short: n.short, Long: n.long, Aliases: []string{strings.TrimSuffix(n.name, "s")}}
	if c.Aliases[0] == n.name {
		c.Aliases = nil
	}
	var examples []string
	for _, v := range n.verbs {
		c.AddCommand(a.verbCommand(n, v))
		first, _, _ := strings.Cut(v.example, "\n")
		examples = append(examples, first)
	}
	c.Example = indent(strings.Join(examples, "\n"))
	return c
}

func indent(lines string) string { return "  " + strings.ReplaceAll(lines, "\n", "\n  ") }

// verbCommand makes the command of a verb.
func (a *app) verbCommand(n noun, v verb) *cobra.Command {
	m := method(n.serviceOf(v), v.rpc)
	required, most := 0, 0
	for _, f := range v.fields {
		for _, place := range places(f.form) {
			most++
			if !strings.Contains(place, "=") {
				required++
			}
		}
	}
	c := &cobra.Command{Use: v.name + v.usage(), Short: v.short, Long: v.longText(m), Example: indent(v.example)}
	c.Args = func(_ *cobra.Command, args []string) error { return v.checkArgs(args, required, most) }
	values := a.defineFlags(c, v, m)
	c.ValidArgsFunction = a.completeArgs(v)
	c.RunE = func(c *cobra.Command, args []string) error {
		i := &invocation{noun: n, verb: v, call: newCall(m), values: values}
		if v.columns != "" {
			i.noun.columns = v.columns
		}
		if err := i.build(a, c, args); err != nil {
			return err
		}
		return i.run(c.Context(), a, c)
	}
	return c
}

// longText is the verb's long help: what it is, and what follows from its RPC.
func (v verb) longText(m protoreflect.MethodDescriptor) string {
	text := v.short + "."
	if v.long != "" {
		text = v.long
	}
	if m.Output().Fields().ByName("operation") != nil {
		text += "\n\nThis is long work: with --wait (the default on a terminal) the command waits for its end and shows\n" +
			"the result; otherwise it shows the operation. Leaving early stops nothing."
	}
	text += "\n\nRPC: " + string(m.FullName())
	if permission := ruleOf(m).GetPermission(); permission != "" {
		text += "\nPermission: " + permission
	}
	return text
}

// usage is how the verb's arguments are written.
func (v verb) usage() string {
	var b strings.Builder
	for _, f := range v.fields {
		b.WriteString(usageOf(f.form))
	}
	return b.String()
}

func (v verb) checkArgs(args []string, required, most int) error {
	use := v.usage()
	switch {
	case len(args) > most:
		return fmt.Errorf("%s takes%s, not also %q", v.name, orNothing(use), args[most])
	case len(args) >= required, len(args) > 0 && strings.Contains(args[0], "/"): // a whole name stands for several
		return nil
	default:
		return fmt.Errorf("%s needs%s", v.name, use)
	}
}

func orNothing(use string) string {
	if use == "" {
		return " no argument"
	}
	return use
}

// defineFlags defines the verb's own flags and those that every request like this has.
func (a *app) defineFlags(c *cobra.Command, v verb, m protoreflect.MethodDescriptor) map[string]*flagValue {
	values := map[string]*flagValue{}
	for _, f := range append(append([]flag(nil), v.flags...), standardFlags(m)...) {
		fd := fieldAt(m.Input(), f.path)
		name := f.flagName()
		value := &flagValue{fd: fd, form: f.form}
		defined := c.Flags().VarPF(value, name, "", f.usage)
		if fd.Kind() == protoreflect.BoolKind {
			defined.NoOptDefVal = "true"
		}
		if f.required {
			_ = c.MarkFlagRequired(name) // defined above
		}
		_ = c.RegisterFlagCompletionFunc(name, a.completeFlag(value)) // defined above
		values[f.path] = value
	}
	if v.more != nil {
		v.more(c)
	}
	specialFlags(c, m)
	if m.Output().Fields().ByName("next_page_token") != nil {
		c.Flags().Int("limit", v.limit, "how many at most; 0 for all")
	}
	return values
}

func lastPart(path string) string { return path[strings.LastIndex(path, ".")+1:] }

// standardFlags are those that a request's fields call for.
func standardFlags(m protoreflect.MethodDescriptor) []flag {
	var flags []flag
	add := func(path, name, usage string, required bool) {
		if fieldAt(m.Input(), path) != nil {
			flags = append(flags, flag{path: path, name: name, usage: usage, required: required})
		}
	}
	add("filter", "", "show only what fits, for example 'state = \"ACTIVE\"'", false)
	add("order_by", "", "the order", false)
	add("show_deleted", "", "show deleted ones too", false)
	sensitive := strings.HasSuffix(ruleOf(m).GetAudit().String(), "SENSITIVE")
	add("reason", "", "why"+leastOf(fieldAt(m.Input(), "reason"))+"; it goes into the audit chain", sensitive)
	add("etag", "", "act only if this is still the state", false)
	if strings.HasPrefix(string(m.Name()), "Update") {
		add(string(resourceField(m.Input()).Name())+".etag", "", "act only if this is still the state", false)
	}
	if strings.HasPrefix(string(m.Name()), "Delete") {
		add("allow_missing", "", "a missing one is a success", false)
	}
	least := leastOf(fieldAt(m.Input(), "skip_hooks"))
	add("skip_hooks", "", "take the step without asking hooks, and why"+least+"; it goes into the audit chain", false)
	add("validate_only", "dry-run", "check everything, change nothing", false)
	add("request_id", "", "UUID of the try before, to repeat it safely", false)
	return flags
}

// leastOf says how long a text has to be, nothing where a word is enough.
func leastOf(fd protoreflect.FieldDescriptor) string {
	if fd == nil {
		return ""
	}
	rules, ok := proto.GetExtension(fd.Options(), validate.E_Field).(*validate.FieldRules)
	if least := rules.GetString().GetMinLen(); ok && least > 1 {
		return fmt.Sprintf(", at least %d characters", least)
	}
	return ""
}

// specialFlags are those that a method calls for and that are no field of its request.
func specialFlags(c *cobra.Command, m protoreflect.MethodDescriptor) {
	if destructive(m) {
		c.Flags().String("confirm", "", "the id once more; without it nothing is sent")
	}
	if m.Output().Fields().ByName("operation") != nil {
		waitFlags(c)
	}
	name := string(m.Name())
	if (strings.HasPrefix(name, "Create") || strings.HasPrefix(name, "Update")) && c.Flags().Lookup("file") == nil {
		c.Flags().StringP("file", "f", "", "the resource as YAML or JSON; - for the standard input")
	}
	if m.Parent().FullName() == auditService {
		c.Flags().String("service", "tenancy", "whose chains: "+strings.Join(backends(), ", "))
		_ = c.RegisterFlagCompletionFunc("service", cobra.FixedCompletions(backends(), cobra.ShellCompDirectiveNoFileComp)) // defined above
	}
}

func waitFlags(c *cobra.Command) {
	c.Flags().Bool("wait", false, "wait for the end (default: on a terminal)")
	timeoutFlag(c)
}

func timeoutFlag(c *cobra.Command) {
	c.Flags().Duration("timeout", waitDefault, "how long to wait")
}

// build makes the request from the command line.
func (i *invocation) build(a *app, c *cobra.Command, args []string) error {
	m := i.call.request.ProtoReflect()
	for path, text := range i.verb.preset {
		if err := setField(m, path, text); err != nil {
			return err
		}
	}
	if err := i.readFile(c); err != nil {
		return usageError(err)
	}
	for _, f := range i.verb.fields {
		value, rest, err := fill(f.form, args)
		if err != nil {
			return usageError(err)
		}
		if err := i.setName(f.path, value); err != nil {
			return usageError(err)
		}
		args = rest
	}
	if len(args) > 0 {
		return usagef("what is %q?", args[0])
	}
	for path, value := range i.values {
		if value.isSet() {
			if err := setField(m, path, value.texts...); err != nil {
				return usageError(err)
			}
		}
	}
	if err := i.maskFields(c); err != nil {
		return err
	}
	if f := c.Flags().Lookup("service"); f != nil {
		i.call.service = f.Value.String()
	}
	if i.verb.before != nil {
		return i.verb.before(a, c, &i.call)
	}
	return nil
}

// setName sets what an argument says; a file may say the same, not something else.
func (i *invocation) setName(path, value string) error {
	m := i.call.request.ProtoReflect()
	for rest := path; ; {
		first, after, nested := strings.Cut(rest, ".")
		fd := m.Descriptor().Fields().ByName(protoreflect.Name(first))
		if nested {
			m, rest = m.Mutable(fd).Message(), after
			continue
		}
		if old := m.Get(fd).String(); old != "" && old != value {
			return fmt.Errorf("the file is about %s, the argument about %s", old, value)
		}
		return setField(m, first, value)
	}
}

// confirmed refuses a destructive call whose target was not typed twice. A dry run needs no confirmation.
func confirmed(c *cobra.Command, r call) error {
	m := r.request.ProtoReflect()
	if dry := m.Descriptor().Fields().ByName("validate_only"); !destructive(r.method) || dry != nil && m.Get(dry).Bool() {
		return nil
	}
	want := lastID(targetOf(r))
	got, err := c.Flags().GetString("confirm")
	switch {
	case err != nil:
		return err
	case got == "":
		return usagef("nothing was sent: %s needs confirmation; repeat with --confirm %s", shortName(r.method), want)
	case got != want:
		return usagef("nothing was sent: --confirm %s is not %s", got, want)
	default:
		return nil
	}
}

// targetOf is the name of what a call acts on.
func targetOf(r call) string {
	path := ruleOf(r.method).GetTarget()
	if path == "" {
		path = "name" // google.longrunning declares no rule
	}
	m := r.request.ProtoReflect()
	for {
		first, rest, nested := strings.Cut(path, ".")
		fd := m.Descriptor().Fields().ByName(protoreflect.Name(first))
		switch {
		case fd == nil: // a peer's method without a target
			return ""
		case !nested:
			return m.Get(fd).String()
		}
		m, path = m.Get(fd).Message(), rest
	}
}

// run calls and shows.
func (i *invocation) run(ctx context.Context, a *app, c *cobra.Command) error {
	if err := a.checkFormat(); err != nil {
		return err
	}
	if err := confirmed(c, i.call); err != nil {
		return err
	}
	if i.call.method.Output().Fields().ByName("next_page_token") != nil {
		return i.list(ctx, a, c)
	}
	if i.call.method.IsStreamingServer() {
		return i.file(ctx, a, c)
	}
	var err error
	if i.response, err = a.do(ctx, c, i.call); err != nil {
		return lostWait(i.call, err)
	}
	if dry := fieldAt(i.call.method.Input(), "validate_only"); dry != nil && i.call.request.ProtoReflect().Get(dry).Bool() {
		a.note(c.ErrOrStderr(), "dry run: nothing was changed")
	}
	if i.verb.show != nil {
		return i.verb.show(a, c, i)
	}
	return i.show(ctx, a, c)
}

// show writes what a response holds: an operation or its result, rows, one resource, or the name of what is gone.
func (i *invocation) show(ctx context.Context, a *app, c *cobra.Command) error {
	m := i.response.ProtoReflect()
	if _, ok := i.response.(*longrunningpb.Operation); ok {
		return i.write(a, c, i.response)
	}
	if m.Descriptor().Fields().ByName("operation") != nil {
		result, err := a.settle(ctx, c, i.response)
		if err != nil {
			return err
		}
		return i.write(a, c, result)
	}
	fd := resourceField(m.Descriptor())
	switch {
	case fd != nil && fd.IsList():
		p := a.printer(c, i.noun.columns)
		return errors.Join(p.rowsOf(m.Get(fd).List()), p.close())
	case fd != nil:
		return i.write(a, c, m.Get(fd).Message().Interface())
	case m.Descriptor().Fields().Len() > 0:
		i.verb.wide = true
		return i.write(a, c, i.response)
	default:
		a.note(c.ErrOrStderr(), "done: "+targetOf(i.call))
		return i.gone(a, c)
	}
}

// gone writes an empty response for programs: nothing as JSON, or the name of what was meant.
func (i *invocation) gone(a *app, c *cobra.Command) error {
	switch p := a.printer(c, ""); a.format {
	case formatJSON, formatYAML:
		return errors.Join(p.row(i.response), p.close())
	case formatName:
		p.tsv(printable(targetOf(i.call)))
		return p.close()
	default:
		return nil
	}
}

// write writes one resource.
func (i *invocation) write(a *app, c *cobra.Command, resource proto.Message) error {
	columns := i.noun.columns
	if resource.ProtoReflect().Descriptor().FullName() == "google.longrunning.Operation" {
		columns = operationColumns
	}
	p := a.printer(c, columns)
	if i.verb.wide {
		return errors.Join(p.detail(resource), p.close())
	}
	return errors.Join(p.row(resource), p.close())
}

// list writes all pages, or as many rows as --limit allows.
func (i *invocation) list(ctx context.Context, a *app, c *cobra.Command) error {
	limit, err := c.Flags().GetInt("limit")
	if err != nil {
		return err
	}
	if limit < 0 {
		return usageError(errors.New("--limit: want how many at most, or 0 for all"))
	}
	p := a.printer(c, i.noun.columns)
	m := i.call.request.ProtoReflect()
	for {
		size := pageSize
		if limit > 0 {
			size = min(size, limit-p.count)
		}
		m.Set(fieldAt(m.Descriptor(), "page_size"), protoreflect.ValueOfInt32(int32(size)))
		response, err := a.do(ctx, c, i.call)
		if err != nil {
			return errors.Join(err, p.out.Flush())
		}
		r := response.ProtoReflect()
		if err := p.rowsOf(r.Get(resourceList(r.Descriptor())).List()); err != nil {
			return err
		}
		token := r.Get(fieldAt(r.Descriptor(), "next_page_token"))
		if full := limit > 0 && p.count >= limit; full || token.String() == "" {
			if full && token.String() != "" {
				a.note(c.ErrOrStderr(), "there are more; show all with --limit 0")
			}
			return p.close()
		}
		m.Set(fieldAt(m.Descriptor(), "page_token"), token)
	}
}

// resourceList is the field of a list's response that holds the page.
func resourceList(d protoreflect.MessageDescriptor) protoreflect.FieldDescriptor {
	for i := range d.Fields().Len() {
		if fd := d.Fields().Get(i); fd.IsList() && fd.Message() != nil {
			return fd
		}
	}
	return nil
}
