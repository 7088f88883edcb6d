package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
)

const documentService = "rowhouse.config.v1.DocumentService"

func configs() noun {
	killed := []field{{"name", configForm}, {"pointer", "{pointer}"}}
	revision := []flag{{path: "revision", usage: "the revision whose content is wanted", required: true}}
	return noun{
		name: "config", short: "Settings by layer: platform, plans, regions, tenants, environments", service: documentService,
		long: "Settings by layer: what a tenant sets for an environment wins over what it sets for all of them, and that over its\n" +
			"parent's, its region's, its plan's and the platform's, leaf by leaf. A layer is written\n" + layers + ".",
		columns: "DOCUMENT=name REVISION=revision AUTHOR=author REASON=reason WRITTEN=revision_time",
		verbs: []verb{
			{
				name: "list", rpc: "ListDocuments", short: "List what a layer sets", fields: []field{{"parent", "{layer}"}},
				example: "rowhouse config list acme\nrowhouse config list platform",
			},
			{
				name: "get", rpc: "GetDocument", short: "Print what a layer sets in a namespace", fields: named(configForm), show: showContent,
				long:    "Print what a layer sets in a namespace, as JSON. -o json and -o yaml print the whole document with its etag.",
				example: "rowhouse config get acme portal > portal.json\nrowhouse config get plans/free portal -o yaml",
			},
			{
				name: "set", rpc: "UpdateDocument", short: "Set values, or replace a document by a file",
				fields: []field{{"document.name", configForm}},
				long: "Set values, or replace a document by a file. --set changes the named values and keeps the others; a value is\n" +
					"JSON, or else text; null removes what this layer sets. A dot in a key is written \\. .",
				more: setFlags, ownFile: true, before: readContent, preset: map[string]string{"document.content": "{}", "allow_missing": "true"},
				example: "rowhouse config set acme portal --set page.size=50 --set title=\"Our notes\" --reason \"ticket 4711\"\n" +
					"rowhouse config set plans/free portal --file portal.json\n" +
					"rowhouse config get acme portal | rowhouse config set globex portal --file -",
			},
			{
				name: "delete", rpc: "DeleteDocument", short: "Remove what a layer sets in a namespace", fields: named(configForm),
				example: "rowhouse config delete acme portal --confirm portal",
			},
			{
				name: "revisions", rpc: "ListDocumentRevisions", short: "List a document's revisions, the newest first",
				fields: []field{{"parent", configForm}},
				limit:  50, example: "rowhouse config revisions acme portal",
			},
			{
				name: "rollback", rpc: "RollbackDocument", short: "Write an old revision's content anew", fields: named(configForm), flags: revision,
				example: "rowhouse config rollback acme portal --revision 17 --reason \"the new title was wrong\"",
			},
			{
				name: "diff", rpc: "DiffDocument", short: "Show in which values two revisions differ, or one and the document now",
				fields: named(configForm), show: showDifferences,
				flags: []flag{
					{path: "from_revision", name: "from", usage: "the revision that is compared", required: true},
					{path: "to_revision", name: "to", usage: "the revision that it is compared with (default the document now)"},
				},
				example: "rowhouse config diff acme portal --from 17",
			},
			{
				name: "explain", rpc: "ExplainSettings", short: "Show what holds for a tenant, and where each value comes from",
				fields: named(configForm), show: showEffective,
				long: "Show what holds for a tenant, and where each value comes from. With tenants/<tenant>/environments/<environment>:\n" +
					"what readers get that are registered for the environment.",
				example: "rowhouse config explain acme portal\nrowhouse config explain tenants/acme/environments/staging portal",
			},
			{
				name: "kill", rpc: "KillSetting", short: "Give a setting its safe value, whatever any layer says, until it is lifted",
				fields: killed, columns: "SETTING=pointer KILLED=layer BY=author REASON=reason",
				long: "Give a setting the value that the schema's \"x-kill\" has for it, for all tenants below a layer and whatever any\n" +
					"document says. It stays so until it is lifted. The setting is written as a JSON pointer.",
				example: "rowhouse config kill platform portal /banner --reason \"the banner breaks the page\"",
			},
			{
				name: "lift", rpc: "LiftSetting", short: "End a kill, at the layer where it was made", fields: killed, show: showLifted,
				example: "rowhouse config lift platform portal /banner --reason \"repaired in 1.4.2\"",
			},
			eraseTenant(),
		},
	}
}

// setFlags defines how the new content is given.
func setFlags(c *cobra.Command) {
	c.Flags().StringArray("set", nil, "path=value; may be repeated")
	c.Flags().StringP("file", "f", "", "the new content as JSON or YAML; - for the standard input")
	c.Flags().Bool("patch", false, "the file is a JSON Patch (RFC 6902) to what is there")
	c.Flags().Bool("merge", false, "merge the file into what is there (JSON Merge Patch) instead of replacing it")
}

// readContent makes the request's content of --set or --file.
func readContent(_ *app, c *cobra.Command, r *call) error {
	request, ok := r.request.(*configv1.UpdateDocumentRequest)
	if !ok {
		return errors.New("config set sends another request")
	}
	f := c.Flags()
	sets, _ := f.GetStringArray("set") // these four are defined by setFlags
	path, _ := f.GetString("file")
	merge, _ := f.GetBool("merge")
	patch, _ := f.GetBool("patch")
	switch {
	case patch && (merge || path == ""):
		return usagef("--patch is for a --file, without --merge; see: %s --help", c.CommandPath())
	case (len(sets) > 0) == (path != ""):
		return usagef("pass either --set or --file; see: %s --help", c.CommandPath())
	case path == "":
		patch, err := patchOf(sets)
		if err != nil {
			return usageError(err)
		}
		request.Document.Content, request.MergePatch = string(patch), true
		return nil
	}
	b, err := readInput(c, path)
	if err == nil {
		b, err = documentOf(path, b)
	}
	if err != nil {
		return usagef("%s: %w", path, err)
	}
	request.Document.Content, request.MergePatch, request.JsonPatch = string(b), merge, patch
	return nil
}

// patchOf makes a JSON Merge Patch of path=value pairs.
func patchOf(sets []string) ([]byte, error) {
	patch := map[string]any{}
	for _, set := range sets {
		path, value, ok := strings.Cut(set, "=")
		if !ok || path == "" {
			return nil, fmt.Errorf("--set %s is not path=value", set)
		}
		var v any = value
		if json.Valid([]byte(value)) {
			v = json.RawMessage(value)
		}
		keys := splitPath(path)
		into := patch
		for _, key := range keys[:len(keys)-1] {
			below, ok := into[key].(map[string]any)
			if !ok {
				below = map[string]any{}
				into[key] = below
			}
			into = below
		}
		into[keys[len(keys)-1]] = v
	}
	return json.Marshal(patch)
}

// splitPath splits at dots that no backslash precedes.
func splitPath(path string) []string {
	var keys []string
	var key strings.Builder
	for i := 0; i < len(path); i++ {
		switch {
		case path[i] == '\\' && i+1 < len(path):
			i++
			key.WriteByte(path[i])
		case path[i] == '.':
			keys = append(keys, key.String())
			key.Reset()
		default:
			key.WriteByte(path[i])
		}
	}
	return append(keys, key.String())
}

// showContent prints a document's content for people and pipes, and the document for programs that ask for it.
func showContent(a *app, c *cobra.Command, i *invocation) error {
	document := i.response.(*configv1.GetDocumentResponse).GetDocument() //nolint:forcetypeassert // the verb's RPC
	if format := a.formatFor(c); format != formatTable && format != formatTSV {
		return i.write(a, c, document)
	}
	text, err := indented(document.GetContent())
	if err == nil {
		_, err = fmt.Fprintln(c.OutOrStdout(), text)
	}
	return err
}

// indented is JSON as people read it.
func indented(content string) (string, error) {
	var out bytes.Buffer
	if err := json.Indent(&out, []byte(content), "", "  "); err != nil {
		return "", fmt.Errorf("the service sent no JSON: %w", err)
	}
	return out.String(), nil
}

// showDifferences prints one line for each leaf that differs.
func showDifferences(a *app, c *cobra.Command, i *invocation) error {
	if format := a.formatFor(c); format != formatTable && format != formatTSV {
		return i.write(a, c, i.response)
	}
	p, response := a.printer(c, "POINTER=pointer BEFORE=before AFTER=after"), i.response.ProtoReflect()
	return errors.Join(p.rowsOf(response.Get(fieldAt(response.Descriptor(), "differences")).List()), p.close())
}

// showEffective prints one line for each leaf.
func showEffective(a *app, c *cobra.Command, i *invocation) error {
	response := i.response.(*configv1.ExplainSettingsResponse) //nolint:forcetypeassert // the verb's RPC
	effective := response.GetEffective()
	format := a.formatFor(c)
	if format != formatTable && format != formatTSV {
		return i.write(a, c, response)
	}
	var content any
	if err := json.Unmarshal([]byte(effective.GetContent()), &content); err != nil {
		return fmt.Errorf("the service sent no JSON: %w", err)
	}
	sources := make(map[string]*configv1.LayerSource)
	for _, l := range response.GetLayers() {
		sources[l.GetLayer()] = l
	}
	if side := effective.GetRollout(); side != nil {
		content := "old"
		if side.GetNext() {
			content = "new"
		}
		a.note(c.ErrOrStderr(), fmt.Sprintf("%s has reached %d %% of tenants; this one has the %s content", side.GetRollout(),
			side.GetSharePercent(), content))
	}
	p := a.printer(c, "VALUE=pointer FROM=layer REVISION=revision BY=pointer REASON=pointer HIDES=shadowed LOCK=lock POINTER=pointer")
	p.columns = append(p.columns[7:], p.columns[:7]...)
	var rows [][]string
	add := func(leaf *configv1.Provenance, value string) {
		row := p.cells(leaf)
		source := sources[leaf.GetLayer()]
		row[1], row[4], row[5] = value, printable(source.GetAuthor()), printable(source.GetReason())
		if k := leaf.GetKill(); k != nil {
			row[4], row[5] = printable(k.GetAuthor()), printable(k.GetReason())
		}
		if format == formatTSV {
			p.tsv(row...)
		}
		rows = append(rows, row)
	}
	for _, leaf := range effective.GetProvenance() {
		add(leaf, leafText(content, leaf.GetPointer()))
	}
	for _, gone := range effective.GetAbsent() {
		add(gone, "(none)")
	}
	p.table(rows)
	return p.close()
}

// leafText is the value at a JSON pointer, short enough for a table.
func leafText(v any, pointer string) string {
	for _, key := range strings.Split(pointer, "/")[1:] {
		key = strings.NewReplacer("~1", "/", "~0", "~").Replace(key)
		switch below := v.(type) {
		case map[string]any:
			v = below[key]
		case []any:
			n, err := strconv.Atoi(key)
			if err != nil || n < 0 || n >= len(below) {
				return ""
			}
			v = below[n]
		}
	}
	return shorten(v)
}

func shorten(v any) string {
	const most = 60
	text, ok := v.(string)
	if !ok {
		b, err := json.Marshal(v)
		if err != nil {
			return ""
		}
		text = string(b)
	}
	if runes := []rune(text); len(runes) > most {
		text = fmt.Sprintf("%s… (%d bytes)", string(runes[:most]), len(text))
	}
	return printable(text)
}
