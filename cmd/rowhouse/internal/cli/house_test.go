package cli

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// answer is what a service says to a request.
type answer func(ctx context.Context, request proto.Message) (proto.Message, error)

// sent is one call that arrived.
type sent struct {
	service, method string
	request         proto.Message
	header          metadata.MD
}

// json is the request as compact JSON.
func (s sent) json(t *testing.T) string {
	t.Helper()
	b, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(s.request)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := json.Compact(&out, b); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// house stands for the services of an installation: real gRPC over memory, answers from the test. A method without an
// answer gives its empty response.
type house struct {
	answers  map[string]answer // by "TenantService/GetTenant"
	terminal bool
	env      map[string]string
	stdin    string
	out      io.Writer // in the place of the result's
	contexts string    // a contexts file

	mu   sync.Mutex
	sent []sent
	ids  uint64
}

// result is what a command line did.
type result struct {
	code     int
	out, err string
}

// run runs a command line the way that main does.
func (h *house) run(t *testing.T, args ...string) result {
	t.Helper()
	return h.runIn(t.Context(), t, args...)
}

func (h *house) runIn(ctx context.Context, t *testing.T, args ...string) result {
	t.Helper()
	root := &cobra.Command{Use: "rowhouse", SilenceErrors: true, SilenceUsage: true}
	a := &app{
		dial: h.dialer(t), id: h.id, now: time.Now,
		terminal: func(any) bool { return h.terminal },
		getenv:   func(name string) string { return h.env[name] },
	}
	a.addTo(root)
	if h.contexts != "" {
		args = append([]string{"--contexts", h.contexts}, args...)
	}
	var out, errOut bytes.Buffer
	root.SetArgs(args)
	root.SetIn(strings.NewReader(h.stdin))
	root.SetOut(&out)
	if h.out != nil {
		root.SetOut(h.out)
	}
	root.SetErr(&errOut)
	err := root.ExecuteContext(ctx)
	if err != nil {
		errOut.WriteString("rowhouse: " + Line(err) + "\n")
	}
	return result{ExitCode(err, 1), out.String(), errOut.String()}
}

// id counts, so that requests are the same in each run.
func (h *house) id() uuid.UUID {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ids++
	var id uuid.UUID
	binary.BigEndian.PutUint64(id[8:], h.ids)
	id[6], id[8] = 0x40, 0x80
	return id
}

// requestID is the id that the first call of a fresh house gets.
const requestID = "00000000-0000-4000-8000-000000000001"

// calls are the calls that arrived so far.
func (h *house) calls() []sent {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]sent(nil), h.sent...)
}

// dialer returns what connects to a service of the house.
func (h *house) dialer(t *testing.T) func(string) (*grpc.ClientConn, error) {
	t.Helper()
	listeners := map[string]*bufconn.Listener{}
	for _, service := range backends() {
		l := bufconn.Listen(1 << 16)
		server := grpc.NewServer(grpc.UnknownServiceHandler(h.serve(service)))
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = server.Serve(l)
		}()
		t.Cleanup(func() { server.Stop(); <-done })
		listeners[service] = l
	}
	return func(service string) (*grpc.ClientConn, error) {
		l, ok := listeners[service]
		if !ok {
			return nil, errors.New("no service " + service)
		}
		dial := func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }
		return grpc.NewClient("passthrough:///house", grpc.WithContextDialer(dial), grpc.WithTransportCredentials(insecure.NewCredentials()))
	}
}

// serve answers the calls that a service gets.
func (h *house) serve(service string) grpc.StreamHandler {
	return func(_ any, stream grpc.ServerStream) error {
		path, _ := grpc.MethodFromServerStream(stream)
		m, err := findMethod(path)
		if err != nil {
			return err
		}
		request := message(m.Input())
		if err := stream.RecvMsg(request); err != nil {
			return err
		}
		header, _ := metadata.FromIncomingContext(stream.Context())
		h.mu.Lock()
		h.sent = append(h.sent, sent{service, shortName(m), request, header})
		reply := h.answers[shortName(m)]
		h.mu.Unlock()
		response := message(m.Output())
		if reply != nil {
			if response, err = reply(stream.Context(), request); err != nil {
				return err
			}
		}
		return stream.SendMsg(response)
	}
}

// always answers the same.
func always(m proto.Message) answer {
	return func(context.Context, proto.Message) (proto.Message, error) { return m, nil }
}

// refuse answers with an error.
func refuse(err error) answer {
	return func(context.Context, proto.Message) (proto.Message, error) { return nil, err }
}
