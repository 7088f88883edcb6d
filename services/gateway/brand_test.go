package gateway_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/brand/preview"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// shelf stands in for config's assets.
type shelf struct {
	configv1.UnimplementedBrandAssetServiceServer

	contents sync.Map // by hash
	reads    atomic.Int64
}

func (s *shelf) ReadBrandAsset(_ context.Context, in *configv1.ReadBrandAssetRequest) (*configv1.ReadBrandAssetResponse, error) {
	s.reads.Add(1)
	content, ok := s.contents.Load(string(in.GetSha256()))
	if !ok {
		return nil, status.Error(codes.NotFound, "no such content")
	}
	return &configv1.ReadBrandAssetResponse{Content: content.([]byte)}, nil
}

// easel stands in for config's drafts.
type easel struct {
	configv1.UnimplementedBrandDraftServiceServer

	drafts sync.Map // effective values by token
}

func (e *easel) ReadBrandPreview(_ context.Context, in *configv1.ReadBrandPreviewRequest) (*configv1.ReadBrandPreviewResponse, error) {
	content, ok := e.drafts.Load(in.GetToken())
	if !ok {
		return nil, status.Error(codes.NotFound, "it has ended")
	}
	return &configv1.ReadBrandPreviewResponse{Content: content.(string)}, nil
}

// asset puts content on the shelf and returns its name.
func (r *rig) asset(extension, content string) string {
	sum := sha256.Sum256([]byte(content))
	r.control.shelf.contents.Store(string(sum[:]), []byte(content))
	return hex.EncodeToString(sum[:]) + "." + extension
}

// publish sets a tenant's brand.
func (r *rig) publish(id, brand string) {
	r.Helper()
	r.control.configs.Set(r, settings.NamespaceKey("brand"), &configv1.SettingsEntry{Schema: settings.BrandSchema(), Revision: 1})
	r.control.configs.Set(r, settings.TenantKey("brand", tenanttest.UID(id).String()), &configv1.SettingsEntry{
		Content: brand, Revision: r.revision.Add(1),
	})
}

// page is an answer with its header.
type page struct {
	status int
	header http.Header
	body   string
}

// visit asks a gateway over HTTPS.
func (r *rig) visit(g *running, method, host, path string, fields ...string) page {
	r.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(r.ca.RootsPEM())
	var dialer net.Dialer
	client := &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true,
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, network, g.https)
			},
		},
	}
	q, err := http.NewRequestWithContext(r.Context(), method, "https://"+host+path, http.NoBody)
	r.need(err)
	for i := 0; i < len(fields); i += 2 {
		q.Header.Set(fields[i], fields[i+1])
	}
	res, err := client.Do(q)
	r.need(err)
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	r.need(err)
	return page{res.StatusCode, res.Header, string(b)}
}

const wellKnown = "/.well-known/rowhouse/"

// Each host shows its tenant's brand and serves its assets, and nobody else's.
func TestBrandOnItsOwnHost(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.serveControl()
	logo, icon, foreign := r.asset("svg", "<svg/>"), r.asset("ico", "icon"), r.asset("png", "globex alone")
	r.publish("acme", `{"name":"Acme","light":{"primary":"#b91c1c"},"logos":{"light":"`+logo+`"},"icons":{"ico":"`+icon+`"}}`)
	r.publish("globex", `{"name":"Globex","light":{"primary":"#1d4ed8"},"assets":["`+foreign+`"],"domains":{"acme.localhost":{"name":"stolen"}}}`)
	r.publish("hooli", `{"name":"Hooli","logos":{"light":"`+logo+`"},"locale":"de","texts":{"de":{"suspended.title":"Gesperrt"}}}`)
	g := r.start()
	get := func(host, path string, fields ...string) page {
		return r.visit(g, http.MethodGet, host+".localhost", path, fields...)
	}
	eventually(t, "acme's brand is served", func() bool { return strings.Contains(get("acme", wellKnown+"brand.css").body, "--rh-primary:#b91c1c") })
	eventually(t, "hooli's brand is served", func() bool { return strings.Contains(get("hooli", wellKnown+"brand.json").body, "Hooli") })

	css := get("acme", wellKnown+"brand.css")
	tag := css.header.Get("ETag")
	if css.status != 200 || css.header.Get("Content-Type") != "text/css; charset=utf-8" || css.header.Get("X-Content-Type-Options") != "nosniff" ||
		!strings.HasPrefix(tag, `"`) || css.header.Get("Cache-Control") != "no-cache" || css.header.Get("Set-Cookie") != "" {
		t.Errorf("brand.css: %v", css)
	}
	if again := get("acme", wellKnown+"brand.css", "If-None-Match", tag); again.status != 304 || again.body != "" {
		t.Errorf("unchanged: %v", again)
	}
	if other := get("globex", wellKnown+"brand.css", "If-None-Match", tag); other.status != 200 || strings.Contains(other.body, "--rh-primary:#b91c1c") {
		t.Errorf("globex: %v", other)
	}
	if b := get("acme", wellKnown+"brand.json"); !strings.Contains(b.body, `"name":"Acme"`) || b.header.Get("Content-Type") != "application/json" {
		t.Errorf("brand.json: %v", b)
	}
	if b := get("globex", wellKnown+"brand.tokens.json"); !strings.Contains(b.body, `"#1d4ed8"`) || b.header.Get("Content-Type") != "application/design-tokens+json" {
		t.Errorf("brand.tokens.json: %v", b)
	}
	resolver := get("globex", wellKnown+"brand.resolver.json")
	if !strings.Contains(resolver.body, `"#1d4ed8"`) || !strings.Contains(resolver.body, `"version":"2025.10"`) ||
		resolver.header.Get("Content-Type") != "application/json" || resolver.header.Get("Cache-Control") != "no-cache" {
		t.Errorf("brand.resolver.json: %v", resolver)
	}
	if again := get("globex", wellKnown+"brand.resolver.json", "If-None-Match", resolver.header.Get("ETag")); again.status != 304 || again.body != "" {
		t.Errorf("brand.resolver.json, unchanged: %v", again)
	}
	a := get("acme", wellKnown+"b/"+logo)
	if a.status != 200 || a.body != "<svg/>" || a.header.Get("Content-Type") != "image/svg+xml" || a.header.Get("ETag") != `"`+logo[:64]+`"` ||
		a.header.Get("Cache-Control") != "public, max-age=31536000, immutable" || a.header.Get("X-Content-Type-Options") != "nosniff" ||
		a.header.Get("Content-Security-Policy") != "default-src 'none'; style-src 'unsafe-inline'; sandbox" {
		t.Errorf("the logo: %v", a)
	}
	if f := get("acme", "/favicon.ico"); f.status != 200 || f.body != "icon" || f.header.Get("Cache-Control") != "no-cache" {
		t.Errorf("favicon: %v", f)
	}
	if f := get("globex", "/favicon.ico"); f.body != "globex" { // the app's
		t.Errorf("globex's favicon: %v", f)
	}
	reads := r.control.shelf.reads.Load()
	for _, path := range []string{
		"b/" + foreign, "b/" + logo[:64] + ".png", "b/" + strings.Repeat("0", 64) + ".png", "b/", "b/../brand.css", "", "brand.CSS", "x", "b/" + logo + "/",
	} {
		if p := get("acme", wellKnown+path); p.status != 404 && p.status != 400 || strings.Contains(p.body, "alone") {
			t.Errorf("%s: %d %s", path, p.status, p.body)
		}
	}
	if r.control.shelf.reads.Load() != reads {
		t.Error("config was asked for what the brand does not name")
	}
	if p := get("globex", wellKnown+"b/"+foreign); p.status != 200 || p.body != "globex alone" {
		t.Errorf("globex's own: %v", p)
	}
	if p := r.visit(g, http.MethodPost, "acme.localhost", wellKnown+"brand.css"); p.status < 400 {
		t.Errorf("POST: %v", p)
	}
	if p := r.visit(g, http.MethodHead, "acme.localhost", wellKnown+"b/"+logo); p.status != 200 || p.body != "" || p.header.Get("Content-Length") != "6" {
		t.Errorf("HEAD: %v", p)
	}
	// On a shared host the path is the app's.
	if p := r.visit(g, http.MethodGet, platformHost, "/t/acme"+wellKnown+"b/"+logo); p.body != "acme" {
		t.Errorf("below a shared host: %v", p)
	}
	sorry := get("hooli", "/", "Accept", "text/html", "Accept-Language", "de-CH")
	if sorry.status != 403 || !strings.Contains(sorry.body, "Gesperrt") || !strings.Contains(sorry.body, `<html lang="de">`) ||
		!strings.Contains(sorry.body, wellKnown+"b/"+logo) || !strings.Contains(sorry.body, wellKnown+"brand.css") {
		t.Errorf("a suspended tenant's page: %v", sorry)
	}
	if p := get("hooli", wellKnown+"b/"+logo); p.status != 200 {
		t.Errorf("a suspended tenant's logo: %v", p)
	}
	mismatch := get("acme", "/t/globex"+wellKnown+"b/"+logo)
	if mismatch.status != 403 {
		t.Errorf("two tenants in one address: %v", mismatch)
	}
}

// What was asked for once is served while config is away and after a restart, and never another content for it.
func TestAssetsWithoutConfig(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	stop := r.serveControl()
	logo, later := r.asset("svg", "<svg/>"), r.asset("png", "later")
	r.publish("acme", `{"logos":{"light":"`+logo+`","dark":"`+later+`"}}`)
	g := r.start()
	get := func(asset string) page { return r.visit(g, http.MethodGet, "acme.localhost", wellKnown+"b/"+asset) }
	eventually(t, "the logo is served", func() bool { return get(logo).status == 200 })
	for range 20 {
		get(logo)
	}
	if n := r.control.shelf.reads.Load(); n != 1 {
		t.Errorf("config was asked %d times", n)
	}
	stop()
	g.stop()
	r.reach("127.0.0.1:1")
	g = r.start()
	if p := get(logo); p.status != 200 || p.body != "<svg/>" {
		t.Errorf("after the restart: %v", p)
	}
	if p := get(later); p.status != 503 || p.header.Get("Retry-After") == "" {
		t.Errorf("what never came: %v", p)
	}
	g.stop()
	path := filepath.Join(string(r.path("state")), "assets", logo)
	r.need(os.WriteFile(path, bytes.Repeat([]byte("x"), 6), 0o600))
	g = r.start()
	if p := get(logo); p.status != 503 {
		t.Errorf("with other bytes on disk: %v", p)
	}
}

// A domain with something of its own shows that; a published change is seen at once.
func TestBrandOfADomainAndItsChange(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.serveControl()
	r.publish("acme", `{"name":"Acme","domains":{"acme.localhost":{"name":"Acme at home"}}}`)
	g := r.start()
	shows := func(want string) func() bool {
		return func() bool {
			return strings.Contains(r.visit(g, http.MethodGet, "acme.localhost", wellKnown+"brand.json").body, `"name":"`+want+`"`)
		}
	}
	eventually(t, "the domain's own name", shows("Acme at home"))
	for i := range 3 {
		name := fmt.Sprintf("Acme %d", i)
		r.publish("acme", `{"name":"`+name+`"}`)
		eventually(t, name, shows(name))
	}
	// A brand that is not sound shows nothing of itself, and nothing of others.
	r.publish("acme", `{"name":"bad","light":{"text":"red}</style>"}}`)
	eventually(t, "it is refused", func() bool {
		return r.visit(g, http.MethodGet, "acme.localhost", wellKnown+"brand.css").status == 404
	})
}

// A preview is seen by whoever has its link, on its host alone, until config says that it has ended.
func TestPreview(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.serveControl()
	secret := r.asset("svg", "<svg>of the draft</svg>")
	r.publish("acme", `{"name":"Acme"}`)
	r.publish("globex", `{"name":"Globex"}`)
	g := r.start()
	get := func(host, path string, fields ...string) page {
		return r.visit(g, http.MethodGet, host+".localhost", path, fields...)
	}
	eventually(t, "acme's brand is served", func() bool { return strings.Contains(get("acme", wellKnown+"brand.json").body, "Acme") })
	eventually(t, "globex's brand is served", func() bool { return strings.Contains(get("globex", wellKnown+"brand.json").body, "Globex") })
	token := func(id, host string, left time.Duration) string {
		said := preview.Token{Tenant: tenanttest.UID(id), Revision: 9, Expires: time.Now().Add(left).Truncate(time.Second), Host: host}
		text := said.Sign(r.private("feed"))
		r.control.easel.drafts.Store(text, `{"name":"Acme anew","logos":{"light":"`+secret+`"}}`)
		return text
	}
	good := token("acme", "acme.localhost", time.Hour)
	link := get("acme", wellKnown+"preview/"+good)
	set := link.header.Get("Set-Cookie")
	if link.status != 303 || link.header.Get("Location") != "/" || link.header.Get("Cache-Control") != "no-store" ||
		link.header.Get("X-Robots-Tag") != "noindex" || link.header.Get("Referrer-Policy") != "no-referrer" ||
		!strings.HasPrefix(set, "__Host-rh-preview="+good+"; Path=/; ") || !strings.Contains(set, "HttpOnly; Secure; SameSite=Lax") {
		t.Errorf("the link: %v", link)
	}
	with := func(token string) []string { return []string{"Cookie", "a=b; __Host-rh-preview=" + token} }
	draft := get("acme", wellKnown+"brand.json", with(good)...)
	if !strings.Contains(draft.body, "Acme anew") || draft.header.Get("Cache-Control") != "no-store" || draft.header.Get("X-Robots-Tag") != "noindex" {
		t.Errorf("the draft: %v", draft)
	}
	if css := get("acme", wellKnown+"brand.css", with(good)...); !strings.Contains(css.body, "Preview: ") {
		t.Errorf("no banner: %v", css)
	}
	if p := get("acme", wellKnown+"b/"+secret, with(good)...); p.status != 200 || p.header.Get("Cache-Control") != "no-store" {
		t.Errorf("the draft's asset: %v", p)
	}
	// The app's pages are not those that everybody sees, either, nor are those that say that there is none.
	for _, path := range []string{"/", wellKnown + "none"} {
		app := get("acme", path, append(with(good), "Accept", "text/html")...)
		if h := app.header; h.Get("Cache-Control") != "no-store" || h.Get("X-Robots-Tag") != "noindex" || h.Get("Referrer-Policy") != "no-referrer" {
			t.Errorf("%s in a preview: %v", path, app)
		}
	}
	if app := get("acme", "/"); app.header.Get("X-Robots-Tag") != "" || app.header.Get("Referrer-Policy") != "" {
		t.Errorf("the app without a preview: %v", app)
	}
	if p := get("acme", wellKnown+"b/"+secret); p.status != 404 {
		t.Errorf("the draft's asset without the link: %v", p)
	}
	for name, c := range map[string]struct{ host, token string }{
		"another host":         {"globex", good},
		"another tenant":       {"acme", token("globex", "acme.localhost", time.Hour)},
		"another tenant's own": {"acme", token("globex", "globex.localhost", time.Hour)},
		"its end":              {"acme", token("acme", "acme.localhost", -time.Second)},
		"a year":               {"acme", token("acme", "acme.localhost", 365*24*time.Hour)},
		"damaged":              {"acme", "A" + good[1:]},
		"nothing":              {"acme", "x"},
	} {
		if p := get(c.host, wellKnown+"preview/"+c.token); p.status != 404 || p.header.Get("Set-Cookie") != "" {
			t.Errorf("%s: the link: %v", name, p)
		}
		if p := get(c.host, wellKnown+"brand.json", with(c.token)...); strings.Contains(p.body, "anew") || p.header.Get("Cache-Control") == "no-store" {
			t.Errorf("%s: the cookie: %v", name, p)
		}
	}
	r.control.easel.drafts.Delete(good)
	eventually(t, "the preview ends", func() bool {
		return strings.Contains(get("acme", wellKnown+"brand.json", with(good)...).body, `"Acme"`)
	})
	if end := get("acme", wellKnown+"preview/end"); end.status != 303 || !strings.Contains(end.header.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("the end: %v", end)
	}
}
