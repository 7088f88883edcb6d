package gateway_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/rowhouse-platform/rowhouse/internal/rule"
)

// described are the services of flagd's that a package of generated code describes, as a server would register them.
type described struct{ tb testing.TB }

func (d described) services() (all []protoreflect.ServiceDescriptor) {
	for _, name := range []protoreflect.FullName{"flagd.evaluation.v1.Service", "flagd.evaluation.v2.Service", "flagd.sync.v1.FlagSyncService"} {
		found, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
		if err != nil {
			d.tb.Fatal(err)
		}
		all = append(all, found.(protoreflect.ServiceDescriptor))
	}
	return all
}

// GetServiceInfo implements rule.Registrar.
func (d described) GetServiceInfo() map[string]grpc.ServiceInfo {
	out := map[string]grpc.ServiceInfo{}
	for _, s := range d.services() {
		var info grpc.ServiceInfo
		for i := range s.Methods().Len() {
			m := s.Methods().Get(i)
			info.Methods = append(info.Methods, grpc.MethodInfo{Name: string(m.Name()), IsServerStream: m.IsStreamingServer()})
		}
		out[string(s.FullName())] = info
	}
	return out
}

// Each method of flagd's protocols has its rule, and the table nothing else.
func TestFlagdMethodsHaveRules(t *testing.T) {
	t.Parallel()
	if err := rule.Check(described{t}, rule.Flagd()); err != nil {
		t.Error(err)
	}
	for full, entry := range rule.Flagd() {
		if !entry.Keyed || entry.Open {
			t.Errorf("%s needs no client key", full)
		}
	}
}

// callFlagd calls a method by Connect's protocol and returns the end of its first answer.
func (r *rig) callFlagd(c *http.Client, url, key, selector string, m protoreflect.MethodDescriptor) string {
	r.Helper()
	body, kind := `{}`, "application/json"
	if m.Input().Fields().ByName("flag_key") != nil {
		body = `{"flagKey":"a/mark"}`
	}
	if m.IsStreamingServer() {
		kind, body = "application/connect+json", string(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))))+body
	}
	q, err := http.NewRequestWithContext(r.Context(), http.MethodPost, url, strings.NewReader(body))
	r.need(err)
	q.Header.Set("Content-Type", kind)
	q.Header.Set("Authorization", "Bearer "+key)
	if selector != "" {
		q.Header.Set("Flagd-Selector", selector)
	}
	res, err := c.Do(q)
	r.need(err)
	defer func() { _ = res.Body.Close() }()
	if !m.IsStreamingServer() {
		b, err := io.ReadAll(res.Body)
		r.need(err)
		return string(b)
	}
	head := make([]byte, 5)
	if _, err := io.ReadFull(res.Body, head); err != nil {
		return err.Error()
	}
	message := make([]byte, binary.BigEndian.Uint32(head[1:]))
	_, err = io.ReadFull(res.Body, message)
	r.need(err)
	return string(message)
}

// No method of flagd's shows a tenant what is another's, by whichever key, host or selector.
func TestFlagdStaysWithItsTenant(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	keys := r.furnishFlags()
	r.serveControl()
	g := r.start()
	c := r.browser(g)
	r.served(c, "acme", keys["acme"])
	r.served(c, "globex", keys["globex"])
	methods := 0
	for _, service := range (described{t}).services() {
		for i := range service.Methods().Len() {
			m := service.Methods().Get(i)
			methods++
			path := "/" + string(service.FullName()) + "/" + string(m.Name())
			for _, host := range []string{"acme", "globex"} {
				for _, owner := range []string{"acme", "globex", "hooli"} {
					for _, selector := range []string{"", "flagSetId=acme", "flagSetId=globex", "flagSetId=hooli"} {
						got := r.callFlagd(c, "https://"+host+".localhost"+path, keys[owner], selector, m)
						good := owner == host && (selector == "" || selector == "flagSetId="+host)
						if denied := strings.Contains(got, `"permission_denied"`); denied == good || !good && strings.Contains(got, "of ") && !strings.Contains(got, "TENANT_MISMATCH") {
							t.Errorf("%s's key on %s's host with %q, %s: %s", owner, host, selector, m.FullName(), got)
						}
						for _, other := range []string{"acme", "globex", "hooli"} {
							if other != host && strings.Contains(got, `of `+other) {
								t.Errorf("%s's flags on %s's host by %s: %s", other, host, m.FullName(), got)
							}
						}
					}
				}
			}
			if got := r.callFlagd(c, "https://hooli.localhost"+path, keys["hooli"], "", m); !strings.Contains(got, `"permission_denied"`) {
				t.Errorf("a suspended tenant, %s: %s", m.FullName(), got)
			}
		}
	}
	if methods != len(rule.Flagd()) || methods < 16 {
		t.Errorf("%d methods were tried", methods)
	}
}

// Flagd's providers ping more often than gRPC's own servers let them.
func TestFlagdProvidersMayPing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.serveControl()
	g := r.start()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(r.ca.RootsPEM())
	conn, err := tls.Dial("tcp", g.https, &tls.Config{RootCAs: pool, ServerName: "acme.localhost", NextProtos: []string{"h2"}})
	r.need(err)
	defer func() { _ = conn.Close() }()
	r.need(conn.SetDeadline(time.Now().Add(20 * time.Second)))
	_, err = io.WriteString(conn, http2.ClientPreface)
	r.need(err)
	framer := http2.NewFramer(conn, conn)
	r.need(framer.WriteSettings())
	const pings = 100
	for acks := 0; acks < pings; {
		if acks%10 == 0 {
			for range 10 {
				r.need(framer.WritePing(false, [8]byte{1}))
			}
		}
		for before := acks; acks == before || acks%10 != 0; {
			frame, err := framer.ReadFrame()
			r.need(err)
			switch f := frame.(type) {
			case *http2.PingFrame:
				acks++
			case *http2.GoAwayFrame:
				t.Fatalf("sent away after %d pings: %v", acks, f.ErrCode)
			}
		}
	}
}
