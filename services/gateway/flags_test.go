package gateway_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/clientkey"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest"
)

// flagsOf makes a document whose one flag has a value that nobody else's has.
func flagsOf(value string) string {
	return `{"flags":{"a/mark":{"state":"ENABLED","variants":{"it":"` + value + `"},"defaultVariant":"it","targeting":
		{"if":[{"==":[{"var":"tenant"},"nobody"]},null,"it"]}}}}`
}

// furnishFlags publishes flags of acme, globex and hooli, each with its own mark, and returns a server's key of each.
func (r *rig) furnishFlags() map[string]string {
	r.Helper()
	r.setFlags(settings.NamespaceKey(settings.FlagsNamespace), &configv1.SettingsEntry{Schema: `{}`})
	keys := map[string]string{}
	for _, id := range []string{"acme", "globex", "hooli"} {
		keys[id] = r.clientKey(id)
		r.setFlags(settings.TenantKey(settings.FlagsNamespace, tenanttest.UID(id).String()), &configv1.SettingsEntry{Content: flagsOf("of " + id), Revision: 1})
	}
	return keys
}

func (r *rig) setFlags(key string, e *configv1.SettingsEntry) { r.control.configs.Set(r, key, e) }

func (r *rig) clientKey(id string) string {
	r.Helper()
	key, digest, err := clientkey.New(rand.Reader)
	r.need(err)
	uid := tenanttest.UID(id)
	r.control.clientKeys.Set(r, clientkey.FeedKey(digest), &configv1.ClientKeyEntry{
		Id: clientkey.FeedKey(digest)[4:20], TenantUid: uid[:], Kind: configv1.ClientKeyKind_CLIENT_KEY_KIND_SERVER, Environment: "production",
	})
	return key
}

func (r *rig) revoke(key string) {
	r.Helper()
	digest, _ := clientkey.DigestOf(key)
	r.control.clientKeys.Set(r, clientkey.FeedKey(digest), nil)
}

// browser is a client that reaches a gateway by every tenant's host.
func (r *rig) browser(g *running) *http.Client {
	r.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(r.ca.RootsPEM())
	var dialer net.Dialer
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, g.https)
		},
	}
	r.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// askFlags sends an OFREP request; body "" is a GET.
func (r *rig) askFlags(c *http.Client, url, key, body string) (status int, text string, h http.Header) {
	r.Helper()
	method, content := http.MethodPost, io.Reader(strings.NewReader(body))
	if body == "" {
		method, content = http.MethodGet, http.NoBody
	}
	q, err := http.NewRequestWithContext(context.Background(), method, url, content)
	r.need(err)
	if key != "" {
		q.Header.Set("X-Api-Key", key)
	}
	res, err := c.Do(q)
	r.need(err)
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	r.need(err)
	return res.StatusCode, string(b), res.Header
}

const ofrepFlags = "/ofrep/v1/evaluate/flags"

// served waits until a tenant's flags are, and returns the address of its stream.
func (r *rig) served(c *http.Client, id, key string) (stream string) {
	r.Helper()
	eventually(r, "flags of "+id, func() bool {
		status, text, _ := r.askFlags(c, "https://"+id+".localhost"+ofrepFlags, key, `{}`)
		if status != http.StatusOK || !strings.Contains(text, "of "+id) {
			return false
		}
		var body struct {
			Streams []struct{ Endpoint struct{ RequestURI string } } `json:"eventStreams"`
		}
		r.need(json.Unmarshal([]byte(text), &body))
		stream = body.Streams[0].Endpoint.RequestURI
		return true
	})
	return stream
}

// No key, host, context or stream's address shows a tenant what is another's.
func TestFlagsStayWithTheirTenant(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	keys := r.furnishFlags()
	r.serveControl()
	g := r.start()
	c := r.browser(g)
	streams := map[string]string{"acme": r.served(c, "acme", keys["acme"]), "globex": r.served(c, "globex", keys["globex"])}
	for _, host := range []string{"acme", "globex"} {
		for _, owner := range []string{"acme", "globex", "hooli"} {
			for _, path := range []string{ofrepFlags, ofrepFlags + "/", ofrepFlags + "/a/mark", ofrepFlags + "/a%2Fmark"} {
				for _, context := range []string{`{}`, `{"context":{"tenant":"` + owner + `"}}`, `{"context":{"tenant":"hooli"}}`} {
					status, text, _ := r.askFlags(c, "https://"+host+".localhost"+path, keys[owner], context)
					want := http.StatusForbidden
					if host == owner && !strings.Contains(context, "hooli") {
						want = http.StatusOK
					}
					if status != want || want == http.StatusOK != strings.Contains(text, "of "+host) || strings.Count(text, "of ") > strings.Count(text, "of "+host)+1 {
						t.Errorf("%s's key on %s's host, %s with %s: %d %s", owner, host, path, context, status, text)
					}
				}
			}
			if address := streams[owner]; address != "" && owner != host {
				if status, text, _ := r.askFlags(c, "https://"+host+".localhost"+address, "", ""); status != http.StatusForbidden {
					t.Errorf("%s's stream on %s's host: %d %s", owner, host, status, text)
				}
			}
		}
	}
	for what, a := range map[string]struct {
		url, key string
		status   int
	}{
		"a suspended tenant":      {"https://hooli.localhost" + ofrepFlags, keys["hooli"], 403},
		"a shared host":           {"https://" + platformHost + ofrepFlags, keys["acme"], 404},
		"a shared host's path":    {"https://" + platformHost + "/t/acme" + ofrepFlags, keys["acme"], 200}, // the app's own matter
		"no key":                  {"https://acme.localhost" + ofrepFlags, "", 401},
		"an app's path":           {"https://acme.localhost/notes", keys["globex"], 200},
		"a path that looks alike": {"https://acme.localhost/ofrep/v2/x", keys["globex"], 200},
	} {
		status, text, _ := r.askFlags(c, a.url, a.key, `{}`)
		if status != a.status || strings.Contains(text, "of ") && status == http.StatusOK {
			t.Errorf("%s: %d %s, want %d", what, status, text, a.status)
		}
	}
	if log := g.log.String(); strings.Contains(log, "rhc_") || strings.Contains(log, "?t=") {
		t.Error("a key or a stream's token is in the log")
	}
}

// starve leaves acme no more requests.
func (r *rig) starve() {
	r.Helper()
	r.control.limits.Set(r, "tenant/"+tenanttest.UID("acme").String()+"/requests", &quotav1.LimitEntry{Limit: &quotav1.Limit{
		Name: "tenants/acme/limits/requests", Tokens: 1, Burst: 1, Period: durationpb.New(time.Hour), Revision: 2,
		OnStoreLoss: quotav1.StoreLossPolicy_STORE_LOSS_POLICY_FAIL_CLOSED,
	}})
	r.control.refuse.Store(true)
}

func TestFlagsObeyTheTenantsRate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	keys := r.furnishFlags()
	r.serveControl()
	g := r.start()
	c := r.browser(g)
	r.served(c, "acme", keys["acme"])
	r.starve()
	eventually(t, "a refusal", func() bool {
		status, text, h := r.askFlags(c, "https://acme.localhost"+ofrepFlags, keys["acme"], `{}`)
		if status == http.StatusOK {
			return false
		}
		var body struct{ ErrorDetails string }
		if status != http.StatusTooManyRequests || h.Get("Retry-After") == "" || json.Unmarshal([]byte(text), &body) != nil || body.ErrorDetails == "" {
			t.Errorf("%d %s %v", status, text, h)
		}
		return true
	})
}

// Streams tell of changes within a moment, and end with what they were opened by.
func TestFlagStreams(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	keys := r.furnishFlags()
	second := r.clientKey("acme")
	r.serveControl()
	g := r.start()
	c := r.browser(g)
	open := func(id, key string) (frames <-chan string, ended <-chan struct{}) {
		q, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+id+".localhost"+r.served(c, id, key), http.NoBody)
		r.need(err)
		res, err := c.Do(q)
		r.need(err)
		lines, done := make(chan string, 100), make(chan struct{})
		go func() {
			defer close(done)
			defer func() { _ = res.Body.Close() }()
			for scan := bufio.NewScanner(res.Body); scan.Scan(); {
				if strings.HasPrefix(scan.Text(), "data: ") {
					lines <- scan.Text()
				}
			}
		}()
		return lines, done
	}
	wait := func(what string, ch <-chan struct{}) {
		t.Helper()
		select {
		case <-ch:
		case <-time.After(20 * time.Second):
			t.Fatal(what)
		}
	}
	revoked, revokedEnd := open("acme", second)
	moved, movedEnd := open("acme", keys["acme"])
	suspended, suspendedEnd := open("globex", keys["globex"])
	for _, frames := range []<-chan string{revoked, moved, suspended} {
		<-frames // the first comes without a change
	}
	r.setFlags(settings.TenantKey(settings.FlagsNamespace, tenanttest.UID("acme").String()), &configv1.SettingsEntry{Content: flagsOf("new of acme"), Revision: 2})
	<-revoked
	<-moved
	if len(suspended) > 0 {
		t.Error("globex hears of acme's change")
	}
	r.revoke(second)
	wait("the revoked key's stream goes on", revokedEnd)
	eventually(t, "the key is refused", func() bool {
		status, _, _ := r.askFlags(c, "https://acme.localhost"+ofrepFlags, second, `{}`)
		return status == http.StatusUnauthorized
	})
	r.setTenant("globex", tenancyv1.TenantState_TENANT_STATE_SUSPENDED, 2)
	wait("the suspended tenant's stream goes on", suspendedEnd)
	select {
	case <-movedEnd:
		t.Fatal("another stream ended, too")
	default:
	}
	began := time.Now()
	g.stop()
	wait("the stream outlives the gateway", movedEnd)
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("the stream held the end up for %v", took)
	}
}

// What was on disk is served without the control plane, after a restart, too.
func TestFlagsOutliveTheControlPlane(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	keys := r.furnishFlags()
	stop := r.serveControl()
	g := r.start()
	r.served(r.browser(g), "acme", keys["acme"])
	stop()
	g.stop() // what is not on disk yet is written
	g = r.start()
	status, text, _ := r.askFlags(r.browser(g), "https://acme.localhost"+ofrepFlags, keys["acme"], `{}`)
	if status != http.StatusOK || !strings.Contains(text, "of acme") {
		t.Errorf("after a restart: %d %s", status, text)
	}
	if status, _, _ = r.askFlags(r.browser(g), "https://acme.localhost"+ofrepFlags, keys["globex"], `{}`); status != http.StatusForbidden {
		t.Errorf("globex's key: %d", status)
	}
}
