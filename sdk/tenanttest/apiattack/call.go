package apiattack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/canary"
)

// answer is all that came back of a call.
type answer struct {
	messages []proto.Message
	status   *status.Status
	header   metadata.MD
	trailer  metadata.MD
	open     bool // a stream that fell quiet, and was left
	took     time.Duration
}

func (a answer) ok() bool { return a.status.Code() == codes.OK }

// bytes is the answer as one text, to look for canaries in.
func (a answer) bytes() []byte {
	text := canary.AnswerBytes(a.status.Err(), a.header, a.trailer, nil)
	for _, m := range a.messages {
		text = append(text, canary.AnswerBytes(nil, nil, nil, m)...)
	}
	return text
}

// call makes one call as a party. The error says that it could not be made at all.
func (r *run) call(ctx context.Context, p Party, m *method, requests ...proto.Message) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, r.Deadline)
	defer cancel()
	if p.In != nil {
		var first proto.Message
		if len(requests) > 0 {
			first = requests[0]
		}
		signed, err := p.In(ctx, m.full, first)
		if err != nil {
			return answer{}, fmt.Errorf("the party's context for %s: %w", m.full, err)
		}
		ctx = signed
	}
	r.calls.Add(1)
	if m.streams() {
		return r.stream(ctx, p, m, requests, nil), nil
	}
	a := answer{}
	out := newMessage(m.Output())
	start := time.Now()
	err := p.Conn.Invoke(ctx, m.full, requests[0], out, grpc.Header(&a.header), grpc.Trailer(&a.trailer))
	a.took = time.Since(start)
	if a.status = status.Convert(err); err == nil {
		a.messages = []proto.Message{out}
	}
	return a, nil
}

// maxMessages ends a stream that never falls quiet.
const maxMessages = 1000

// stream sends the requests and receives until the stream ends, falls quiet, or enough
// says so.
func (r *run) stream(ctx context.Context, p Party, m *method, requests []proto.Message, enough func(proto.Message) bool) answer {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	desc := &grpc.StreamDesc{
		StreamName: string(m.Name()), ServerStreams: m.IsStreamingServer(), ClientStreams: m.IsStreamingClient(),
	}
	stream, err := p.Conn.NewStream(ctx, desc, m.full)
	if err != nil {
		return answer{status: status.Convert(err)}
	}
	for _, request := range requests {
		if err = stream.SendMsg(request); err != nil {
			break // Recv has the status
		}
	}
	if err == nil {
		err = stream.CloseSend()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return answer{status: status.Convert(err)}
	}
	return r.receive(stream, cancel, m, enough)
}

// receive reads until the stream ends; it ends it when it is quiet or has said enough.
func (r *run) receive(stream grpc.ClientStream, cancel context.CancelFunc, m *method, enough func(proto.Message) bool) (a answer) {
	type event struct {
		message proto.Message
		err     error
	}
	events := make(chan event)
	go func() {
		defer close(events)
		for {
			message := newMessage(m.Output())
			err := stream.RecvMsg(message)
			events <- event{message, err}
			if err != nil || !m.IsStreamingServer() {
				return
			}
		}
	}()
	defer func() {
		cancel()
		for range events { // until the reader has ended
		}
	}()
	wait := r.Quiet
	if enough != nil || !m.IsStreamingServer() {
		wait = r.Deadline // for what is known to come
	}
	quiet := time.NewTimer(wait)
	defer quiet.Stop()
	a.status = status.New(codes.OK, "")
	for {
		select {
		case <-quiet.C:
			a.open = true
			return a
		case e := <-events:
			switch {
			case errors.Is(e.err, io.EOF):
			case e.err != nil:
				a.status = status.Convert(e.err)
			default:
				a.messages = append(a.messages, e.message)
			}
			if e.err != nil || !m.IsStreamingServer() {
				a.header, _ = stream.Header() // one that failed early has none
				a.trailer = stream.Trailer()
				return a
			}
			if len(a.messages) >= maxMessages || enough != nil && enough(e.message) {
				a.open = true
				return a
			}
			if enough == nil {
				quiet.Reset(wait)
			}
		}
	}
}

// ordinary makes a side's usual call of a method, in the style that worked before or in
// any that works, and keeps what it made. use is whose ids are in it.
func (r *run) ordinary(ctx context.Context, s *side, m *method, use *thing, decoy bool) (proto.Message, error) {
	tried := styles(m)
	if known := r.style[m]; known != nil {
		tried = append([]style{*known}, tried...)
	}
	var first error
	for i := range tried {
		f := &filler{style: &tried[i], r: r, s: s, m: m, use: use, decoy: decoy}
		request, err := f.request()
		if err == nil {
			var a answer
			if a, err = r.call(ctx, s.Party, m, request); err == nil && a.ok() {
				r.style[m] = &tried[i]
				if s == r.victim && len(r.Canary.Search(attacker, m.full, a.bytes())) > 0 {
					r.shown[m] = true
				}
				if m.creates() {
					r.own(s, harvest(m, request, a.messages, decoy))
				}
				return request, nil
			}
			if err == nil {
				err = fmt.Errorf("%s: %s (request: %s)", a.status.Code(), a.status.Message(), asJSON(request))
			}
		}
		if first == nil {
			first = err
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return nil, first
}

func asJSON(m proto.Message) string {
	text, err := protojson.MarshalOptions{AllowPartial: true, UseProtoNames: true}.Marshal(m)
	if err != nil {
		return err.Error()
	}
	return string(text)
}
