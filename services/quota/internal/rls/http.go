package rls

import (
	"io"
	"net/http"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
)

var errPanicked = fault.New(fault.Internal, fault.ReasonInternal, "the decision failed")

func badRequest(err error) error {
	return fault.New(fault.InvalidArgument, fault.ReasonInvalidField, "the request cannot be read").WithCause(err)
}

// healthcheck tells balancers, and whoever asks, whether calls can be answered.
func (s *Server) healthcheck(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if s.cfg.Ready() != nil {
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, "not ready\n")
		return
	}
	_, _ = io.WriteString(w, "OK")
}

// json answers a RateLimitRequest in JSON: 200, or 429 when it is over a limit.
func (s *Server) json(w http.ResponseWriter, r *http.Request) {
	id, ok := identity.FromTLS(r.TLS)
	p := s.peers[id]
	if !ok || p == nil {
		http.Error(w, "no peer of rate_limit", http.StatusForbidden)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if err != nil {
		http.Error(w, "the body cannot be read", http.StatusBadRequest)
		return
	}
	in := new(rlsv3.RateLimitRequest)
	if err := protojson.Unmarshal(body, in); err != nil {
		http.Error(w, "the body is no RateLimitRequest in JSON", http.StatusBadRequest)
		return
	}
	out, err := s.judge(r, p, in)
	if err != nil {
		http.Error(w, messageOf(err), statusOf(err))
		return
	}
	text, err := protojson.Marshal(out)
	if err != nil {
		http.Error(w, "the answer cannot be written", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if out.GetOverallCode() == rlsv3.RateLimitResponse_OVER_LIMIT {
		w.WriteHeader(http.StatusTooManyRequests)
	}
	_, _ = w.Write(text) //nolint:gosec // JSON that says so
}

// judge answers by the same way as gRPC.
func (s *Server) judge(r *http.Request, p *Peer, in *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
	f := s.frames.take()
	defer s.frames.give(f)
	var err error
	if f.bytes, err = (proto.MarshalOptions{}).MarshalAppend(f.bytes[:0], in); err != nil {
		return nil, badRequest(err)
	}
	if err := s.answer(r.Context(), p, f); err != nil {
		return nil, err
	}
	b, err := f.d.answer.append(nil)
	if err != nil {
		return nil, err
	}
	out := new(rlsv3.RateLimitResponse)
	return out, proto.Unmarshal(b, out)
}

// statusOf is the HTTP status of an error: 400 for what is wrong with the request, 403 for what the peer may not, and
// else 500, whatever it is.
func statusOf(err error) int {
	switch fault.KindOf(err) {
	case fault.InvalidArgument:
		return http.StatusBadRequest
	case fault.PermissionDenied:
		return http.StatusForbidden
	default:
		return http.StatusInternalServerError
	}
}

// messageOf is what a caller may be told.
func messageOf(err error) string {
	if f, ok := fault.As(err); ok {
		return f.Message
	}
	return "the request could not be judged"
}
