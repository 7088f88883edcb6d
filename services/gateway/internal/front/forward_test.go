package front_test

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/gateway/internal/token"
)

func noTokens(t testing.TB) *token.Verifier {
	t.Helper()
	v, err := token.New(nil, time.Now)
	need(t, err)
	return v
}

// spellings of fields that only we may set, for what a careless server could take
// them for.
func spellings() []string {
	var all []string
	for _, name := range []string{
		"rowhouse-tenant-bin", "rowhouse-request-id", "rowhouse-anything", "x-rowhouse-tenant", "x-tenant-id", "x-tenant", "x-scope-orgid",
		"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-prefix", "x-forwarded-client-cert", "x-real-ip",
		"x-original-url", "x-envoy-external-address", "forwarded", "grpc-status", "grpc-message", "grpc-tags-bin", "traceparent", "tracestate", "baggage",
	} {
		all = append(all, name, strings.ToUpper(name), strings.ReplaceAll(name, "-", "_"), strings.ReplaceAll(name, "-", "."))
		if first, rest, ok := strings.Cut(name, "-"); ok {
			all = append(all, first+"_"+rest, http.CanonicalHeaderKey(first)+"."+rest, first+"~"+rest)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

const forged = "forged"

// checkOurs checks that what the app got under our names is ours alone.
func checkOurs(t *testing.T, what string, h http.Header) {
	t.Helper()
	for name, values := range h {
		for _, v := range values {
			if strings.Contains(v, forged) {
				t.Errorf("%s: the app got %s: %s", what, name, v)
			}
		}
	}
	if got := names(h, "rowhouse-tenant-bin"); !slices.Equal(got, []string{"Rowhouse-Tenant-Bin"}) || len(h["Rowhouse-Tenant-Bin"]) != 1 {
		t.Errorf("%s: the app got the fields %v: %v", what, got, h["Rowhouse-Tenant-Bin"])
	}
	for _, name := range []string{"Rowhouse-Request-Id", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if len(h[name]) != 1 {
			t.Errorf("%s: %s is %v", what, name, h[name])
		}
	}
}

func TestHygieneHTTP2(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	client := s.client(h2TLS, "")
	for _, name := range spellings() {
		a := s.ask(client, http.MethodGet, "https://acme.localhost/", http.Header{name: {forged, forged}, "Kept": {"yes"}})
		if a.status != http.StatusOK || a.said.Tenant != "acme" || a.said.Header.Get("Kept") != "yes" {
			t.Fatalf("%s: %d %+v", name, a.status, a.problem)
		}
		checkOurs(t, name, a.said.Header)
	}
	// Names that some servers read as others do not pass at all.
	a := s.ask(client, http.MethodGet, "https://acme.localhost/", http.Header{
		"user_id": {forged}, "user.id": {forged}, "grpc_timeout": {forged}, "grpc-previous-rpc-attempts": {forged}, "grpc-timeout": {"1S"}, "X-Customer": {"acme"},
	})
	checkOurs(t, "odd names", a.said.Header)
	if a.said.Header.Get("Grpc-Timeout") != "1S" || a.said.Header.Get("X-Customer") != "" {
		t.Errorf("the app got %v", a.said.Header)
	}
	a = s.ask(client, http.MethodGet, "https://acme.localhost/", nil)
	if a.said.Header.Get("X-Forwarded-Proto") != "https" || a.said.Header.Get("X-Forwarded-Host") != "acme.localhost" || a.said.Header.Get("X-Forwarded-For") != "127.0.0.1" {
		t.Errorf("%v", a.said.Header)
	}
	if got := names(a.header, "rowhouse"); !slices.Equal(got, []string{"Rowhouse-Request-Id"}) || a.header.Get("Server") != "" {
		t.Errorf("the answer has %v", a.header)
	}
	if a.header.Get("Rowhouse-Request-Id") != a.said.Header.Get("Rowhouse-Request-Id") {
		t.Error("client and app hear of two request ids")
	}
}

// raw sends bytes over TLS and reads one answer.
func (s *street) raw(request string) answer {
	s.Helper()
	conn, err := tls.Dial("tcp", s.secure, &tls.Config{RootCAs: s.roots(), ServerName: "acme.localhost", NextProtos: []string{"http/1.1"}})
	need(s, err)
	defer func() { _ = conn.Close() }()
	_, err = io.WriteString(conn, request)
	need(s, err)
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	need(s, err)
	return s.read(res)
}

func TestHygieneHTTP1(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	for _, name := range spellings() {
		a := s.raw("GET / HTTP/1.1\r\nHost: acme.localhost\r\n" + name + ": " + forged + "\r\n" + name + ":" + forged + "\r\n\r\n")
		if a.status != http.StatusOK {
			t.Fatalf("%s: %d %s", name, a.status, a.body)
		}
		checkOurs(t, name, a.said.Header)
	}
}

func TestHygieneGRPC(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	conn := s.dial("acme.localhost", true)
	for _, name := range spellings() {
		if strings.HasPrefix(name, "grpc") || strings.Contains(name, "~") || name != strings.ToLower(name) {
			continue // the client itself refuses them
		}
		told, err := s.invoke(conn, tell, name, forged, name, forged)
		if err != nil || told.Tenant != "acme" {
			t.Fatalf("%s: %v", name, err)
		}
		for key, values := range told.Metadata {
			if slices.Contains(values, forged) {
				t.Errorf("%s: the app got %s: %v", name, key, values)
			}
		}
		if n := len(told.Metadata.Get(tenant.MetadataKey)); n != 1 {
			t.Errorf("%s: %d contexts", name, n)
		}
	}
}

// A field that Connection names concerns one hop only: ours must not vanish by it.
func TestConnectionNames(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	for _, name := range []string{
		"Rowhouse-Tenant-Bin", "rowhouse-tenant-bin", "rowhouse_tenant_bin", "Rowhouse-Request-Id", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto",
	} {
		a := s.raw("GET / HTTP/1.1\r\nHost: acme.localhost\r\nConnection: close, " + name + "\r\n" + name + ": " + forged + "\r\nMood: good\r\n\r\n")
		if a.status != http.StatusOK || a.said.Header.Get("Mood") != "good" {
			t.Fatalf("%s: %d %s", name, a.status, a.body)
		}
		checkOurs(t, name, a.said.Header)
	}
	a := s.raw("GET / HTTP/1.1\r\nHost: acme.localhost\r\nConnection: mood\r\nMood: good\r\nKeep-Alive: x\r\nTE: gzip\r\nProxy-Authorization: x\r\n\r\n")
	for _, name := range []string{"Mood", "Keep-Alive", "Te", "Proxy-Authorization", "Connection"} {
		if a.said.Header.Get(name) != "" {
			t.Errorf("the app got %s", name)
		}
	}
	for _, name := range []string{"Content-Length", "transfer-encoding", "host", "Authorization", "cookie"} {
		before := s.app.asked.Load()
		if a := s.raw("GET / HTTP/1.1\r\nHost: acme.localhost\r\nConnection: " + name + "\r\n\r\n"); a.status != 400 || s.app.asked.Load() != before {
			t.Errorf("Connection: %s: %d", name, a.status)
		}
	}
}

// Trailers of a client end at the front door.
func TestTrailersOfClients(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	a := s.raw("POST / HTTP/1.1\r\nHost: acme.localhost\r\nTransfer-Encoding: chunked\r\nTrailer: Rowhouse-Tenant-Bin, Mood\r\n\r\n" +
		"5\r\nhello\r\n0\r\nRowhouse-Tenant-Bin: " + forged + "\r\nMood: " + forged + "\r\n\r\n")
	if a.status != 200 || a.said.Body != "hello" || len(a.said.Trailer) != 0 {
		t.Errorf("%d %+v", a.status, a.said)
	}
	checkOurs(t, "trailers", a.said.Header)
}

func TestRequestsAreOne(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	for name, request := range map[string]string{
		"two hosts":          "GET / HTTP/1.1\r\nHost: acme.localhost\r\nHost: globex.localhost\r\n\r\n",
		"no host":            "GET / HTTP/1.1\r\n\r\n",
		"space before colon": "GET / HTTP/1.1\r\nHost: acme.localhost\r\nRowhouse-Tenant-Bin : x\r\n\r\n",
		"asterisk":           "OPTIONS * HTTP/1.1\r\nHost: acme.localhost\r\n\r\n",
		"two lengths":        "POST / HTTP/1.1\r\nHost: acme.localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
	} {
		if a := s.raw(request); a.status != 400 && name != "asterisk" || s.app.asked.Load() != 0 {
			t.Errorf("%s: %d, app asked %d times", name, a.status, s.app.asked.Load())
		}
	}
}

// What the app is given is a context for this tenant, this app and us.
func TestContextIsForTheApp(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	a := s.get(h1, "acme.localhost", "/", bearer(s.jwt("acme")))
	b, err := base64.StdEncoding.DecodeString(a.said.Header.Get("Rowhouse-Tenant-Bin"))
	need(t, err)
	tc, err := s.issuer.Verifier(t).Verify(string(b), s.issuer.Gateway())
	need(t, err)
	if tc.ID().String() != "acme" || tc.PrincipalDigest() != tenant.PrincipalDigest("https://users.test", "ada") || len(b) > 384 {
		t.Errorf("%v of %d bytes", tc.ID(), len(b))
	}
	_, err = s.issuer.Verifier(t, func(c *tenant.VerifierConfig) { c.Audience = tenant.AudienceApp(17) }).Verify(string(b), s.issuer.Gateway())
	if err == nil {
		t.Error("another app accepts it")
	}
}

// Bodies pass as they come, both ways; nothing waits for their end.
func TestBodiesAreStreamed(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	for i, way := range ways() {
		got, path := make(chan string), fmt.Sprintf("/stream/%d", i)
		s.app.on(path, func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).EnableFullDuplex()
			buf := make([]byte, 100)
			for {
				n, err := r.Body.Read(buf)
				if n > 0 {
					got <- string(buf[:n])
				}
				if err != nil {
					break
				}
			}
			for _, word := range []string{"one", "two"} {
				_, _ = io.WriteString(w, word)
				_ = http.NewResponseController(w).Flush()
				got <- "" // goes on when the client has read
			}
		})
		body, feed := io.Pipe()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, origin(way, "acme.localhost")+path, body)
		need(t, err)
		answered := make(chan *http.Response, 1)
		go func() {
			res, err := s.client(way, "").Do(r)
			if err != nil {
				t.Error(err)
				close(answered)
				return
			}
			answered <- res
		}()
		for _, word := range []string{"first", "second"} {
			_, err := io.WriteString(feed, word)
			need(t, err)
			if w := <-got; w != word {
				t.Errorf("%s: the app got %q", way, w)
			}
		}
		need(t, feed.Close())
		res := <-answered
		if res == nil {
			return
		}
		buf := make([]byte, 100)
		for _, word := range []string{"one", "two"} {
			n, err := res.Body.Read(buf)
			if string(buf[:n]) != word || err != nil && !errors.Is(err, io.EOF) {
				t.Errorf("%s: read %q, %v", way, buf[:n], err)
			}
			<-got
		}
		_ = res.Body.Close()
	}
}

func TestAppIsUnderATenantsPath(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	for name, tc := range map[string]struct{ location, want string }{
		"path":                {"/login?next=%2Fx", "/t/acme/login?next=%2Fx"},
		"root":                {"/", "/t/acme/"},
		"escaped":             {"/a%20b", "/t/acme/a%20b"},
		"already":             {"/t/acme/login", "/t/acme/login"},
		"already, the root":   {"/t/acme", "/t/acme"},
		"a longer name":       {"/t/acmes", "/t/acme/t/acmes"},
		"relative":            {"login", "login"},
		"same host":           {"https://" + shared + "/login#x", "https://" + shared + "/t/acme/login#x"},
		"same host with port": {"https://" + shared + ":8443/login", "https://" + shared + ":8443/t/acme/login"},
		"another host":        {"https://idp.example/login", "https://idp.example/login"},
		"another host, short": {"//idp.example/login", "//idp.example/login"},
	} {
		s.app.on("/go", func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Location"] = []string{tc.location}
			w.WriteHeader(http.StatusFound)
		})
		if a := s.get(h2TLS, shared, "/t/acme/go", nil); a.status != 302 || a.header.Get("Location") != tc.want {
			t.Errorf("%s: %d %q, want %q", name, a.status, a.header.Get("Location"), tc.want)
		}
		// On its own host there is nothing to put back.
		if a := s.get(h2TLS, "acme.localhost", "/go", nil); a.header.Get("Location") != tc.location {
			t.Errorf("%s on the tenant's host: %q", name, a.header.Get("Location"))
		}
	}
	for cookie, want := range map[string]string{
		"a=b":                                "a=b; Path=/t/acme",
		"a=b; Path=/; HttpOnly; Secure":      "a=b; HttpOnly; Secure; Path=/t/acme",
		"a=b; path=/x/; Domain=.localhost":   "a=b; Path=/t/acme/x",
		"a=b; Path=/t/acme/x; SameSite=None": "a=b; SameSite=None; Path=/t/acme/x",
		"a=b; Path=/t/acmes":                 "a=b; Path=/t/acme/t/acmes",
		"a=b;Domain=rowhouse.localhost;":     "a=b; Path=/t/acme",
	} {
		s.app.on("/cookie", func(w http.ResponseWriter, _ *http.Request) { w.Header()["Set-Cookie"] = []string{cookie, cookie} })
		if a := s.get(h1, shared, "/t/acme/cookie", nil); !slices.Equal(a.header["Set-Cookie"], []string{want, want}) {
			t.Errorf("%q became %q, want %q", cookie, a.header["Set-Cookie"], want)
		}
		if a := s.get(h1, "acme.localhost", "/cookie", nil); a.header.Get("Set-Cookie") != cookie {
			t.Errorf("on the tenant's host %q became %q", cookie, a.header.Get("Set-Cookie"))
		}
	}
	if a := s.get(h1, shared, "/t/acme/n", nil); a.said.Header.Get("X-Forwarded-Prefix") != "/t/acme" || a.said.Header.Get("X-Forwarded-Proto") != "http" {
		t.Errorf("%v", a.said.Header)
	}
}

// A client that goes away is told to the app.
func TestClientGoesAway(t *testing.T) {
	t.Parallel()
	s := newStreet(t)
	entered, left := make(chan struct{}), make(chan struct{})
	s.app.on("/waits", func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
		close(left)
	})
	conn, err := net.Dial("tcp", s.plain)
	need(t, err)
	_, err = io.WriteString(conn, "GET /waits HTTP/1.1\r\nHost: acme.localhost\r\n\r\n")
	need(t, err)
	<-entered
	need(t, conn.Close())
	<-left
}
