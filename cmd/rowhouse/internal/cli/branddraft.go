package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
)

const draftForm = "{layer}/brandDraft"

func brandDrafts() noun {
	return noun{
		name: "drafts", below: "brand", short: "What brands may become: write, preview, publish", service: "rowhouse.config.v1.BrandDraftService",
		long: "What brands may become. A layer has at most one draft. Nobody sees it but by a preview link, which works on one of the\n" +
			"tenant's hosts; publishing it makes it the brand, and rowhouse brand rollback leads back.",
		columns: "DRAFT=name BASE=base_revision REVISION=revision AUTHOR=author REASON=reason WRITTEN=update_time",
		verbs: []verb{
			{
				name: "set", rpc: "UpdateBrandDraft", short: "Write a draft, new or not", fields: []field{{"brand_draft.name", draftForm}},
				long: "Write a draft, new or not. --set changes the named values of the draft or, where there is none, of the brand that is\n" +
					"published; --file replaces the draft.",
				more: setFlags, ownFile: true, before: readDraft, preset: map[string]string{"brand_draft.content": "{}"},
				example: "rowhouse brand drafts set acme --set light.primary=#0f766e\nrowhouse brand drafts set acme --file brand.json",
			},
			{
				name: "get", rpc: "GetBrandDraft", short: "Print a draft", fields: named(draftForm), show: showDraft,
				example: "rowhouse brand drafts get acme",
			},
			{
				name: "preview", rpc: "CreateBrandPreview", short: "Make a link that shows a tenant's draft on one of its hosts",
				fields: named("tenants/{tenant}/brandDraft"), columns: "LINK=uri EXPIRES=expire_time",
				long: "Make a link that shows a tenant's draft on one of its hosts, to whoever has the link. It ends with its time, and when the\n" +
					"draft is changed, published or deleted.",
				flags: []flag{
					{path: "host", usage: "the host on which it works, one of the tenant's domains", required: true},
					{path: "ttl", usage: "how long, at most 168h (default 24h)"},
				},
				example: "rowhouse brand drafts preview acme --host notes.acme.localhost",
			},
			{
				name: "publish", rpc: "PublishBrandDraft", short: "Make a draft the brand; every gateway shows it within a moment",
				fields: named(draftForm), columns: configs().columns, example: "rowhouse brand drafts publish acme --reason \"the new look\"",
			},
			{
				name: "delete", rpc: "DeleteBrandDraft", short: "Drop a draft and its preview links", fields: named(draftForm),
				example: "rowhouse brand drafts delete acme --allow-missing --confirm brandDraft",
			},
		},
	}
}

// readDraft makes the request's content as `config set` does.
func readDraft(a *app, c *cobra.Command, r *call) error {
	request, ok := r.request.(*configv1.UpdateBrandDraftRequest)
	if !ok {
		return errors.New("brand drafts set sends another request")
	}
	update := &configv1.UpdateDocumentRequest{Document: &configv1.Document{}}
	if err := readContent(a, c, &call{method: r.method, service: r.service, request: update}); err != nil {
		return err
	}
	request.BrandDraft.Content, request.MergePatch = update.GetDocument().GetContent(), update.GetMergePatch()
	return nil
}

// showDraft prints a draft's content for people and pipes, and all of it for programs that ask for it.
func showDraft(a *app, c *cobra.Command, i *invocation) error {
	draft := i.response.(*configv1.GetBrandDraftResponse).GetBrandDraft() //nolint:forcetypeassert // the verb's RPC
	if format := a.formatFor(c); format != formatTable && format != formatTSV {
		return i.write(a, c, draft)
	}
	text, err := indented(draft.GetContent())
	if err == nil {
		_, err = fmt.Fprintln(c.OutOrStdout(), text)
	}
	return err
}
