package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
)

const (
	brandForm = "{layer}/config/brand"
	// maxLogo is what config takes at most.
	maxLogo = 96 << 10
)

func brands() noun {
	return noun{
		name: "brand", short: "How tenants look: name, colours, logos", service: documentService,
		long:    "How tenants look. A brand is the settings in the namespace \"brand\"; history and the rest: rowhouse config.",
		columns: configs().columns,
		verbs: []verb{
			{
				name: "get", rpc: "GetDocument", short: "Print the brand that a layer sets", fields: named(brandForm), show: showContent,
				long: "Print the brand that a layer sets, as JSON.", example: "rowhouse brand get acme\nrowhouse brand get globex -o yaml",
			},
			{
				name: "explain", rpc: "ExplainSettings", short: "Show a tenant's whole brand, and where each part comes from",
				fields: named("tenants/{tenant}/config/brand"), show: showEffective, example: "rowhouse brand explain acme",
			},
			{
				name: "set", rpc: "UpdateDocument", short: "Change parts of a brand; it shows within a second",
				fields: []field{{"document.name", brandForm}},
				long: "Change parts of a brand; what is not named stays. An empty value removes what this layer sets. Other colours\n" +
					"are set by their role: --set light.on-primary=#ffffff. What is set for a domain that the tenant does not have, as it may\n" +
					"come later, is kept with a warning.",
				more: brandFlags, ownFile: true, before: readBrand, show: showBrand,
				preset: map[string]string{"document.content": "{}", "allow_missing": "true"},
				example: "rowhouse brand set acme --name \"Acme Rockets\" --primary '#b91c1c' --primary-dark '#fca5a5'\n" +
					"rowhouse brand set acme --logo acme.png",
			},
			{
				name: "revisions", rpc: "ListDocumentRevisions", short: "List a brand's revisions, the newest first",
				fields: []field{{"parent", brandForm}}, limit: 50, example: "rowhouse brand revisions acme",
			},
			{
				name: "rollback", rpc: "RollbackDocument", short: "Publish an old revision of a brand anew", fields: named(brandForm),
				flags:   []flag{{path: "revision", usage: "the revision whose content is wanted", required: true}},
				example: "rowhouse brand rollback acme --revision 17 --reason \"the old look was better\"",
			},
		},
	}
}

// parts of a brand that have a flag of their own.
func brandParts() []struct{ flag, path, usage string } {
	return []struct{ flag, path, usage string }{
		{"name", "name", "what people call the tenant"},
		{"primary", "light.primary", "main colour, #rrggbb"},
		{"primary-dark", "dark.primary", "main colour for readers who prefer dark"},
		{"background", "light.background", "colour behind the page"},
		{"background-dark", "dark.background", "the same for dark"},
		{"text", "light.text", "colour of text"},
		{"text-dark", "dark.text", "the same for dark"},
	}
}

func brandFlags(c *cobra.Command) {
	for _, part := range brandParts() {
		c.Flags().String(part.flag, "", part.usage)
	}
	c.Flags().String("logo", "", "a PNG file, at most 96 KiB")
	setFlags(c)
}

// readBrand makes the request's content of the flags.
func readBrand(a *app, c *cobra.Command, r *call) error {
	sets, _ := c.Flags().GetStringArray("set") // defined by setFlags
	given := len(sets)
	for _, part := range brandParts() {
		if f := c.Flags().Lookup(part.flag); f.Changed {
			sets = append(sets, part.path+"="+jsonText(f.Value.String()))
		}
	}
	if f := c.Flags().Lookup("logo"); f.Changed {
		logo, err := readLogo(f.Value.String())
		if err != nil {
			return usageError(err)
		}
		sets = append(sets, "logo="+jsonText(logo))
	}
	if len(sets) == given {
		return readContent(a, c, r)
	}
	if c.Flags().Changed("file") {
		return usagef("pass either --file or parts of a brand, not both")
	}
	patch, err := patchOf(sets)
	if err != nil {
		return usageError(err)
	}
	request := r.request.(*configv1.UpdateDocumentRequest) //nolint:forcetypeassert // the verb's RPC
	request.Document.Content, request.MergePatch = string(patch), true
	return nil
}

// jsonText is a text as JSON; an empty one is null, which removes.
func jsonText(text string) string {
	if text == "" {
		return "null"
	}
	b, err := json.Marshal(text)
	if err != nil {
		return "null" // text always encodes
	}
	return string(b)
}

// readLogo reads a PNG file as the data URI that a brand holds.
func readLogo(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	b, err := os.ReadFile(path)
	switch {
	case err != nil:
		return "", err
	case !bytes.HasPrefix(b, []byte("\x89PNG\r\n\x1a\n")):
		return "", errors.New(path + " is not a PNG image")
	case len(b) > maxLogo:
		return "", fmt.Errorf("%s has %d bytes; a logo has at most %d", path, len(b), maxLogo)
	}
	return "data:image/png;base64," + base64.StdEncoding.EncodeToString(b), nil
}
