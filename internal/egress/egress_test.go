package egress_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rowhouse-platform/rowhouse/internal/egress"
)

// answers is a resolver that gives one answer after the other, the last for ever.
type answers struct {
	asked atomic.Int64
	list  [][]string
}

func (a *answers) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if !strings.HasSuffix(host, ".") {
		return nil, &net.DNSError{Err: "not absolute", Name: host}
	}
	n := int(a.asked.Add(1)) - 1
	var found []netip.Addr
	for _, text := range a.list[min(n, len(a.list)-1)] {
		found = append(found, netip.MustParseAddr(text))
	}
	return found, nil
}

// refusedAs are addresses with the class that refuses them.
var refusedAs = map[string]egress.Class{
	"0.0.0.0": egress.Unspecified, "0.1.2.3": egress.Unspecified, "127.0.0.1": egress.Loopback, "127.255.255.254": egress.Loopback,
	"169.254.169.254": egress.LinkLocal, "10.0.0.1": egress.Private, "172.16.0.1": egress.Private, "172.31.255.255": egress.Private,
	"192.168.1.1": egress.Private, "100.64.0.1": egress.SharedSpace, "100.127.255.255": egress.SharedSpace, "192.0.0.1": egress.Reserved,
	"192.0.2.1": egress.Documentation, "198.51.100.7": egress.Documentation, "203.0.113.9": egress.Documentation,
	"198.18.0.1": egress.Benchmarking, "198.19.255.255": egress.Benchmarking, "224.0.0.1": egress.Multicast, "239.1.1.1": egress.Multicast,
	"240.0.0.1": egress.Reserved, "255.255.255.255": egress.Reserved, "192.88.99.1": egress.Transition,
	"::": egress.Unspecified, "::1": egress.Loopback, "::2": egress.Transition, "::7f00:1": egress.Transition,
	"::ffff:0:7f00:1": egress.Transition, "fe80::1": egress.LinkLocal, "fec0::1": egress.Private, "fc00::1": egress.Private,
	"fd12:3456::1": egress.Private, "ff02::1": egress.Multicast, "64:ff9b::7f00:1": egress.Transition, "64:ff9b:1::a00:1": egress.Transition,
	"2001:db8::1": egress.Documentation, "3fff::1": egress.Documentation, "2002:7f00:1::": egress.Transition, "2001::1": egress.Transition,
	"2001:2::1": egress.Benchmarking, "2001:10::1": egress.Reserved, "100::1": egress.Reserved, "4000::1": egress.Reserved,
	"5f00::1": egress.Reserved, "::ffff:127.0.0.1": egress.Loopback, "::ffff:169.254.169.254": egress.LinkLocal,
	"::ffff:10.0.0.1": egress.Private,
}

func TestEveryClassOfAddressIsRefused(t *testing.T) {
	t.Parallel()
	for address, class := range refusedAs {
		a := netip.MustParseAddr(address)
		urls := map[string]string{"literal": "https://" + a.String() + "/x"}
		if a.Is6() {
			urls["literal"] = "https://[" + a.String() + "]/x"
			urls["long"] = "https://[" + a.StringExpanded() + "]/x"
		} else {
			b := a.As4()
			urls["mapped"] = "https://[::ffff:" + a.String() + "]/x"
			urls["mapped in hex"] = fmt.Sprintf("https://[::ffff:%02x%02x:%02x%02x]:8443/x", b[0], b[1], b[2], b[3])
		}
		for spelling, url := range urls {
			if got := egress.ClassOf(egress.New(egress.Config{}).CheckURL(url)); got != class {
				t.Errorf("%s, %s: %s, want %s", url, spelling, got, class)
			}
		}
		c := egress.New(egress.Config{Resolver: &answers{list: [][]string{{"9.9.9.9", address}}}})
		_, err := c.Post(t.Context(), "https://hooks.acme.dev/x", nil, nil)
		if got := egress.ClassOf(err); got != class || err == nil || strings.Contains(err.Error(), address) {
			t.Errorf("a name with %s: %v, want %s", address, err, class)
		}
	}
	for _, public := range []string{"1.1.1.1", "[2606:4700::1111]", "172.32.0.1", "100.128.0.1", "a.dev"} {
		if err := egress.New(egress.Config{}).CheckURL("https://" + public); err != nil {
			t.Errorf("%s: %v", public, err)
		}
	}
}

func TestURLsThatAreRefused(t *testing.T) {
	t.Parallel()
	c := egress.New(egress.Config{DenyNames: []string{"rowhouse.example.dev"}})
	for url, class := range map[string]egress.Class{
		"http://a.dev/": egress.BadURL, "ftp://a.dev/": egress.BadURL, "https://u@a.dev/": egress.BadURL, "https://u:p@a.dev/": egress.BadURL,
		"https://a.dev:22/": egress.BadURL, "https://a.dev:/": egress.BadURL, "https://a.dev/#f": egress.BadURL, "https:a.dev": egress.BadURL,
		"//a.dev/": egress.BadURL, "": egress.BadURL, "https://a.dev/" + strings.Repeat("x", 2048): egress.BadURL, "https://": egress.BadURL,
		"https://localhost/": egress.BadName, "https://a.localhost/": egress.BadName, "https://LOCALHOST./": egress.BadName,
		"https://db/": egress.BadName, "https://metadata.google.internal/": egress.BadName, "https://x.local/": egress.BadName,
		"https://2130706433/": egress.BadName, "https://0x7f000001/": egress.BadName, "https://127.1/": egress.BadName,
		"https://0177.0.0.1/": egress.BadName, "https://127.0.0.1./": egress.BadName, "https://0x7f.1/": egress.BadName,
		"https://①②⑦.0.0.1/": egress.BadName, "https://a..dev/": egress.BadName, "https://.dev/": egress.BadName,
		"https://api.rowhouse.example.dev/": egress.BadName, "https://Rowhouse.Example.dev/": egress.BadName,
		"https://[fe80::1%25eth0]/": egress.Reserved,
	} {
		if err := c.CheckURL(url); err == nil || egress.ClassOf(err) != class {
			t.Errorf("%q: %v, want %s", url, err, class)
		}
		if _, err := c.Post(t.Context(), url, nil, nil); err == nil || egress.ClassOf(err) != class {
			t.Errorf("post to %q: %v, want %s", url, err, class)
		}
	}
}

func TestOwnNetworksAreRefusedBeforeWhatIsAllowed(t *testing.T) {
	t.Parallel()
	c := egress.New(egress.Config{
		Deny:  []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("8.8.8.0/24")},
		Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
	})
	for url, class := range map[string]egress.Class{"https://10.1.2.3": egress.Own, "https://8.8.8.8": egress.Own, "https://11.0.0.1": "",
		"https://10.2.0.1": "", "https://192.168.0.1": egress.Private} {
		if err := c.CheckURL(url); (err == nil) != (class == "") || err != nil && egress.ClassOf(err) != class {
			t.Errorf("%s: %v, want %q", url, err, class)
		}
	}
}

// What operators write as they like is refused in every spelling.
func TestOwnNamesInAnySpelling(t *testing.T) {
	t.Parallel()
	c := egress.New(egress.Config{
		DenyNames:  []string{"Corp.Example.com", "corp2.example.com.", ".corp3.example.com", "..", ""},
		Deny:       []netip.Prefix{netip.MustParsePrefix("::ffff:8.8.8.0/120"), netip.MustParsePrefix("2606:4700::/32")},
		AllowNames: []string{".Lab.Internal."}, Allow: []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")},
	})
	for url, class := range map[string]egress.Class{
		"https://vault.corp.example.com/": egress.BadName, "https://corp.example.com./": egress.BadName, "https://CORP2.example.com": egress.BadName,
		"https://a.corp3.example.com": egress.BadName, "https://8.8.8.8": egress.Own, "https://[::ffff:8.8.8.8]": egress.Own,
		"https://[2606:4700::1]": egress.Own, "https://8.8.9.8": "", "https://notcorp.example.com": "", "https://example.com": "",
		"https://a.lab.internal": "", "https://10.1.2.3": "", "https://11.1.2.3": "",
	} {
		if err := c.CheckURL(url); (err == nil) != (class == "") || err != nil && egress.ClassOf(err) != class {
			t.Errorf("%s: %v, want %q", url, err, class)
		}
	}
}

// receiver is an https server on loopback, with a client that may call it as hooks.acme.dev.
func receiver(t *testing.T, handler http.HandlerFunc, cfg egress.Config) (*egress.Client, string) {
	t.Helper()
	s := httptest.NewTLSServer(handler)
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	cfg.Roots = x509.NewCertPool()
	cfg.Roots.AddCert(s.Certificate())
	cfg.Ports = []string{port}
	if cfg.Allow == nil {
		cfg.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	}
	if cfg.Resolver == nil {
		cfg.Resolver = &answers{list: [][]string{{"127.0.0.1"}}}
	}
	return egress.New(cfg), "https://example.com:" + port // the name in httptest's certificate
}

func TestANameThatIsRebound(t *testing.T) {
	t.Parallel()
	var served atomic.Int64
	// The name is public when it is first asked for, and ours a moment later.
	resolver := &answers{list: [][]string{{"192.0.2.1"}, {"127.0.0.1"}}}
	c, url := receiver(t, func(http.ResponseWriter, *http.Request) { served.Add(1) }, egress.Config{
		Resolver: resolver, Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, Timeout: 300 * time.Millisecond,
	})
	if _, err := c.Post(t.Context(), url, nil, nil); err == nil {
		t.Error("a documentation address answered")
	}
	if asked := resolver.asked.Load(); asked != 1 {
		t.Errorf("one call asked the resolver %d times: the address that was checked is not the one that is dialled", asked)
	}
	if _, err := c.Post(t.Context(), url, nil, nil); egress.ClassOf(err) != egress.Loopback {
		t.Errorf("the second call: %v, want %s", err, egress.Loopback)
	}
	if served.Load() != 0 {
		t.Error("the private server was called")
	}
}

func TestTheSocketsAddressIsCheckedAgain(t *testing.T) {
	t.Parallel()
	c := egress.New(egress.Config{})
	for address, class := range map[string]egress.Class{
		"127.0.0.1:443": egress.Loopback, "[::ffff:10.0.0.1]:443": egress.Private, "[fe80::1%lo]:443": egress.Reserved,
		"example.com:443": egress.Reserved, "1.1.1.1:443": "",
	} {
		if err := egress.Control(c, t.Context(), address); (err == nil) != (class == "") || err != nil && egress.ClassOf(err) != class {
			t.Errorf("%s: %v, want %q", address, err, class)
		}
	}
}

func TestNoRedirectIsFollowed(t *testing.T) {
	t.Parallel()
	var served atomic.Int64
	c, url := receiver(t, func(w http.ResponseWriter, r *http.Request) {
		if served.Add(1); r.URL.Path != "/" {
			t.Errorf("%s was called", r.URL)
		}
		w.Header().Set("Location", "https://169.254.169.254/latest/meta-data")
		w.WriteHeader(http.StatusTemporaryRedirect)
	}, egress.Config{})
	answer, err := c.Post(t.Context(), url+"/", nil, []byte("x"))
	if err != nil || answer.Status != http.StatusTemporaryRedirect || served.Load() != 1 {
		t.Errorf("a redirect: %+v, %v, %d calls", answer, err, served.Load())
	}
}

func TestAnAnswerIsBounded(t *testing.T) {
	t.Parallel()
	c, url := receiver(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/headers" {
			w.Header().Set("X", strings.Repeat("x", 1<<20))
		}
		_, _ = w.Write(make([]byte, 1<<20))
	}, egress.Config{})
	answer, err := c.Post(t.Context(), url, nil, nil)
	if err != nil || len(answer.Body) != 4096 || !answer.Truncated {
		t.Errorf("a large body: %v", err)
	}
	if _, err := c.Post(t.Context(), url+"/headers", nil, nil); err == nil || egress.ClassOf(err) != egress.BadAnswer {
		t.Errorf("large headers: %v, want %s", err, egress.BadAnswer)
	}
}

func TestASlowAnswerIsLeft(t *testing.T) {
	t.Parallel()
	for name, part := range map[string]string{"nothing comes": "", "half a body": "half"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, url := receiver(t, func(w http.ResponseWriter, r *http.Request) {
				if part != "" {
					_, _ = w.Write([]byte(part))
					_ = http.NewResponseController(w).Flush()
				}
				<-r.Context().Done()
			}, egress.Config{Timeout: 200 * time.Millisecond})
			if _, err := c.Post(t.Context(), url, nil, nil); err == nil || egress.ClassOf(err) != egress.Timeout {
				t.Errorf("%v, want %s", err, egress.Timeout)
			}
		})
	}
}

func TestAServerNeedsACertificate(t *testing.T) {
	t.Parallel()
	c, url := receiver(t, func(http.ResponseWriter, *http.Request) {}, egress.Config{})
	if _, err := c.Post(t.Context(), strings.Replace(url, "example.com", "other.dev", 1), nil, nil); egress.ClassOf(err) != egress.BadTLS {
		t.Errorf("another name: %v, want %s", err, egress.BadTLS)
	}
}

func TestNoConnectionIsKept(t *testing.T) {
	t.Parallel()
	seen := make(chan string, 2)
	c, url := receiver(t, func(_ http.ResponseWriter, r *http.Request) { seen <- r.RemoteAddr }, egress.Config{})
	for range 2 {
		if _, err := c.Post(t.Context(), url, http.Header{"Webhook-Id": {"1"}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if first, second := <-seen, <-seen; first == second {
		t.Errorf("both calls came from %s", first)
	}
}

// No proxy of the environment is used: httptest's server is called although one is set that leads nowhere. The
// environment is the process's, so this test runs alone.
func TestNoProxyOfTheEnvironment(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	c, url := receiver(t, func(http.ResponseWriter, *http.Request) {}, egress.Config{})
	if _, err := c.Post(t.Context(), url, nil, nil); err != nil {
		t.Error(err)
	}
}

func TestTheTimeoutCoversTheLookUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := egress.New(egress.Config{Resolver: hanging{}})
		defer synctest.Wait()
		start := time.Now()
		_, err := c.Post(t.Context(), "https://hooks.acme.dev", nil, nil)
		if took := time.Since(start); egress.ClassOf(err) != egress.Timeout || took != 10*time.Second {
			t.Errorf("%v after %s", err, strconv.Quote(took.String()))
		}
	})
}

type hanging struct{}

func (hanging) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}
