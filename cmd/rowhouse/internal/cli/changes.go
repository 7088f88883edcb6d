package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
)

const changeForm = "changes/{change}"

func changes() noun {
	given := []flag{
		{path: "change.reason", usage: "why, at least 10 characters; it becomes the reason of the documents' revisions"},
		{path: "change.rollout.steps", usage: "begin a rollout instead: shares of tenants in percent, such as 1,5,20,50,100"},
		{path: "change.rollout.canaries", name: "canary", usage: "begin a rollout: tenants that get it first", form: tenantForm},
		{path: "change.rollout.bake", usage: "of a rollout: how long each step must be healthy (default 10m)"},
		{path: "change.rollout.guards.max_error_permille", usage: "of a rollout: by how many in a thousand requests more may fail (default 10)"},
		{
			path:  "change.rollout.guards.max_p99_percent",
			usage: "of a rollout: the slowest hundredth's time, in percent of the others' (default 200)",
		},
		{path: "change.rollout.guards.min_requests", usage: "of a rollout: how many requests each side must have had to be judged (default 100)"},
		{path: "change.rollout.guards.require_requests", usage: "of a rollout: wait at each step until there were so many"},
	}
	const how = "What it does is given by a file, or for one document by --document with --set, --content or --delete. The file is a\n" +
		"change as YAML or JSON; the content of an edit may be written as YAML instead of a text with JSON:\n\n" +
		"  reason: New prices from the first of December\n" +
		"  edits:\n" +
		"  - name: plans/free/config/portal\n" +
		"    form: merge-patch                # or replace, which is the default, json-patch, delete\n" +
		"    content: {page: {size: 50}}\n\n" +
		"An edit of namespaces/<namespace> changes a schema, or who must approve. A change of one document may reach growing\n" +
		"shares of tenants: with --steps or --canary, or rollout: {steps: [1, 20, 100], bake: 600s} in the file, publishing it\n" +
		"begins a rollout (rowhouse config rollouts)."
	return noun{
		name: "changes", below: "config", short: "Edits of documents on their way by approval and schedule to what is live",
		service: "rowhouse.config.v1.ChangeService",
		long: "Edits of documents that become live together, or not at all: a draft is submitted, approved by people who did not\n" +
			"write it where the namespace asks for that (rowhouse namespaces update --approval-layers), and published at once or at\n" +
			"its time. Readers get nothing of it before.",
		columns: "CHANGE=name@changes STATE=state AUTHORS=authors AT=not_before UPDATED=update_time REASON=reason",
		verbs: []verb{
			{
				name: "create", rpc: "CreateChange", short: "Write a draft", fields: []field{{"change_id", "{change}"}}, flags: given,
				more: changeFlags, ownFile: true, before: readChange, long: "Write a draft. " + how,
				example: "rowhouse config changes create spring-prices --file change.yaml\n" +
					"rowhouse config changes create larger-pages --document plans/free/config/portal --set page.size=50 \\\n" +
					"  --reason \"customers ask for more rows\"\n" +
					"rowhouse config changes create smaller-pages --document plans/free/config/portal --set page.size=25 \\\n" +
					"  --steps 5,50,100 --bake 1h --canary acme --reason \"agreed with support\"\n" +
					"rowhouse config changes create no-portal --document tenants/acme/config/portal --delete --reason \"they left the beta\"",
			},
			{
				name: "update", rpc: "UpdateChange", short: "Write a change anew; approvals and time are gone",
				fields: []field{{"change.name", changeForm}}, flags: given, more: changeFlags, ownFile: true, before: readChange,
				long:    "Write a change anew, in all states but LIVE and CANCELLED: it is a DRAFT again, without approvals and time. " + how,
				example: "rowhouse config changes update spring-prices --file change.yaml",
			},
			{
				name: "list", rpc: "ListChanges", short: "List changes, the newest first", limit: 50,
				flags: []flag{
					{path: "state", usage: "only those in this state"},
					{path: "namespace", usage: "only those that edit in this namespace", form: "namespaces/{namespace}"},
				},
				example: "rowhouse config changes list --state submitted\nrowhouse config changes list --namespace portal -o json",
			},
			{
				name: "get", rpc: "GetChange", short: "Show a change", fields: named(changeForm), wide: true,
				example: "rowhouse config changes get spring-prices\nrowhouse config changes get spring-prices -o yaml > change.yaml",
			},
			{
				name: "diff", rpc: "GetChange", short: "Show what a change would do now, and the digest to approve it by",
				fields: named(changeForm), show: showReview,
				long: "Show what a change would do to what stands now, leaf by leaf, whether it could become live, and the digest to\n" +
					"approve it by. Where somebody else changed the same leaf meanwhile, CONFLICT says what the change started from.",
				example: "rowhouse config changes diff spring-prices\nrowhouse config changes diff spring-prices -o json",
			},
			{
				name: "submit", rpc: "SubmitChange", short: "Ask for approvals", fields: named(changeForm),
				example: "rowhouse config changes submit spring-prices",
			},
			{
				name: "approve", rpc: "ApproveChange", short: "Approve what a change does; its authors may not", fields: named(changeForm),
				flags: []flag{{path: "digest", usage: "the digest of what you have seen, as diff shows it", required: true}},
				long: "Approve what a change does. The digest says what that is: who edits the change meanwhile gets no approval for what\n" +
					"you have not seen.",
				example: "rowhouse config changes approve spring-prices --digest 3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d",
			},
			{
				name: "reject", rpc: "RejectChange", short: "Say no to a change", fields: named(changeForm),
				example: "rowhouse config changes reject spring-prices --reason \"the prices are not agreed yet\"",
			},
			{
				name: "schedule", rpc: "ScheduleChange", short: "Have a change become live at a time", fields: named(changeForm),
				flags: []flag{{path: "not_before", name: "at", usage: "when, such as 2026-12-01T08:00:00+01:00", required: true}},
				long: "Have a change become live by itself, within a second of a time. It is checked again then, your permissions too; if it\n" +
					"cannot become live, it is HALTED, and diff shows why. Hooks that give no answer are asked again for 15 minutes.",
				example: "rowhouse config changes schedule spring-prices --at 2026-12-01T08:00:00+01:00",
			},
			{
				name: "publish", rpc: "PublishChange", short: "Make a change live now, all of it or nothing", fields: named(changeForm),
				example: "rowhouse config changes publish spring-prices --dry-run\nrowhouse config changes publish spring-prices",
			},
			{
				name: "cancel", rpc: "CancelChange", short: "Give a change up", fields: named(changeForm),
				example: "rowhouse config changes cancel larger-pages --reason \"not this year\"",
			},
		},
	}
}

// changeFlags defines how edits are given.
func changeFlags(c *cobra.Command) {
	c.Flags().StringP("file", "f", "", "the change as YAML or JSON; - for the standard input")
	c.Flags().String("document", "", "the one document to edit, {layer}/config/{namespace}")
	c.Flags().StringArray("set", nil, "path=value to set in the document; may be repeated")
	c.Flags().String("content", "", "a file with the whole document as JSON or YAML")
	c.Flags().Bool("delete", false, "remove the document")
}

// readChange makes the request's edits of --file or of --document.
func readChange(_ *app, c *cobra.Command, r *call) error {
	path, _ := c.Flags().GetString("file")         // these two are defined by changeFlags
	document, _ := c.Flags().GetString("document") // as above
	var given *configv1.Change
	var err error
	switch {
	case path != "" && document != "":
		return usagef("pass either --file or --document; see: %s --help", c.CommandPath())
	case path != "":
		given, err = changeFile(c, path)
	case document != "":
		given, err = changeOf(c, document)
	default:
		given = new(configv1.Change)
	}
	if err != nil {
		return usageError(err)
	}
	switch request := r.request.(type) {
	case *configv1.CreateChangeRequest:
		if request.Change == nil {
			request.Change = new(configv1.Change)
		}
		into(request.GetChange(), given)
	case *configv1.UpdateChangeRequest:
		paths := into(request.GetChange(), given)
		if request.GetUpdateMask() == nil && len(paths) == 0 {
			return usagef("nothing to change: pass --reason, --file or --document; see: %s --help", c.CommandPath())
		}
		if mask := request.GetUpdateMask(); mask != nil {
			mask.Paths = append(mask.GetPaths(), paths...)
		}
	default:
		return errors.New("changes sends another request")
	}
	return nil
}

// into adds to a change what was given beside its flags, and returns which fields that are.
func into(change, given *configv1.Change) (paths []string) {
	if change.GetReason() == "" && given.GetReason() != "" {
		change.Reason = given.GetReason()
		paths = append(paths, "reason")
	}
	if change.GetRollout() == nil {
		change.Rollout = given.GetRollout()
	}
	if len(given.GetEdits()) > 0 { // which are written anew with how they reach tenants
		change.Edits = given.GetEdits()
		paths = append(paths, "edits", "rollout")
	} else if given.GetRollout() != nil {
		paths = append(paths, "rollout")
	}
	return paths
}

// changeFile reads a change whose contents may be written as YAML.
func changeFile(c *cobra.Command, path string) (*configv1.Change, error) {
	b, err := readInput(c, path)
	if err == nil {
		b, err = documentOf(path, b)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var members map[string]json.RawMessage
	var edits []map[string]json.RawMessage
	if err := json.Unmarshal(b, &members); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if members["edits"] != nil {
		if err := json.Unmarshal(members["edits"], &edits); err != nil {
			return nil, fmt.Errorf("%s: edits: %w", path, err)
		}
		for i, e := range edits {
			if err := plainEdit(e); err != nil {
				return nil, fmt.Errorf("%s: edits[%d]: %w", path, i, err)
			}
		}
		if members["edits"], err = json.Marshal(edits); err != nil {
			return nil, err
		}
	}
	if b, err = json.Marshal(members); err != nil {
		return nil, err
	}
	change := new(configv1.Change)
	if err := protojson.Unmarshal(b, change); err != nil {
		return nil, fmt.Errorf("%s: %s", path, plain(err))
	}
	return change, nil
}

// plainEdit writes an edit as protobuf does: its content as a text, the whole name of its form.
func plainEdit(e map[string]json.RawMessage) error {
	if content := e["content"]; content != nil && !strings.HasPrefix(string(content), `"`) {
		text, err := json.Marshal(string(content))
		if err != nil {
			return err
		}
		e["content"] = text
	}
	if form := e["form"]; form != nil {
		var name string
		if err := json.Unmarshal(form, &name); err != nil {
			return errors.New("form is not a text")
		}
		v, err := parseEnum(configv1.ChangeEditForm(0).Descriptor(), name)
		if err != nil {
			return fmt.Errorf("form: %w", err)
		}
		if e["form"], err = json.Marshal(v.Enum()); err != nil {
			return err
		}
	}
	return nil
}

// changeOf is a change of one document.
func changeOf(c *cobra.Command, document string) (*configv1.Change, error) {
	f := c.Flags()
	sets, _ := f.GetStringArray("set") // these three are defined by changeFlags
	path, _ := f.GetString("content")
	remove, _ := f.GetBool("delete")
	e := &configv1.ChangeEdit{Name: document}
	given := []bool{len(sets) > 0, path != "", remove}
	if n := len(slices.DeleteFunc(given, func(is bool) bool { return !is })); n != 1 {
		return nil, errors.New("--document needs one of --set, --content and --delete")
	}
	switch {
	case remove:
		e.Form = configv1.ChangeEditForm_CHANGE_EDIT_FORM_DELETE
	case path != "":
		b, err := readInput(c, path)
		if err == nil {
			b, err = documentOf(path, b)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		e.Content = string(b)
	default:
		patch, err := patchOf(sets)
		if err != nil {
			return nil, err
		}
		e.Form, e.Content = configv1.ChangeEditForm_CHANGE_EDIT_FORM_MERGE_PATCH, string(patch)
	}
	return &configv1.Change{Edits: []*configv1.ChangeEdit{e}}, nil
}

// showReview prints one line for each leaf that a change would change, and says how it stands.
func showReview(a *app, c *cobra.Command, i *invocation) error {
	response := i.response.(*configv1.GetChangeResponse) //nolint:forcetypeassert // the verb's RPC
	format := a.formatFor(c)
	if format != formatTable && format != formatTSV {
		return i.write(a, c, response)
	}
	p := a.printer(c, "DOCUMENT=name POINTER=name NOW=name AFTER=name CONFLICT=name")
	var rows [][]string
	add := func(cells ...string) {
		for i := range cells {
			cells[i] = brief(cells[i])
		}
		if format == formatTSV {
			p.tsv(cells...)
		}
		rows = append(rows, cells)
	}
	for _, e := range response.GetReview().GetEdits() {
		for _, d := range e.GetDifferences() {
			add(e.GetName(), d.GetPointer(), d.GetBefore(), d.GetAfter(), "")
		}
		for _, d := range e.GetConflicts() {
			add(e.GetName(), d.GetPointer(), d.GetCurrent(), d.GetWanted(), "it was "+orNone(d.GetBase()))
		}
	}
	p.table(rows)
	change, review := response.GetChange(), response.GetReview()
	say := func(format string, args ...any) { a.note(c.ErrOrStderr(), printable(fmt.Sprintf(format, args...))) }
	say("the change is %s; digest %s", enumName(change.GetState().Descriptor().Values().ByNumber(change.GetState().Number())),
		change.GetDigest())
	if review != nil {
		say("it has %d approvals and needs %d", len(change.GetApprovals()), review.GetRequiredApprovals())
		if change.GetState() == configv1.ChangeState_CHANGE_STATE_SCHEDULED && change.GetRefusal().GetCode() != 0 {
			say("its time has come, and it is tried again: %s", change.GetRefusal().GetMessage())
		}
		if review.GetRefusal().GetCode() != 0 {
			say("it cannot become live now: %s", review.GetRefusal().GetMessage())
		}
	}
	if r := change.GetRollout(); r != nil {
		say("it begins a rollout to %v %% of tenants, each for %s", r.GetSteps(), r.GetBake().AsDuration())
	}
	if change.GetStartedRollout() != "" {
		say("it began %s", change.GetStartedRollout())
	}
	return p.close()
}

func orNone(text string) string {
	if text == "" {
		return "nothing"
	}
	return text
}

// brief is a value that fits into a table.
func brief(text string) string {
	const most = 60
	if runes := []rune(text); len(runes) > most {
		text = fmt.Sprintf("%s… (%d bytes)", string(runes[:most]), len(text))
	}
	return printable(text)
}
