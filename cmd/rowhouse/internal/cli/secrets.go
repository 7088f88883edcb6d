package cli

import (
	"errors"
	"fmt"
	"math"

	"github.com/spf13/cobra"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
)

const (
	sealedForm    = "{layer}/config/{namespace}/secrets/{secret}"
	sealedService = "rowhouse.config.v1.SecretService"
)

func configSecrets() noun {
	return noun{
		name: "secrets", below: "config", service: sealedService,
		short: "Secrets that settings refer to",
		long: "Secrets that settings refer to. A value goes in and never comes out of these commands; apps read it through the SDK.\n" +
			"A secret belongs to one layer and one namespace, and that layer's document refers to it where the schema has x-secret:\n" +
			"rowhouse config set acme portal --set key='{\"$secret\": \"stripe\", \"version\": 1}'.",
		columns: "SECRET=name@secrets VERSIONS=versions CREATED=create_time UPDATED=update_time",
		verbs: []verb{
			{
				name: "put", rpc: "PutSecret", short: "Give a secret its next value", fields: named(sealedForm),
				long: "Give a secret its next value, from a file or from the standard input, at most 64 KiB; one line break at its end is\n" +
					"left out. The value is never an argument, since others see those. No document changes by it.",
				more: valueFlags, ownFile: true, before: readValue, show: showVersion,
				example: "rowhouse config secrets put acme portal stripe --file stripe.key\n" +
					"head -c 32 /dev/urandom | base64 | rowhouse config secrets put acme portal session --file -",
			},
			{
				name: "list", rpc: "ListSecrets", short: "List a layer's secrets in a namespace, without their values",
				fields: []field{{"parent", configForm}}, columns: "SECRET=name@secrets CREATED=create_time UPDATED=update_time",
				example: "rowhouse config secrets list acme portal\nrowhouse config secrets list plans/free portal -o json",
			},
			{
				name: "destroy", rpc: "DestroySecretVersion", short: "Destroy the value of one version", fields: named(sealedForm),
				flags: []flag{
					{path: "version", usage: "the version", required: true},
					{path: "force", usage: "destroy it although the layer's document refers to it"},
				},
				show:    showVersion,
				example: "rowhouse config secrets destroy acme portal stripe --version 1 --confirm stripe",
			},
			{
				name: "delete", rpc: "DeleteSecret", short: "Remove a secret with all its versions", fields: named(sealedForm),
				example: "rowhouse config secrets delete acme portal stripe --confirm stripe",
			},
			{
				name: "rewrap", rpc: "RewrapSecrets", short: "Wrap all keys under the current key-encryption key",
				long: "Wrap all keys under the current key-encryption key: after the file that kek names got a new first line. Once none\n" +
					"remains, the older lines can be taken out.",
				preset: map[string]string{"parent": "platform"}, show: rewrapAll,
				example: "rowhouse config secrets rewrap",
			},
		},
	}
}

// eraseTenant is the verb that removes what config keeps for a deleted tenant.
func eraseTenant() verb {
	return verb{
		name: "erase", service: sealedService, rpc: "EraseTenant", fields: named(tenantForm), wide: true,
		short: "Remove for good what config keeps for a deleted tenant",
		long: "Remove for good what config keeps for a deleted tenant: its documents with all revisions, its edits in changes, its\n" +
			"rollouts, the keys of its secrets, and so all their values, its webhooks, client keys, drafts and the files of its brand.\n" +
			"Changes that have edits of it and are not live are cancelled. Restoring the tenant brings none of it back.",
		example: "rowhouse config erase acme --reason \"end of contract, 4711\" --confirm acme",
	}
}

func valueFlags(c *cobra.Command) {
	c.Flags().StringP("file", "f", "", "the value; - for the standard input")
	_ = errors.Join(c.MarkFlagRequired("file"), c.MarkFlagFilename("file")) // defined above
}

// readValue takes the value of the file, without the line break that editors and echo leave.
func readValue(_ *app, c *cobra.Command, r *call) error {
	request, ok := r.request.(*configv1.PutSecretRequest)
	if !ok {
		return errors.New("config secrets put sends another request")
	}
	path, err := c.Flags().GetString("file")
	if err != nil {
		return err
	}
	b, err := readInput(c, path)
	if err != nil {
		return usageError(err)
	}
	if n := len(b); n > 0 && b[n-1] == '\n' {
		if b = b[:n-1]; n > 1 && b[n-2] == '\r' {
			b = b[:n-2]
		}
	}
	const most = 64 << 10
	if len(b) == 0 || len(b) > most {
		return usagef("%s has %d bytes; a secret has 1 to %d", path, len(b), most)
	}
	request.Value = b
	return nil
}

// showVersion writes the secret for programs, and for people its versions, the newest first.
func showVersion(a *app, c *cobra.Command, i *invocation) error {
	r, ok := i.response.(interface{ GetSecret() *configv1.Secret })
	if !ok {
		return errors.New("the service sent another answer")
	}
	if format := a.formatFor(c); format != formatTable && format != formatTSV {
		return i.write(a, c, r.GetSecret())
	}
	p, m := a.printer(c, "VERSION=version AUTHOR=author CREATED=create_time DESTROYED=destroy_time"), r.GetSecret().ProtoReflect()
	return errors.Join(p.rowsOf(m.Get(fieldAt(m.Descriptor(), "versions")).List()), p.close())
}

// rewrapAll repeats the call until nothing remains. A call after which no fewer remain than before ends it: replicas whose
// first lines differ undo what the other did, for ever.
func rewrapAll(a *app, c *cobra.Command, i *invocation) error {
	request, ok := i.call.request.(*configv1.RewrapSecretsRequest)
	if !ok {
		return errors.New("config secrets rewrap sends another request")
	}
	var total int32
	remaining := int64(math.MaxInt64)
	for {
		r, ok := i.response.(*configv1.RewrapSecretsResponse)
		if !ok {
			return errors.New("the service sent another answer")
		}
		total += r.GetRewrapped()
		if r.Rewrapped = total; request.GetValidateOnly() || r.GetRemaining() == 0 {
			i.verb.wide = true
			return i.write(a, c, r)
		}
		if r.GetRemaining() >= remaining {
			return fmt.Errorf("after %d keys %d remain, no fewer than a call before: have all of config's processes the same first line "+
				"in the file of kek?", total, r.GetRemaining())
		}
		remaining = r.GetRemaining()
		again := newCall(i.call.method)
		again.request = &configv1.RewrapSecretsRequest{Parent: request.GetParent()}
		response, err := a.do(c.Context(), c, again)
		if err != nil {
			return fmt.Errorf("after %d keys: %w", total, err)
		}
		i.response = response
	}
}
