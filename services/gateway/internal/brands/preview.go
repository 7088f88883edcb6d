package brands

import (
	"context"
	"crypto/ed25519"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/rowhouse-platform/rowhouse/internal/brand/preview"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// Cookie holds the token of a preview. Its prefix binds it to the one host that set it, over https.
const Cookie = "__Host-rh-preview"

// Bounds of previews.
const (
	// recall is how long what a link shows is not asked for again: a link that has ended shows this much longer.
	recall      = 2 * time.Second
	maxPreviews = 1000
)

// banner tells on each page with the brand's style sheet that it is a preview.
const banner = `html::before{content:"Preview: this look is not published";display:block;position:sticky;top:0;z-index:2147483647;` +
	`padding:8px;background:#000;color:#fff;font:16px/1.5 system-ui,sans-serif;text-align:center}` + "\n"

// Previews shows drafts to whoever has their links.
type Previews struct {
	// Keys verify links; they are those of config's feed.
	Keys []ed25519.PublicKey
	// Fetch gets what a link shows from config: the effective value of the brand, as JSON.
	Fetch func(ctx context.Context, token string) (string, error)
	Clock func() time.Time

	mu    sync.Mutex
	known map[string]known
}

// known is what a link showed when it was asked for; nil for one that has ended.
type known struct {
	look *Look
	at   time.Time
}

// read reads a token that is good for a tenant on its host.
func (p *Previews) read(token string, w Who) bool {
	t, err := preview.Read(token, p.Keys, p.Clock())
	return err == nil && t.Tenant == w.UID && t.Host == w.Host
}

// serve answers a link: it sets the cookie and leads to the tenant's site. Its path "end" takes the cookie away.
func (p *Previews) serve(w http.ResponseWriter, r *http.Request, who Who, token string) (served bool, err error) {
	if r.Method != http.MethodGet {
		return false, fault.New(fault.Unimplemented, fault.ReasonMethodUnknown, "this method is not served here")
	}
	c := &http.Cookie{Name: Cookie, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode, MaxAge: -1}
	if token != "end" {
		t, err := preview.Read(token, p.Keys, p.Clock())
		if err != nil || !p.read(token, who) {
			return false, nothing()
		}
		c.Value, c.MaxAge = token, int(t.Expires.Sub(p.Clock()).Seconds())
	}
	Private(w.Header())
	http.SetCookie(w, c)
	w.Header().Set("Location", "/")
	w.WriteHeader(http.StatusSeeOther)
	return true, nil
}

// look returns what the request's preview shows, nil without one. A link that is not good here, or has ended, or cannot be
// looked up, shows what is published.
func (p *Previews) look(r *http.Request, who Who) *Look {
	if !strings.Contains(r.Header.Get("Cookie"), Cookie) {
		return nil
	}
	c, err := r.Cookie(Cookie)
	if err != nil || !p.read(c.Value, who) {
		return nil
	}
	now := p.Clock()
	p.mu.Lock()
	k, ok := p.known[c.Value]
	p.mu.Unlock()
	if ok && now.Sub(k.at) < recall {
		return k.look
	}
	ctx, cancel := context.WithTimeout(r.Context(), fetchWithin)
	defer cancel()
	k = known{at: now}
	if content, err := p.Fetch(ctx, c.Value); err == nil {
		k.look = draft(content, who.Host)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == nil || len(p.known) >= maxPreviews {
		p.known = make(map[string]known)
	}
	p.known[c.Value] = k
	return k.look
}

// draft makes the look of a draft, nil of what is no sound brand.
func draft(content, host string) *Look {
	o, err := settings.Parse([]byte(content))
	if err != nil {
		return nil
	}
	l := newLook(settings.Effective{Object: o}, host)
	if l == nil {
		return nil
	}
	l.Preview = true
	css := l.files["brand.css"]
	l.files["brand.css"] = newPage(css.mediaType, append(css.content, banner...))
	return l
}
