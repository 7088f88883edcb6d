package cli

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/clientkey"
)

func clientKeys() noun {
	return noun{
		name: "clientkeys", short: "Keys by which clients ask for a tenant's flags", service: "rowhouse.config.v1.ClientKeyService",
		columns: "KEY=name@clientKeys KIND=kind ENVIRONMENT=environment ORIGINS=origins AUTHOR=author EXPIRES=expire_time CREATED=create_time",
		verbs: []verb{
			{
				name: "list", rpc: "ListClientKeys", short: "List a tenant's keys", fields: []field{{"parent", tenantForm}},
				example: "rowhouse clientkeys list acme",
			},
			{
				name: "create", rpc: "CreateClientKey", short: "Make a key, and leave its secret in a file", fields: []field{{"parent", tenantForm}},
				long: "Make a key, and leave its secret in a file that only you can read. The service gets its digest alone. A file\n" +
					"that holds a key already is used as it is, so that a failed call can be repeated.",
				flags: []flag{
					{path: "client_key.kind", usage: "who holds it: a browser sees what is public", required: true},
					{path: "client_key.environment", usage: "where its holder runs", required: true},
					{path: "client_key.origins", usage: "pages that may use a browser's key; may be repeated"},
				},
				more: keyFileFlag, before: makeClientKey,
				example: "rowhouse clientkeys create acme --kind server --environment production --key-file acme.key\n" +
					"rowhouse clientkeys create acme --kind browser --environment production --origins https://app.acme.example --key-file web.key",
			},
			{
				name: "delete", rpc: "DeleteClientKey", short: "Revoke a key: gateways refuse it within a second",
				fields:  named("tenants/{tenant}/clientKeys/{key}"),
				example: "rowhouse clientkeys delete acme k00112233445566ff --confirm k00112233445566ff",
			},
		},
	}
}

// keyFileFlag defines where the secret goes.
func keyFileFlag(c *cobra.Command) {
	c.Flags().String("key-file", "", "where the new secret goes")
	_ = c.MarkFlagRequired("key-file") // defined above
}

// makeClientKey makes a secret, keeps it in a file before anything is sent, and sends its digest.
// The service looks at the request first, so that one that it refuses leaves no file.
func makeClientKey(a *app, c *cobra.Command, r *call) error {
	request, ok := r.request.(*configv1.CreateClientKeyRequest)
	if !ok {
		return errors.New("clientkeys create sends another request")
	}
	path, err := c.Flags().GetString("key-file")
	if err != nil {
		return err
	}
	key, digest, err := keyOf(path)
	if err != nil {
		return usagef("--key-file: %w", err)
	}
	if request.ClientKey == nil {
		request.ClientKey = new(configv1.ClientKey)
	}
	request.ClientKey.KeySha256 = digest[:]
	if key == "" || request.GetValidateOnly() {
		return nil
	}
	trial := *r
	trial.request = proto.Clone(request)
	trial.request.(*configv1.CreateClientKeyRequest).ValidateOnly = true //nolint:forcetypeassert // a clone
	if _, err := a.do(c.Context(), c, trial); err != nil {
		return err
	}
	const private = 0o600
	if err := os.WriteFile(path, []byte(key+"\n"), private); err != nil {
		return usagef("--key-file: %w", err)
	}
	return nil
}

// keyOf returns the digest of the key in a file or, where there is no file, a new key with its digest.
func keyOf(path string) (key string, digest clientkey.Digest, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return clientkey.New(rand.Reader)
	}
	if err != nil {
		return "", digest, err
	}
	digest, ok := clientkey.DigestOf(strings.TrimSpace(string(b)))
	if !ok {
		return "", digest, fmt.Errorf("%s exists and holds no client key", path)
	}
	return "", digest, nil
}
