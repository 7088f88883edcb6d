// Package brands is what config knows about the files of brands, without wire or database: what becomes of an upload, and
// how much of it one owner may have. Start with Take.
package brands

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"image"
	"image/color"
	"slices"
	"strings"

	"github.com/rowhouse-platform/rowhouse/internal/brand"
	"github.com/rowhouse-platform/rowhouse/internal/brand/colour"
	"github.com/rowhouse-platform/rowhouse/internal/brand/css"
	"github.com/rowhouse-platform/rowhouse/internal/brand/font"
	"github.com/rowhouse-platform/rowhouse/internal/brand/picture"
	"github.com/rowhouse-platform/rowhouse/internal/brand/svg"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// How much one owner may have.
const (
	MaxAssets = 500
	MaxBytes  = 50 << 20
)

// An Upload is a file as it came.
type Upload struct {
	// MediaType is what it is said to be.
	MediaType string
	Content   []byte
	// Icons asks for the set of icons of a picture, those that a system cuts on Ground, "#rrggbb" or "" for white.
	Icons  bool
	Ground string
	// Own says which assets a style sheet may load.
	Own func(settings.Asset) bool
}

// A File is what we made of an upload, and all that is kept of it.
type File struct {
	Asset settings.Asset
	// Icon is which icon it is: "32"; empty for none.
	Icon          string
	Content       []byte
	Width, Height int
	// Uses are the assets that a style sheet loads.
	Uses []settings.Asset
}

// SHA256 is the hash of the content.
func (f File) SHA256() []byte {
	sum := sha256.Sum256(f.Content)
	return sum[:]
}

func file(extension string, content []byte) File {
	sum := sha256.Sum256(content)
	return File{Asset: settings.Asset(hex.EncodeToString(sum[:]) + "." + extension), Content: content}
}

// MediaType is the type of what has an extension.
func MediaType(extension string) string {
	return map[string]string{
		"png": "image/png", "jpg": "image/jpeg", "gif": "image/gif", "svg": "image/svg+xml", "ico": "image/x-icon",
		"woff2": "font/woff2", "css": "text/css",
	}[extension]
}

// Take makes of an upload what may be served. Errors are of type *brand.Refusal. An image may need 300 MB while it is read:
// callers take few at a time.
func Take(u Upload) ([]File, error) {
	if u.Icons {
		return icons(u)
	}
	switch u.MediaType {
	case "image/svg+xml":
		out, err := svg.Sanitise(u.Content)
		return one("svg", out, err)
	case "text/css":
		return sheet(u)
	case "font/woff2":
		// What a font is, browsers check before they use it; it is kept as it is.
		return one("woff2", u.Content, font.Check(u.Content))
	default:
		p, err := picture.Read(u.Content, picture.Type(u.MediaType))
		if err != nil {
			return nil, err
		}
		f := raster(p.Type, p.Bytes)
		f.Width, f.Height = p.Width, p.Height
		return []File{f}, nil
	}
}

func one(extension string, content []byte, err error) ([]File, error) {
	if err != nil {
		return nil, err
	}
	return []File{file(extension, content)}, nil
}

func raster(t picture.Type, content []byte) File {
	return file(map[picture.Type]string{picture.PNG: "png", picture.JPEG: "jpg", picture.GIF: "gif"}[t], content)
}

func sheet(u Upload) ([]File, error) {
	var uses []settings.Asset
	out, err := css.Sanitise(u.Content, func(path string) bool {
		a, ok := settings.ParseAsset(strings.TrimPrefix(path, settings.BrandPath+"b/"))
		if ok = ok && u.Own(a); ok && !slices.Contains(uses, a) {
			uses = append(uses, a)
		}
		return ok
	})
	if err != nil {
		return nil, err
	}
	f := file("css", out)
	f.Uses = uses
	return []File{f}, nil
}

// source is the picture from which icons are made; of an SVG the file itself is one of them.
func source(u Upload) (image.Image, []File, error) {
	if u.MediaType != "image/svg+xml" {
		p, err := picture.Read(u.Content, picture.Type(u.MediaType))
		return p.Image, nil, err
	}
	clean, err := svg.Sanitise(u.Content)
	if err != nil {
		return nil, nil, err
	}
	drawn, err := svg.Draw(clean, picture.MinIcon)
	f := file("svg", clean)
	f.Icon = "svg"
	return drawn, []File{f}, err
}

// icons makes the set of one picture.
func icons(u Upload) ([]File, error) {
	from, files, err := source(u)
	if err != nil {
		return nil, err
	}
	ground := colour.White
	if u.Ground != "" {
		if ground, err = colour.Parse(u.Ground); err != nil {
			return nil, &brand.Refusal{Rule: "ground", Text: err.Error()}
		}
	}
	set, err := picture.Icons(from, color.NRGBA{R: ground.R, G: ground.G, B: ground.B, A: ground.A})
	if err != nil {
		return nil, err
	}
	for _, icon := range set {
		kind, side, known := iconKind(icon.Name)
		if !known {
			return nil, fmt.Errorf("the icon %s is for nothing", icon.Name)
		}
		extension := "png"
		if kind == "ico" {
			extension = "ico"
		}
		f := file(extension, icon.Bytes)
		f.Icon, f.Width, f.Height = kind, side, side
		files = append(files, f)
	}
	return files, nil
}

// iconKind is how brands call an icon of the set, and how large it is.
func iconKind(name string) (kind string, side int, ok bool) {
	switch name {
	case "favicon.ico":
		return "ico", 48, true
	case "icon-32.png":
		return "32", 32, true
	case "apple-touch-icon.png":
		return "180", 180, true
	case "icon-192.png":
		return "192", 192, true
	case "icon-512.png":
		return "512", 512, true
	case "icon-maskable-512.png":
		return "maskable", 512, true
	default:
		return "", 0, false
	}
}

// Patch is the JSON Merge Patch that puts a set of icons into a brand; "" where files are none.
func Patch(files []File) string {
	icons := settings.Object{}
	for _, f := range files {
		if f.Icon != "" {
			icons[f.Icon] = string(f.Asset)
		}
	}
	if len(icons) == 0 {
		return ""
	}
	return string(settings.Canonical(settings.Object{"icons": icons}))
}
