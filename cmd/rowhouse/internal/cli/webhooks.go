package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
)

const webhookForm = "{layer}/webhooks/{webhook}"

func webhooks() noun {
	flags := []flag{
		{path: "webhook.url", usage: "where to send: https, a public name or address"},
		{path: "webhook.event_types", name: "events", usage: "the types that it is told of, such as settings.*; without any it is told of all"},
		{path: "webhook.description", usage: "what it is for"},
		{path: "webhook.disabled", usage: "send nothing"},
	}
	signing := flag{path: "webhook.signing", usage: "how messages are signed (default hmac)"}
	return noun{
		name: "webhooks", short: "Who is told of events", service: "rowhouse.config.v1.WebhookService",
		long: "Who is told of events, as Standard Webhooks 1.0 describes. A tenant's webhook hears of that tenant's own events,\n" +
			"one of the platform of everybody's.",
		columns: "WEBHOOK=name URL=url EVENTS=event_types DISABLED=disabled CAUSE=disabled_cause FAILURES=failures",
		verbs: []verb{
			{
				name: "list", rpc: "ListWebhooks", short: "List the platform's webhooks, or a tenant's", fields: []field{{"parent", "{layer}"}},
				example: "rowhouse webhooks list platform\nrowhouse webhooks list acme -o json",
			},
			{
				name: "get", rpc: "GetWebhook", short: "Show a webhook", fields: named(webhookForm), wide: true,
				example: "rowhouse webhooks get acme billing",
			},
			{
				name: "create", rpc: "CreateWebhook", short: "Make a webhook and show its secret, once",
				fields: []field{{"parent", "{layer}"}, {"webhook_id", "{webhook}"}}, flags: append(flags[:3:3], signing), show: showSecret,
				example: "rowhouse webhooks create acme billing --url https://hooks.acme.example.com/rowhouse --events settings.*,brand.*",
			},
			{
				name: "update", rpc: "UpdateWebhook", short: "Change a webhook, or enable it again",
				fields: []field{{"webhook.name", webhookForm}}, flags: flags,
				example: "rowhouse webhooks update acme billing --disabled=false",
			},
			{
				name: "delete", rpc: "DeleteWebhook", short: "Remove a webhook with its messages", fields: named(webhookForm),
				example: "rowhouse webhooks delete acme billing --confirm billing",
			},
			{
				name: "rotate", rpc: "RotateWebhookSecret", short: "Make a new key and show its secret, once", fields: named(webhookForm),
				flags:   []flag{{path: "overlap", usage: "how long the old key signs too (default 24h)"}},
				show:    showSecret,
				example: "rowhouse webhooks rotate acme billing\nrowhouse webhooks rotate acme billing --overlap 1s",
			},
			{
				name: "test", rpc: "TestWebhook", short: "Send a test event", fields: named(webhookForm), columns: deliveryColumns,
				example: "rowhouse webhooks test acme billing",
			},
			{
				name: "deliveries", rpc: "ListWebhookDeliveries", short: "List a webhook's messages, the newest first",
				fields: []field{{"parent", webhookForm}}, columns: deliveryColumns, limit: 50, example: "rowhouse webhooks deliveries acme billing",
			},
			{
				name: "redeliver", rpc: "RedeliverWebhook", short: "Send a message once more, or all dead ones",
				fields:  named(webhookForm + "/deliveries/{delivery=-}"),
				show:    showRedelivered,
				example: "rowhouse webhooks redeliver acme billing\nrowhouse webhooks redeliver acme billing 0198c5f0-7f4b-7cc1-8a5e-3f0f8f1e2d3c",
			},
		},
	}
}

const deliveryColumns = "DELIVERY=name@deliveries EVENT=event_type STATE=state ATTEMPTS=attempts STATUS=last_status " +
	"FAILURE=last_failure NEXT=next_attempt_time CREATED=create_time"

// showRedelivered says how many messages are sent again.
func showRedelivered(a *app, c *cobra.Command, i *invocation) error {
	r := i.response.(*configv1.RedeliverWebhookResponse) //nolint:forcetypeassert // the verb's RPC
	if format := a.formatFor(c); format != formatTable && format != formatTSV {
		return i.write(a, c, r)
	}
	messages := "messages are"
	if r.GetRedelivered() == 1 {
		messages = "message is"
	}
	_, err := fmt.Fprintf(c.OutOrStdout(), "%d %s sent again\n", r.GetRedelivered(), messages)
	return err
}

// showSecret writes the whole answer for programs, and for people the webhook with the secret below.
func showSecret(a *app, c *cobra.Command, i *invocation) error {
	r, ok := i.response.(interface {
		proto.Message
		GetWebhook() *configv1.Webhook
		GetSecret() string
	})
	if !ok {
		return errors.New("the service sent another answer")
	}
	if format := a.formatFor(c); format == formatJSON || format == formatYAML {
		return i.write(a, c, r)
	}
	if err := i.write(a, c, r.GetWebhook()); err != nil || r.GetSecret() == "" {
		return err
	}
	_, err := fmt.Fprintln(c.OutOrStdout(), r.GetSecret())
	return err
}
