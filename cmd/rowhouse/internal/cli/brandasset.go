package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
)

const assetForm = "{layer}/brandAssets/{asset}"

func brandAssets() noun {
	return noun{
		name: "assets", below: "brand", service: "rowhouse.config.v1.BrandAssetService",
		short: "The files of brands: logos, icons, typefaces, style sheets",
		long: "The files of brands. Uploads are written anew and named by the hash of what came out; a brand names them by that:\n" +
			"rowhouse brand set acme --set logos.light=<asset>. Gateways serve what a published brand names, and nothing else.",
		columns: "ASSET=name@brandAssets ICON=icon TYPE=media_type BYTES=size_bytes WIDTH=width HEIGHT=height CREATED=create_time",
		verbs: []verb{
			{
				name: "put", rpc: "CreateBrandAsset", short: "Upload a file, or make the set of icons of a picture",
				fields: []field{{"parent", "{layer}"}},
				long: "Upload a file: .png, .jpg, .gif, .webp, .svg, .css or .woff2. With --icons a picture of at least 512 pixels becomes the\n" +
					"set of icons of a site, and the output of -o json has the patch that puts the set into a brand.",
				flags: []flag{
					{path: "icons", usage: "make the set of icons"},
					{path: "ground", usage: "the colour on which icons stand that are cut, #rrggbb (default white)"},
				},
				more: assetFlag, ownFile: true, before: readAsset,
				example: "rowhouse brand assets put acme --file logo.svg\nrowhouse brand assets put acme --file acme.png --icons --ground '#b91c1c'\n" +
					"rowhouse brand assets put plans/free --file sheet.css",
				show: showAssets,
			},
			{
				name: "list", rpc: "ListBrandAssets", short: "List what a layer has uploaded", fields: []field{{"parent", "{layer}"}},
				example: "rowhouse brand assets list acme",
			},
			{
				name: "get", rpc: "GetBrandAsset", short: "Show what is known of an asset", fields: named(assetForm), wide: true,
				example: "rowhouse brand assets get acme 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.svg",
			},
			{
				name: "delete", rpc: "DeleteBrandAsset", short: "Remove an asset that no brand, draft or style sheet names", fields: named(assetForm),
				example: "rowhouse brand assets delete acme 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.svg " +
					"--confirm 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.svg",
			},
		},
	}
}

func assetFlag(c *cobra.Command) {
	c.Flags().StringP("file", "f", "", "the file")
	_ = errors.Join(c.MarkFlagRequired("file"), c.MarkFlagFilename("file", "png", "jpg", "gif", "webp", "svg", "css", "woff2"))
}

// readAsset makes the request's content of the file; its extension says what it is, and the service looks whether it is.
func readAsset(_ *app, c *cobra.Command, r *call) error {
	request, ok := r.request.(*configv1.CreateBrandAssetRequest)
	if !ok {
		return errors.New("brand assets put sends another request")
	}
	path, _ := c.Flags().GetString("file") // defined by assetFlag
	request.MediaType = map[string]string{
		".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp",
		".svg": "image/svg+xml", ".css": "text/css", ".woff2": "font/woff2",
	}[strings.ToLower(filepath.Ext(path))]
	if request.GetMediaType() == "" {
		return usagef("%s is none of .png, .jpg, .gif, .webp, .svg, .css and .woff2", path)
	}
	info, err := os.Stat(path)
	if err != nil {
		return usageError(err)
	}
	const most = 5 << 20
	if info.Size() > most {
		return usagef("%s has %d bytes; an asset has at most %d", path, info.Size(), most)
	}
	if request.Content, err = os.ReadFile(path); err != nil {
		return usageError(err)
	}
	return nil
}

// showAssets prints a row for each asset, and the whole answer for programs that ask for it.
func showAssets(a *app, c *cobra.Command, i *invocation) error {
	if format := a.formatFor(c); format == formatJSON || format == formatYAML {
		return i.write(a, c, i.response)
	}
	p, m := a.printer(c, i.noun.columns), i.response.ProtoReflect()
	return errors.Join(p.rowsOf(m.Get(fieldAt(m.Descriptor(), "brand_assets")).List()), p.close())
}
