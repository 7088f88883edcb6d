package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
)

func brandMails() noun {
	return noun{
		name: "mails", below: "brand", service: "rowhouse.config.v1.BrandMailService",
		short: "What the mails of brands look like",
		long: "What the mails of brands look like. Their templates are in the brand's document, below \"mails\"; products send them with\n" +
			"the SDK.",
		verbs: []verb{
			{
				name: "preview", rpc: "PreviewBrandMail", short: "Show a mail with made-up values, of the draft or as it is published",
				fields: []field{{"name", "tenants/{tenant}/config/brand"}, {"kind", "{kind}"}},
				long: "Show a mail with made-up values. Kinds are invitation, password-reset, verification, notice, and those that the brand\n" +
					"declares in \"mail-kinds\". --html prints the HTML part alone, for a file that a browser opens.",
				flags: []flag{
					{path: "locale", usage: "the reader's language, de-AT"},
					{path: "host", usage: "the tenant's host that the reader knows"},
					{path: "values", usage: "values of variables, name=value"},
				},
				more: mailFlags, before: askForDraft, show: showMail,
				example: "rowhouse brand mails preview acme invitation --locale de\n" +
					"rowhouse brand mails preview acme invitation --host notes.acme.localhost --values inviter=Ann --html > mail.html",
			},
		},
	}
}

func mailFlags(c *cobra.Command) {
	c.Flags().Bool("draft", false, "show the draft instead of what is published")
	c.Flags().Bool("html", false, "print the HTML part alone")
}

// askForDraft turns the name of the brand into that of its draft.
func askForDraft(_ *app, c *cobra.Command, r *call) error {
	request := r.request.(*configv1.PreviewBrandMailRequest) //nolint:forcetypeassert // the verb's RPC
	if draft, _ := c.Flags().GetBool("draft"); draft {       // defined by mailFlags
		request.Name = strings.TrimSuffix(request.GetName(), "/config/brand") + "/brandDraft"
	}
	return nil
}

// showMail prints a mail as people read one, and all of it for programs that ask for it.
func showMail(a *app, c *cobra.Command, i *invocation) error {
	m := i.response.(*configv1.PreviewBrandMailResponse) //nolint:forcetypeassert // the verb's RPC
	if format := a.formatFor(c); format != formatTable && format != formatTSV {
		return i.write(a, c, m)
	}
	if only, _ := c.Flags().GetBool("html"); only { // defined by mailFlags
		_, err := fmt.Fprint(c.OutOrStdout(), m.GetHtml())
		return err
	}
	var out strings.Builder
	fmt.Fprintf(&out, "Subject: %s\nContent-Language: %s\n", m.GetSubject(), m.GetLanguage())
	for _, name := range slices.Sorted(maps.Keys(m.GetHeaders())) {
		fmt.Fprintf(&out, "%s: %s\n", name, m.GetHeaders()[name])
	}
	_, err := fmt.Fprintf(c.OutOrStdout(), "%s\n%s", out.String(), m.GetText())
	return err
}
