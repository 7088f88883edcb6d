package config_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/services/config"
)

// received is one message as a receiver got it.
type received struct {
	path   string
	header http.Header
	body   []byte
	at     time.Time
}

func (m received) id() string { return m.header.Get("Webhook-Id") }

// message is a body as the specification has it.
type message struct {
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"`
	Data      struct {
		Tenant, TenantUID, Namespace, Layer string
		Rollout, Cause, Change, Reason      string
		Step, SharePercent                  int32
		Revision                            int64
	} `json:"data"`
}

func (m received) message(tb testing.TB) (out message) {
	tb.Helper()
	d := json.NewDecoder(bytes.NewReader(m.body))
	d.DisallowUnknownFields()
	must(tb, d.Decode(&out))
	return out
}

// receiver is an https server that answers as its paths say.
type receiver struct {
	url     string
	mu      sync.Mutex
	got     []received
	answers map[string]http.HandlerFunc
	roots   []byte
}

func newReceiver(tb testing.TB) *receiver {
	tb.Helper()
	r := &receiver{answers: map[string]http.HandlerFunc{}}
	s := httptest.NewTLSServer(r)
	tb.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	r.url = s.URL
	r.roots = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	r.mu.Lock()
	r.got = append(r.got, received{req.URL.Path, req.Header, body, time.Now()})
	answer := r.answers[req.URL.Path]
	r.mu.Unlock()
	if answer != nil {
		answer(w, req)
	}
}

func (r *receiver) answer(path string, h http.HandlerFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answers[path] = h
}

func (r *receiver) at(path string) (found []received) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range r.got {
		if m.path == path {
			found = append(found, m)
		}
	}
	return found
}

// await returns the messages at a path once there are n.
func (r *receiver) await(tb testing.TB, path string, n int) []received {
	tb.Helper()
	eventually(tb, strconv.Itoa(n)+" messages at "+path, func() bool { return len(r.at(path)) >= n })
	return r.at(path)
}

// newHookRig is a rig that may call a receiver on loopback.
func newHookRig(tb testing.TB, more ...func(*config.Config)) (*rig, *receiver) {
	tb.Helper()
	to := newReceiver(tb)
	roots := filepath.Join(tb.TempDir(), "receiver.pem")
	must(tb, os.WriteFile(roots, to.roots, 0o600))
	_, port, err := net.SplitHostPort(strings.TrimPrefix(to.url, "https://"))
	must(tb, err)
	n, err := strconv.Atoi(port)
	must(tb, err)
	r := newRigWith(tb, func(c *config.Config) {
		c.Egress = config.Egress{Ports: []int{n, 443}, Allow: []string{"127.0.0.0/8"}, Roots: yamlfile.Path(roots)}
		c.Hooks.Egress = c.Egress
		for _, configure := range more {
			configure(c)
		}
	})
	return r, to
}

// hook makes a webhook at the path that its name is, and returns it with its secret.
func (r *rig) hook(a api, to *receiver, name string, w *configv1.Webhook) (*configv1.Webhook, string) {
	r.tb.Helper()
	owner, id, _ := strings.Cut(name, "/webhooks/")
	w.Url = to.url + "/" + name
	resp, err := a.CreateWebhook(r.tb.Context(), &configv1.CreateWebhookRequest{Parent: owner, WebhookId: id, Webhook: w})
	must(r.tb, err)
	return resp.GetWebhook(), resp.GetSecret()
}

func (r *rig) deliveries(a api, name string) []*configv1.WebhookDelivery {
	r.tb.Helper()
	resp, err := a.ListWebhookDeliveries(r.tb.Context(), &configv1.ListWebhookDeliveriesRequest{Parent: name})
	must(r.tb, err)
	return resp.GetDeliveries()
}

// settled returns the deliveries of a webhook once none but those that are to be tried much later is under way.
func (r *rig) settled(a api, name string, state configv1.WebhookDeliveryState) *configv1.WebhookDelivery {
	r.tb.Helper()
	var d *configv1.WebhookDelivery
	eventually(r.tb, name+" is "+state.String(), func() bool {
		for _, d = range r.deliveries(a, name) {
			if d.GetState() == state && d.GetLastAttemptTime() != nil {
				return true
			}
		}
		return false
	})
	return d
}

const (
	pending   = configv1.WebhookDeliveryState_WEBHOOK_DELIVERY_STATE_PENDING
	delivered = configv1.WebhookDeliveryState_WEBHOOK_DELIVERY_STATE_DELIVERED
	dead      = configv1.WebhookDeliveryState_WEBHOOK_DELIVERY_STATE_DEAD
)

func TestWebhooksAreToldOfChanges(t *testing.T) {
	t.Parallel()
	r, to := newHookRig(t)
	a, owner := r.as("operator"), r.as("owner")
	_, all := r.hook(a, to, "platform/webhooks/all", &configv1.Webhook{})
	_, acme := r.hook(a, to, "tenants/acme/webhooks/mine", &configv1.Webhook{})
	r.hook(a, to, "tenants/acme/webhooks/brand", &configv1.Webhook{EventTypes: []string{"brand.*"}})
	r.hook(a, to, "tenants/globex/webhooks/mine", &configv1.Webhook{})
	asleep, _ := r.hook(a, to, "tenants/acme/webhooks/asleep", &configv1.Webhook{Disabled: true})

	r.namespace(owner, "portal", `{}`)
	r.set(a, "platform/config/portal", `{"x":1}`)
	r.set(a, "plans/free/config/portal", `{"x":2}`)
	written := r.set(a, "tenants/acme/config/portal", `{"password":"hunter2secret"}`)
	r.set(a, "tenants/globex/config/portal", `{"x":4}`)
	r.set(a, "tenants/acme/config/brand", `{"name":"Acme"}`)
	_, err := a.DeleteDocument(t.Context(), &configv1.DeleteDocumentRequest{Name: "tenants/acme/config/portal"})
	must(t, err)

	kinds := func(got []received) (out []string) {
		for _, m := range got {
			body := m.message(t)
			out = append(out, body.Type+" "+body.Data.Namespace+" "+body.Data.Layer+" "+body.Data.Tenant)
		}
		slices.Sort(out)
		return out
	}
	for path, want := range map[string][]string{
		"/platform/webhooks/all": {
			"brand.updated brand tenant acme", "schema.updated portal  ", "settings.deleted portal tenant acme", "settings.updated portal plans/free ",
			"settings.updated portal platform ", "settings.updated portal tenant acme", "settings.updated portal tenant globex"},
		"/tenants/acme/webhooks/mine":   {"brand.updated brand tenant acme", "settings.deleted portal tenant acme", "settings.updated portal tenant acme"},
		"/tenants/acme/webhooks/brand":  {"brand.updated brand tenant acme"},
		"/tenants/globex/webhooks/mine": {"settings.updated portal tenant globex"},
	} {
		if got := kinds(to.await(t, path, len(want))); !slices.Equal(got, want) {
			t.Errorf("%s got\n%s, want\n%s", path, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	for _, m := range to.at("/tenants/acme/webhooks/mine") {
		verify(t, m, acme)
		if bytes.Contains(m.body, []byte("hunter2")) || m.header.Get("Content-Type") != "application/json" || !strings.HasPrefix(m.id(), "msg_") {
			t.Errorf("message %v %s", m.header, m.body)
		}
	}
	wrong, err := standardwebhooks.NewWebhook(all)
	must(t, err)
	if m := to.at("/tenants/acme/webhooks/mine")[0]; wrong.Verify(m.body, m.header) == nil {
		t.Error("another webhook's secret verifies the message")
	}
	if got := to.at("/tenants/acme/webhooks/asleep"); len(got) > 0 || len(r.deliveries(a, asleep.GetName())) > 0 {
		t.Errorf("a webhook that is disabled got %d messages", len(got))
	}
	if d := r.settled(a, "tenants/acme/webhooks/mine", delivered); d.GetAttempts() != 1 || d.GetLastStatus() != 200 || written.GetRevision() == 0 {
		t.Errorf("delivery %v", d)
	}
}

// verify checks a message with the library of the specification's authors.
func verify(tb testing.TB, m received, secret string) {
	tb.Helper()
	w, err := standardwebhooks.NewWebhook(secret)
	must(tb, err)
	if err := w.Verify(m.body, m.header); err != nil {
		tb.Errorf("%s: %v", m.path, err)
	}
}

func TestBothKeysSignWhileASecretIsReplaced(t *testing.T) {
	t.Parallel()
	r, to := newHookRig(t)
	a := r.as("operator")
	w, first := r.hook(a, to, "tenants/acme/webhooks/mine", &configv1.Webhook{})
	id := newID()
	rotate := &configv1.RotateWebhookSecretRequest{Name: w.GetName(), RequestId: id}
	rotated, err := a.RotateWebhookSecret(t.Context(), rotate)
	must(t, err)
	again, err := a.RotateWebhookSecret(t.Context(), rotate)
	if second := rotated.GetSecret(); err != nil || again.GetSecret() != second || second == first || !strings.HasPrefix(second, "whsec_") {
		t.Errorf("the secret %q became %q, and asked again %q (%v)", first, second, again.GetSecret(), err)
	}
	test := func(n int) received {
		_, err := a.TestWebhook(t.Context(), &configv1.TestWebhookRequest{Name: w.GetName()})
		must(t, err)
		return to.await(t, "/"+w.GetName(), n)[n-1]
	}
	m := test(1)
	verify(t, m, first)
	verify(t, m, rotated.GetSecret())
	if m.message(t).Type != "webhook.test" {
		t.Errorf("the test is %s", m.body)
	}
	third, err := a.RotateWebhookSecret(t.Context(), &configv1.RotateWebhookSecretRequest{Name: w.GetName(), Overlap: durationpb.New(time.Nanosecond)})
	must(t, err)
	m = test(2)
	verify(t, m, third.GetSecret())
	if signatures := strings.Fields(m.header.Get("Webhook-Signature")); len(signatures) != 1 {
		t.Errorf("after the overlap there are %d signatures", len(signatures))
	}
	// Nowhere is a secret in clear: not in the database, not in the log, not in the audit chains.
	secrets := []string{first, rotated.GetSecret(), third.GetSecret()}
	kept := r.log.String() + r.everything()
	for _, s := range secrets {
		raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(s, "whsec_"))
		must(t, err)
		if strings.Contains(kept, s) || strings.Contains(kept, strings.TrimPrefix(s, "whsec_")) || strings.Contains(kept, hexOf(raw)) {
			t.Errorf("a secret is kept in clear")
		}
	}
}

// An answer without the secret says that the webhook was changed since, and not that the database could not be asked.
func TestASecretThatCannotBeReadIsNoAnswer(t *testing.T) {
	t.Parallel()
	r, to := newHookRig(t)
	a := r.as("operator")
	w, _ := r.hook(a, to, "tenants/acme/webhooks/mine", &configv1.Webhook{})
	rotate := &configv1.RotateWebhookSecretRequest{Name: w.GetName(), RequestId: newID()}
	_, err := a.RotateWebhookSecret(t.Context(), rotate)
	must(t, err)
	_, err = r.db.Owner(t).Exec(t.Context(), `ALTER TABLE webhook.endpoint RENAME COLUMN revision TO elsewhere`)
	must(t, err)
	if again, err := a.RotateWebhookSecret(t.Context(), rotate); err == nil {
		t.Errorf("answered %v", again)
	}
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	var out strings.Builder
	for _, c := range b {
		out.WriteByte(digits[c>>4])
		out.WriteByte(digits[c&15])
	}
	return out.String()
}

// everything is all rows of the database as text.
func (r *rig) everything() string {
	r.tb.Helper()
	var all strings.Builder
	super := r.db.Owner(r.tb)
	var tables []string
	must(r.tb, super.QueryRow(r.tb.Context(), `SELECT array_agg(format('%I.%I', schemaname, tablename)) FROM pg_tables
		WHERE schemaname IN ('kernel', 'audit', 'webhook', 'settings')`).Scan(&tables))
	for _, table := range tables {
		var text string
		must(r.tb, super.QueryRow(r.tb.Context(), `SELECT coalesce(string_agg(x::text, E'\n'), '') FROM `+table+` x`).Scan(&text))
		all.WriteString(text)
	}
	return all.String()
}

func TestEd25519Webhook(t *testing.T) {
	t.Parallel()
	r, to := newHookRig(t)
	a := r.as("operator")
	w, secret := r.hook(a, to, "platform/webhooks/ed", &configv1.Webhook{Signing: configv1.WebhookSigning_WEBHOOK_SIGNING_ED25519})
	if secret != "" || len(w.GetPublicKeys()) != 1 {
		t.Fatalf("an Ed25519 webhook with the secret %q and the keys %q", secret, w.GetPublicKeys())
	}
	rotated, err := a.RotateWebhookSecret(t.Context(), &configv1.RotateWebhookSecretRequest{Name: w.GetName()})
	must(t, err)
	if keys := rotated.GetWebhook().GetPublicKeys(); len(keys) != 2 || keys[1] != w.GetPublicKeys()[0] {
		t.Errorf("after a rotation: %q", keys)
	}
	_, err = a.TestWebhook(t.Context(), &configv1.TestWebhookRequest{Name: w.GetName()})
	must(t, err)
	m := to.await(t, "/"+w.GetName(), 1)[0]
	signed := []byte(m.id() + "." + m.header.Get("Webhook-Timestamp") + "." + string(m.body))
	signatures := strings.Fields(m.header.Get("Webhook-Signature"))
	for i, key := range rotated.GetWebhook().GetPublicKeys() {
		public, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(key, "whpk_"))
		must(t, err)
		signature, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(signatures[i], "v1a,"))
		must(t, err)
		if !ed25519.Verify(public, signed, signature) || ed25519.Verify(public, append(signed, ' '), signature) {
			t.Errorf("signature %d does not verify", i)
		}
	}
}

func TestAReceiverThatFails(t *testing.T) {
	t.Parallel()
	r, to := newHookRig(t)
	a := r.as("operator")
	deny := func(status int, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
		}
	}
	const base = "tenants/acme/webhooks/"
	for id, h := range map[string]http.HandlerFunc{
		"broken": deny(500), "moved": deny(307, "Location", "https://169.254.169.254/latest/meta-data/"), "gone": deny(410),
		"busy": deny(429, "Retry-After", "1800"), "eternal": deny(429, "Retry-After", "999999999"),
		"liar": func(w http.ResponseWriter, _ *http.Request) {
			hijacked, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				_, _ = hijacked.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nno"))
				_ = hijacked.Close()
			}
		},
	} {
		to.answer("/"+base+id, h)
		r.hook(a, to, base+id, &configv1.Webhook{})
	}
	r.set(a, "tenants/acme/config/brand", `{"name":"Acme"}`)
	for id, want := range map[string]struct {
		state    configv1.WebhookDeliveryState
		status   int32
		failure  string
		earliest time.Duration
		latest   time.Duration
	}{
		"broken":  {pending, 500, "STATUS", 4 * time.Second, 7 * time.Second},
		"moved":   {pending, 307, "STATUS", 4 * time.Second, 7 * time.Second},
		"liar":    {pending, 0, "BAD_ANSWER", 4 * time.Second, 7 * time.Second},
		"busy":    {pending, 429, "STATUS", 30*time.Minute - time.Second, 30*time.Minute + time.Second},
		"eternal": {pending, 429, "STATUS", time.Hour - time.Second, time.Hour + time.Second},
		"gone":    {dead, 410, "STATUS", 0, 0},
	} {
		d := r.settled(a, base+id, want.state)
		if d.GetLastStatus() != want.status || d.GetLastFailure() != want.failure {
			t.Errorf("%s: %v", id, d)
		}
		if wait := d.GetNextAttemptTime().AsTime().Sub(d.GetLastAttemptTime().AsTime()); want.state == pending && (wait < want.earliest || wait > want.latest) {
			t.Errorf("%s is tried again after %s", id, wait)
		}
	}
	eventually(t, "the webhook that is gone is disabled", func() bool {
		w, err := a.GetWebhook(t.Context(), &configv1.GetWebhookRequest{Name: base + "gone"})
		return err == nil && w.GetWebhook().GetDisabled() && w.GetWebhook().GetDisabledCause() == "GONE"
	})
	var events []string
	acme := r.issuer.Tenant(t, "acme").UID
	chain, err := r.as("auditor").ListEvents(t.Context(), &auditv1.ListEventsRequest{Parent: "chains/" + acme.String()})
	must(t, err)
	for _, e := range chain.GetEvents() {
		events = append(events, e.GetMethod()+" "+strings.Join(e.GetResources(), " "))
	}
	if !slices.Contains(events, "job/webhook-gone "+base+"gone") {
		t.Errorf("nothing tells who disabled it:\n%s", strings.Join(events, "\n"))
	}
	_, err = a.TestWebhook(t.Context(), &configv1.TestWebhookRequest{Name: base + "gone"})
	refused(t, "a test of what is disabled", err, codes.FailedPrecondition, "WEBHOOK_DISABLED")

	// The message that failed is sent again with its id, once the receiver works.
	to.answer("/"+base+"broken", nil)
	first := to.at("/" + base + "broken")[0]
	d := r.deliveries(a, base+"broken")[0]
	_, err = a.RedeliverWebhook(t.Context(), &configv1.RedeliverWebhookRequest{Name: d.GetName()})
	must(t, err)
	if again := to.await(t, "/"+base+"broken", 2)[1]; again.id() != first.id() || !bytes.Equal(again.body, first.body) {
		t.Errorf("redelivered as %s, first sent as %s", again.id(), first.id())
	}
	to.answer("/"+base+"gone", nil)
	_, err = a.UpdateWebhook(t.Context(), &configv1.UpdateWebhookRequest{
		Webhook: &configv1.Webhook{Name: base + "gone"}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"disabled"}},
	})
	must(t, err)
	revived, err := a.RedeliverWebhook(t.Context(), &configv1.RedeliverWebhookRequest{Name: base + "gone/deliveries/-"})
	if err != nil || revived.GetRedelivered() != 1 {
		t.Errorf("dead ones redelivered: %v, %v", revived, err)
	}
	to.await(t, "/"+base+"gone", 2)
}

func TestWebhooksThatAreRefused(t *testing.T) {
	t.Parallel()
	r, to := newHookRig(t)
	a := r.as("operator")
	const arg, missing = codes.InvalidArgument, codes.NotFound
	create := func(parent, id string, w *configv1.Webhook) error {
		_, err := a.CreateWebhook(t.Context(), &configv1.CreateWebhookRequest{Parent: parent, WebhookId: id, Webhook: w})
		return err
	}
	for url, class := range map[string]string{
		"https://169.254.169.254/latest": "LINK_LOCAL_ADDRESS", "http://hooks.acme.dev/": "BAD_URL", "https://u:p@hooks.acme.dev/": "BAD_URL",
		"https://localhost/": "BAD_NAME", "https://[::ffff:10.0.0.1]/": "PRIVATE_ADDRESS", "https://hooks.acme.dev:22/": "BAD_URL", "": "BAD_URL",
	} {
		err := create("tenants/acme", "x", &configv1.Webhook{Url: url})
		refused(t, url, err, arg, "WEBHOOK_URL_REFUSED")
		if err != nil && (!strings.Contains(err.Error(), class) || class == "BAD_URL" && !strings.Contains(err.Error(), "wanted are https")) {
			t.Errorf("%q: %v, want %s", url, err, class)
		}
	}
	w, _ := r.hook(a, to, "tenants/acme/webhooks/mine", &configv1.Webhook{})
	refused(t, "twice", create("tenants/acme", "mine", &configv1.Webhook{Url: to.url}), codes.AlreadyExists, "RESOURCE_EXISTS")
	refused(t, "for nobody", create("tenants/nobody", "x", &configv1.Webhook{Url: to.url}), missing, "RESOURCE_NOT_FOUND")
	refused(t, "for a plan", create("plans/free", "x", &configv1.Webhook{Url: to.url}), arg, "INVALID_FIELD")
	for _, never := range []string{"setings.*", "settings.udpated", "settings", "tenant.updated"} {
		refused(t, "of a type that never is", create("platform", "x", &configv1.Webhook{Url: to.url, EventTypes: []string{"settings.*", never}}),
			arg, "INVALID_FIELD")
	}
	refused(t, "of a bad type", create("platform", "x", &configv1.Webhook{Url: to.url, EventTypes: []string{"*.updated"}}), arg, "INVALID_FIELD")
	for i := range 9 {
		must(t, create("tenants/acme", "more"+strconv.Itoa(i), &configv1.Webhook{Url: to.url, Disabled: true}))
	}
	refused(t, "an eleventh", create("tenants/acme", "y", &configv1.Webhook{Url: to.url}), codes.FailedPrecondition, "WEBHOOK_LIMIT")
	_, err := a.UpdateWebhook(t.Context(), &configv1.UpdateWebhookRequest{Webhook: &configv1.Webhook{Name: w.GetName(), Url: "https://10.0.0.1/"}})
	refused(t, "moved inside", err, arg, "WEBHOOK_URL_REFUSED")
	_, err = a.UpdateWebhook(t.Context(), &configv1.UpdateWebhookRequest{Webhook: &configv1.Webhook{
		Name: w.GetName(), Signing: configv1.WebhookSigning_WEBHOOK_SIGNING_ED25519}})
	refused(t, "another way to sign", err, arg, "IMMUTABLE_FIELD")
	_, err = a.UpdateWebhook(t.Context(), &configv1.UpdateWebhookRequest{Webhook: &configv1.Webhook{Name: w.GetName(), Etag: "x", Description: "d"}})
	refused(t, "stale", err, codes.Aborted, "ETAG_MISMATCH")
	_, err = r.as("viewer").RotateWebhookSecret(t.Context(), &configv1.RotateWebhookSecretRequest{Name: w.GetName()})
	refused(t, "a viewer", err, codes.PermissionDenied, "PERMISSION_MISSING")
	resp, err := a.CreateWebhook(t.Context(), &configv1.CreateWebhookRequest{
		Parent: "platform", WebhookId: "dry", Webhook: &configv1.Webhook{Url: to.url}, ValidateOnly: true})
	if _, missed := a.GetWebhook(t.Context(), &configv1.GetWebhookRequest{Name: "platform/webhooks/dry"}); err != nil || resp.GetSecret() != "" || missed == nil {
		t.Errorf("a dry run: %v, %v, %v", resp, err, missed)
	}
}

// No call about one tenant's webhook reaches another's, nor the platform's.
func TestAnotherTenantsWebhookIsNotFound(t *testing.T) {
	t.Parallel()
	r, to := newHookRig(t)
	a := r.as("operator")
	w, _ := r.hook(a, to, "tenants/acme/webhooks/mine", &configv1.Webhook{})
	_, err := a.TestWebhook(t.Context(), &configv1.TestWebhookRequest{Name: w.GetName()})
	must(t, err)
	d := r.settled(a, w.GetName(), delivered)
	for _, owner := range []string{"tenants/globex", "platform"} {
		name, ctx := owner+"/webhooks/mine", t.Context()
		message := owner + strings.TrimPrefix(d.GetName(), "tenants/acme")
		errs := map[string]error{}
		_, errs["get"] = a.GetWebhook(ctx, &configv1.GetWebhookRequest{Name: name})
		_, errs["update"] = a.UpdateWebhook(ctx, &configv1.UpdateWebhookRequest{Webhook: &configv1.Webhook{Name: name, Description: "x"}})
		_, errs["delete"] = a.DeleteWebhook(ctx, &configv1.DeleteWebhookRequest{Name: name})
		_, errs["rotate"] = a.RotateWebhookSecret(ctx, &configv1.RotateWebhookSecretRequest{Name: name})
		_, errs["test"] = a.TestWebhook(ctx, &configv1.TestWebhookRequest{Name: name})
		_, errs["deliveries"] = a.ListWebhookDeliveries(ctx, &configv1.ListWebhookDeliveriesRequest{Parent: name})
		_, errs["redeliver"] = a.RedeliverWebhook(ctx, &configv1.RedeliverWebhookRequest{Name: message})
		for what, err := range errs {
			refused(t, what+" of "+owner, err, codes.NotFound, "RESOURCE_NOT_FOUND")
		}
		listed, err := a.ListWebhooks(ctx, &configv1.ListWebhooksRequest{Parent: owner})
		if err != nil || len(listed.GetWebhooks()) > 0 {
			t.Errorf("%s lists %v, %v", owner, listed, err)
		}
	}
	other, _ := r.hook(a, to, "tenants/globex/webhooks/mine", &configv1.Webhook{})
	_, err = a.RedeliverWebhook(t.Context(), &configv1.RedeliverWebhookRequest{Name: other.GetName() + strings.TrimPrefix(d.GetName(), w.GetName())})
	refused(t, "acme's message by globex's webhook", err, codes.NotFound, "RESOURCE_NOT_FOUND")
	_, err = a.DeleteWebhook(t.Context(), &configv1.DeleteWebhookRequest{Name: w.GetName()})
	must(t, err)
	if n := len(r.deliveries(a, other.GetName())); n != 0 {
		t.Errorf("globex sees %d messages", n)
	}
}
