// Package brands shows on tenants' own domains what they look like: the style sheet, the JSON, the design tokens and the
// assets of the brand that is published, from memory and by the host that was asked.
//
// It serves what a tenant's effective brand names and nothing else, so that no address leads to another tenant's files.
// What it asks of config, content by its hash, it asks once. Start at [Brands.Serve].
package brands

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rowhouse-platform/rowhouse/internal/brand/look"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// maxLooks bounds how many brands are kept ready: a tenant's on each of its domains is one.
const maxLooks = 10_000

// Who is the tenant on whose domain something is asked for.
type Who struct {
	UID  tenant.UID
	ID   tenant.ID
	Plan string
	// Host is the canonical host; it decides which of a tenant's brands is meant.
	Host string
}

// Look is a brand that is ready to be served. It is immutable.
type Look struct {
	Brand settings.Brand
	// Preview says that it is a draft, shown to whoever has its link.
	Preview bool
	files   map[string]page // by what follows [settings.BrandPath]
}

// page is a file with its type and its strong etag.
type page struct {
	content         []byte
	mediaType, etag string
}

func newPage(mediaType string, content []byte) page {
	sum := sha256.Sum256(content)
	return page{content, mediaType, `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`}
}

// Effective tells what holds for a tenant in a namespace, as [settings.Store] does.
type Effective func(uid tenant.UID, plan string, id tenant.ID, namespace string) (settings.Effective, bool)

// Brands serves brands. It is safe for concurrent use.
type Brands struct {
	effective Effective
	assets    *Assets
	previews  *Previews

	mu    sync.Mutex
	looks map[key]*Look
}

// key is what a look depends on: the version of the effective value tells all layers.
type key struct{ version, host string }

// New returns a Brands that reads brands from effective.
func New(effective Effective, assets *Assets, previews *Previews) *Brands {
	return &Brands{effective: effective, assets: assets, previews: previews, looks: make(map[key]*Look)}
}

// Look returns how a tenant looks on a host to whoever sends the request, nil where nothing is known of it.
func (b *Brands) Look(r *http.Request, w Who) *Look {
	published := b.published(w)
	if draft := b.previews.look(r, w); draft != nil {
		return draft
	}
	return published
}

// published returns how a tenant looks on a host to everybody.
func (b *Brands) published(w Who) *Look {
	e, ok := b.effective(w.UID, w.Plan, w.ID, settings.BrandNamespace)
	if !ok {
		return nil
	}
	k := key{e.Version, ""}
	if slices.Contains(settings.BrandDomains(e.Object), w.Host) {
		k.host = w.Host
	}
	b.mu.Lock()
	l, ok := b.looks[k]
	b.mu.Unlock()
	if ok {
		return l
	}
	l = newLook(e, k.host)
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.looks) >= maxLooks {
		clear(b.looks) // what is asked for is made again; a published brand leaves its old look here
	}
	b.looks[k] = l
	return l
}

// newLook makes a look, nil of what is no sound brand.
func newLook(e settings.Effective, host string) *Look {
	brand, err := settings.BrandOn(e, host)
	if err != nil {
		return nil
	}
	files, err := look.Publish(brand)
	if err != nil {
		return nil
	}
	return &Look{Brand: brand, files: map[string]page{
		"brand.css":           newPage("text/css; charset=utf-8", files.CSS),
		"brand.json":          newPage("application/json", files.JSON),
		"brand.tokens.json":   newPage("application/design-tokens+json", files.Tokens),
		"brand.resolver.json": newPage("application/json", files.Resolver), // that type and no other, says the specification
	}}
}

// policy keeps an asset from being more than a picture when somebody opens it as a page of its own.
const policy = "default-src 'none'; style-src 'unsafe-inline'; sandbox"

// Serve answers what is asked of a brand. It is false for paths that are the app's. Errors are faults: RESOURCE_NOT_FOUND
// for what the tenant's brand does not name, whoever else's does; DEPENDENCY_UNAVAILABLE for content that is not here while
// config does not answer; METHOD_UNKNOWN for all but GET and HEAD.
func (b *Brands) Serve(w http.ResponseWriter, r *http.Request, who Who) (served bool, err error) {
	path := r.URL.EscapedPath()
	rest, ours := strings.CutPrefix(path, settings.BrandPath)
	icon := path == "/favicon.ico"
	if !ours && !icon {
		return false, nil
	}
	if token, ok := strings.CutPrefix(rest, "preview/"); ours && ok {
		return b.previews.serve(w, r, who, token)
	}
	l := b.Look(r, who)
	if icon && (l == nil || l.Brand.Icons["ico"] == "") {
		return false, nil // the app may have one
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false, fault.New(fault.Unimplemented, fault.ReasonMethodUnknown, "this method is not served here")
	}
	if l == nil {
		return false, nothing()
	}
	if p, ok := l.files[rest]; ours && ok {
		h := w.Header()
		h.Set("Cache-Control", "no-cache") // asked for again each time, and answered by 304: what is published shows at once
		h.Set("Vary", "Cookie")
		if l.Preview {
			Private(h)
		}
		send(w, r, p)
		return true, nil
	}
	name, isAsset := strings.CutPrefix(rest, "b/")
	if icon {
		name = string(l.Brand.Icons["ico"])
	}
	if !isAsset && !icon {
		return false, nothing()
	}
	return b.serveAsset(w, r, l, name)
}

func (b *Brands) serveAsset(w http.ResponseWriter, r *http.Request, l *Look, name string) (served bool, err error) {
	a, ok := settings.ParseAsset(name)
	if !ok || !slices.Contains(l.Brand.Files(), a) {
		return false, nothing()
	}
	content, err := b.assets.Read(r.Context(), a)
	if err != nil {
		return false, err
	}
	h := w.Header()
	h.Set("Cache-Control", "public, max-age=31536000, immutable") // its name is its content
	if r.URL.Path == "/favicon.ico" {
		h.Set("Cache-Control", "no-cache")
	}
	if l.Preview {
		Private(h) // no cache on the way may show it to others
	}
	h.Set("Content-Security-Policy", policy)
	send(w, r, page{content, mediaType(a), `"` + string(a)[:2*sha256.Size] + `"`})
	return true, nil
}

// send writes a file, or that it has not changed.
func send(w http.ResponseWriter, r *http.Request, p page) {
	h := w.Header()
	h.Set("Content-Type", p.mediaType)
	h.Set("ETag", p.etag)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(p.content))
}

func nothing() error {
	return fault.New(fault.NotFound, fault.ReasonResourceNotFound, "nothing is served here")
}

func mediaType(a settings.Asset) string {
	return map[string]string{
		"png": "image/png", "jpg": "image/jpeg", "gif": "image/gif", "svg": "image/svg+xml", "ico": "image/x-icon",
		"woff2": "font/woff2", "css": "text/css; charset=utf-8",
	}[a.Extension()]
}

// Private keeps what is not published out of caches and indexes, and its address to itself.
func Private(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("X-Robots-Tag", "noindex")
	h.Set("Referrer-Policy", "no-referrer")
}

// Fetch gets content by its hash from config.
type Fetch func(ctx context.Context, sha []byte) ([]byte, error)
