package cli

import (
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
)

const rateLimitForm = "rateLimitDomains/{envoy-domain}"

func rateLimits() noun {
	return noun{
		name: "ratelimits", short: "What Envoys are answered by", service: "rowhouse.quota.v1.RateLimitConfigService",
		long: "What Envoys are answered by when they ask quota: files of envoyproxy/ratelimit, one domain each. A domain is written as\n" +
			"Envoy sends it, for example edge or default/eg/http.",
		columns: "DOMAIN=name FILE=file LIMITS=limits REVISION=revision UPDATED=update_time",
		verbs: []verb{
			{
				name: "import", rpc: "ImportRateLimitConfig", short: "Import files of envoyproxy/ratelimit",
				long: "Import files of envoyproxy/ratelimit, all or none of them; of a folder, its files that end with .yaml or .yml. A domain\n" +
					"that is there is replaced, others stay, and all replicas answer by the new files within a second. With --dry-run the\n" +
					"files are only checked.",
				preset: map[string]string{"parent": "platform"}, more: rateLimitFiles, ownFile: true, before: readRateLimits,
				example: "rowhouse ratelimits import --file edge.yaml\nrowhouse ratelimits import --file edge.yaml --dry-run",
			},
			{
				name: "list", rpc: "ListRateLimitDomains", short: "List the domains", preset: map[string]string{"parent": "platform"},
				example: "rowhouse ratelimits list\nrowhouse ratelimits list -o json",
			},
			{
				name: "get", rpc: "GetRateLimitDomain", short: "Show a domain with its file", fields: named(rateLimitForm), wide: true,
				example: "rowhouse ratelimits get edge\nrowhouse ratelimits get edge -o yaml",
			},
			{
				name: "delete", rpc: "DeleteRateLimitDomain", short: "Remove a domain, so that nothing in it is limited", fields: named(rateLimitForm),
				example: "rowhouse ratelimits delete edge --confirm edge",
			},
		},
	}
}

func rateLimitFiles(c *cobra.Command) {
	c.Flags().StringArrayP("file", "f", nil, "a file or a folder of files, as often as needed; - for the standard input")
	_ = errors.Join(c.MarkFlagRequired("file"), c.MarkFlagFilename("file")) // defined above
}

// readRateLimits puts the files into the request.
func readRateLimits(_ *app, c *cobra.Command, r *call) error {
	request, ok := r.request.(*quotav1.ImportRateLimitConfigRequest)
	if !ok {
		return errors.New("ratelimits import sends another request")
	}
	paths, err := c.Flags().GetStringArray("file")
	if err != nil {
		return err
	}
	for _, path := range paths {
		files, err := filesIn(path)
		if err != nil {
			return usageError(err)
		}
		for _, file := range files {
			b, err := readInput(c, file)
			if err != nil {
				return usageError(err)
			}
			request.Files = append(request.Files, &quotav1.RateLimitFile{Name: file, Content: string(b)})
		}
	}
	return nil
}

// filesIn is the path itself, or the YAML files of a folder.
func filesIn(path string) ([]string, error) {
	info, err := os.Stat(path)
	if path == "-" || err == nil && !info.IsDir() {
		return []string{path}, nil
	}
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if !e.IsDir() && slices.Contains([]string{".yaml", ".yml"}, filepath.Ext(e.Name())) {
			files = append(files, filepath.Join(path, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, errors.New(path + " holds no file that ends with .yaml or .yml")
	}
	return files, nil
}
