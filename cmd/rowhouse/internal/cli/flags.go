package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
)

const flagsForm = "{layer=platform}/config/flags"

func featureFlags() noun {
	const service = "rowhouse.config.v1.FlagService"
	ofTenant := []field{{"parent", "{layer}"}, {"key", "{key}"}}
	ofLayer := []field{{"key", "{key}"}, {"parent", "{layer=platform}"}}
	imported := new(flagImport)
	context := []flag{{path: "context", usage: "the evaluation context as a JSON object"}}
	return noun{
		name: "flags", short: "Feature flags by layer, in flagd's format", service: service,
		long: "Feature flags. They are the settings in the namespace \"flags\", in flagd's format: a layer below the one that\n" +
			"defines a flag may change its state, defaultVariant, targeting and metadata. History and the rest: rowhouse config.",
		columns: "FLAG=key STATE=state DEFAULT=default_variant FROM=layer KILLED=kill.layer",
		verbs: []verb{
			{
				name: "list", rpc: "ListFlags", short: "List the flags that hold for a tenant", fields: []field{{"parent", "{layer}"}},
				example: "rowhouse flags list acme\nrowhouse flags list tenants/acme/environments/staging",
			},
			{
				name: "get", rpc: "ExplainFlag", short: "Print a flag as it holds for a tenant", fields: ofTenant, show: showFlag,
				long: "Print a flag as it holds for a tenant, in flagd's format.", example: "rowhouse flags get acme note-count",
			},
			{
				name: "explain", rpc: "ExplainFlag", short: "Show where each part of a tenant's flag comes from", fields: ofTenant,
				show: showFlagLayers, example: "rowhouse flags explain acme note-count",
			},
			{
				name: "evaluate", rpc: "ExplainFlag", short: "Evaluate a flag as a tenant's services do", fields: ofTenant, flags: context,
				show: showFlagValue, example: "rowhouse flags evaluate acme note-count --context '{\"targetingKey\":\"ann\"}'",
			},
			{
				name: "import", rpc: "UpdateDocument", service: documentService, short: "Take flags from a file of flagd's into a layer",
				fields: []field{{"document.name", flagsForm}}, more: importFlags, ownFile: true, before: imported.read, show: imported.show,
				preset: map[string]string{"document.content": "{}", "allow_missing": "true"},
				long: "Take the flags of a file of flagd's, as it is, into a layer: the platform's unless one is named. Flags that the file\n" +
					"does not name stay; with --replace they go, and the layer has what the file has. It is checked for every tenant that\n" +
					"it concerns, and says which flags are new, changed and gone.",
				example: "rowhouse flags import -f flags.flagd.json\nrowhouse flags import plans/free -f free.json --replace --dry-run",
			},
			{
				name: "kill", rpc: "KillFlag", short: "Switch a flag off, whatever any layer says, until it is lifted", fields: ofLayer,
				long: "Switch a flag off for all tenants below a layer, the platform unless one is named, whatever any document says:\n" +
					"it is DISABLED, and every client uses its own default. It stays so until it is lifted.",
				example: "rowhouse flags kill note-count --reason \"it counts twice\"\n" +
					"rowhouse flags kill note-count acme --reason \"it breaks their page\"",
			},
			{
				name: "lift", rpc: "LiftFlag", short: "End a kill, at the layer where it was made", fields: ofLayer, show: showLifted,
				example: "rowhouse flags lift note-count --reason \"repaired in 1.4.2\"",
			},
		},
	}
}

// showLifted says which kill has ended, and where.
func showLifted(a *app, c *cobra.Command, i *invocation) error {
	if format := a.formatFor(c); format != formatTable && format != formatTSV {
		return i.gone(a, c)
	}
	what := ""
	switch request := i.call.request.(type) {
	case *configv1.LiftFlagRequest:
		what = request.GetKey()
	case *configv1.LiftSettingRequest:
		what = request.GetPointer()
	}
	_, err := fmt.Fprintf(c.OutOrStdout(), "lifted %s at %s\n", what, targetOf(i.call))
	return err
}

// flagsByKey leaves a document alone whose flags are an object already: the service says what is wrong with it.
func flagsByKey(document []byte) ([]byte, error) {
	var list struct {
		Flags []map[string]json.RawMessage `json:"flags"`
	}
	if json.Unmarshal(document, &list) != nil || list.Flags == nil {
		return document, nil //nolint:nilerr // flags by their keys are no list
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(document, &members); err != nil {
		return nil, err
	}
	flags := make(map[string]map[string]json.RawMessage, len(list.Flags))
	for i, flag := range list.Flags {
		var key string
		if err := json.Unmarshal(flag["key"], &key); err != nil || key == "" {
			return nil, fmt.Errorf("/flags/%d has no key", i)
		}
		if flags[key] != nil {
			return nil, fmt.Errorf("/flags/%d has the key of another flag", i)
		}
		delete(flag, "key")
		flags[key] = flag
	}
	b, err := json.Marshal(flags)
	if err != nil {
		return nil, err
	}
	members["flags"] = b
	return json.Marshal(members)
}

// explainedFlag is the response, and whether it is to be written as it is.
func explainedFlag(a *app, c *cobra.Command, i *invocation) (*configv1.ExplainFlagResponse, bool) {
	format := a.formatFor(c)
	return i.response.(*configv1.ExplainFlagResponse), format != formatTable && format != formatTSV //nolint:forcetypeassert // the verbs' RPC
}

// showFlag prints the definition.
func showFlag(a *app, c *cobra.Command, i *invocation) error {
	r, raw := explainedFlag(a, c, i)
	if raw {
		return i.write(a, c, r.GetFlag())
	}
	var out bytes.Buffer
	if err := json.Indent(&out, []byte(r.GetFlag().GetDefinition()), "", "  "); err != nil {
		return fmt.Errorf("the service sent no JSON: %w", err)
	}
	_, err := fmt.Fprintln(c.OutOrStdout(), out.String())
	return err
}

// showFlagLayers prints one line for each leaf, and says of a kill why.
func showFlagLayers(a *app, c *cobra.Command, i *invocation) error {
	r, raw := explainedFlag(a, c, i)
	if raw {
		return i.write(a, c, r)
	}
	var definition any
	if err := json.Unmarshal([]byte(r.GetFlag().GetDefinition()), &definition); err != nil {
		return fmt.Errorf("the service sent no JSON: %w", err)
	}
	if k := r.GetFlag().GetKill(); k != nil {
		a.note(c.ErrOrStderr(), fmt.Sprintf("killed at %s by %s: %s", k.GetLayer(), k.GetAuthor(), k.GetReason()))
	}
	content := map[string]any{"flags": map[string]any{r.GetFlag().GetKey(): definition}}
	p := a.printer(c, "VALUE=pointer FROM=layer REVISION=revision HIDES=shadowed POINTER=pointer")
	p.columns = append(p.columns[4:], p.columns[:4]...)
	var rows [][]string
	for _, leaf := range r.GetProvenance() {
		row := p.cells(leaf)
		row[1] = leafText(content, leaf.GetPointer())
		if a.formatFor(c) == formatTSV {
			p.tsv(row...)
		}
		rows = append(rows, row)
	}
	p.table(rows)
	return p.close()
}

// showFlagValue prints the answer.
func showFlagValue(a *app, c *cobra.Command, i *invocation) error {
	r, raw := explainedFlag(a, c, i)
	if raw {
		return i.write(a, c, r)
	}
	p := a.printer(c, "VALUE=value VARIANT=variant REASON=reason ERROR=error_code WHY=error_details")
	return errors.Join(p.row(r), p.close())
}
