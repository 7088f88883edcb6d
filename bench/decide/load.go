package decide

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	common "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
)

const connections = 2

// target is one server under load.
type target struct {
	name    string
	address string
	creds   credentials.TransportCredentials
	method  string
	// request makes the call number i about so many keys, and check looks at its answer.
	request func(i, batch int) []byte
	check   func(answer []byte, batch int) error
	pids    []int
}

// loaded is what a load says.
type loaded struct {
	calls int
	took  time.Duration
	p99   time.Duration
}

// bare sends and receives bytes.
type bare struct{}

// Name implements encoding.Codec.
func (bare) Name() string { return "proto" }

// Marshal implements encoding.Codec.
func (bare) Marshal(v any) ([]byte, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, errors.New("no bytes")
	}
	return b, nil
}

// Unmarshal implements encoding.Codec.
func (bare) Unmarshal(data []byte, v any) error {
	into, ok := v.(*[]byte)
	if !ok {
		return errors.New("no bytes")
	}
	*into = append((*into)[:0], data...)
	return nil
}

// load calls for a while and returns how often.
func (t target) load(ctx context.Context, s shape, during time.Duration) (l loaded, err error) {
	requests := make([][]byte, keys)
	for i := range requests {
		requests[i] = t.request(i, s.batch)
	}
	var mu sync.Mutex
	var all []time.Duration
	var failed error
	var callers sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	begin := time.Now()
	for range connections {
		conn, err := grpc.NewClient("passthrough:///"+t.address, grpc.WithTransportCredentials(t.creds),
			grpc.WithDefaultCallOptions(grpc.ForceCodec(bare{}), grpc.WaitForReady(true)))
		if err != nil {
			return l, err
		}
		defer func() { _ = conn.Close() }() // all are needed to the end
		for n := range s.flight / connections {
			callers.Go(func() {
				took, err := t.call(ctx, conn, requests, caller{first: n, until: begin.Add(during), batch: s.batch})
				mu.Lock()
				defer mu.Unlock()
				if all = append(all, took...); err != nil {
					failed = err
					cancel()
				}
			})
		}
	}
	callers.Wait()
	l.took = time.Since(begin)
	if failed != nil {
		return l, failed
	}
	slices.Sort(all)
	l.calls, l.p99 = len(all), all[len(all)*99/100]
	return l, nil
}

// caller is one of those that call at the same time.
type caller struct {
	first int
	until time.Time
	batch int
}

// call calls until it is time, and returns how long each call took.
func (t target) call(ctx context.Context, conn *grpc.ClientConn, requests [][]byte, c caller) (took []time.Duration, err error) {
	var answer []byte
	for i := c.first * 7; ; i++ {
		began := time.Now()
		if began.After(c.until) {
			return took, nil
		}
		if err := conn.Invoke(ctx, t.method, requests[i%len(requests)], &answer); err != nil {
			return took, err
		}
		took = append(took, time.Since(began))
		if i%1000 == 0 { // often enough to trust the rest
			if err := t.check(answer, c.batch); err != nil {
				return took, err
			}
		}
	}
}

const (
	domain = "bench"
	// limit is never reached.
	limit  = 1_000_000_000
	period = time.Hour
)

// keyAt is the j-th key of the call number i.
func keyAt(i, j int) string { return fmt.Sprintf("user-%03d", (i+j)%keys) }

// envoyRequest asks by Envoy's protocol.
func envoyRequest(i, batch int) []byte {
	m := &rlsv3.RateLimitRequest{Domain: domain}
	for j := range batch {
		m.Descriptors = append(m.Descriptors, &common.RateLimitDescriptor{
			Entries: []*common.RateLimitDescriptor_Entry{{Key: "user", Value: keyAt(i, j)}},
		})
	}
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err) // texts
	}
	return b
}

func envoyCheck(answer []byte, batch int) error {
	m := new(rlsv3.RateLimitResponse)
	if err := proto.Unmarshal(answer, m); err != nil {
		return err
	}
	if m.GetOverallCode() != rlsv3.RateLimitResponse_OK || len(m.GetStatuses()) != batch {
		return fmt.Errorf("answered %v with %d statuses", m.GetOverallCode(), len(m.GetStatuses()))
	}
	for _, s := range m.GetStatuses() {
		if s.GetCurrentLimit().GetRequestsPerUnit() != limit {
			return fmt.Errorf("the status is %v", s)
		}
	}
	return nil
}

// Gubernator's messages, by number: its generated code would be a dependency of ours.
const (
	guberRequests = 1 // of GetRateLimitsReq, and the answers of GetRateLimitsResp

	guberName, guberKey, guberHits, guberLimit, guberDuration = 1, 2, 3, 4, 5

	guberStatus, guberLimitBack, guberError = 1, 2, 5
)

func guberRequest(i, batch int) []byte {
	var out []byte
	for j := range batch {
		var b []byte
		b = protowire.AppendString(protowire.AppendTag(b, guberName, protowire.BytesType), domain)
		b = protowire.AppendString(protowire.AppendTag(b, guberKey, protowire.BytesType), keyAt(i, j))
		b = protowire.AppendVarint(protowire.AppendTag(b, guberHits, protowire.VarintType), 1)
		b = protowire.AppendVarint(protowire.AppendTag(b, guberLimit, protowire.VarintType), limit)
		b = protowire.AppendTag(b, guberDuration, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(period.Milliseconds()))
		out = protowire.AppendBytes(protowire.AppendTag(out, guberRequests, protowire.BytesType), b)
	}
	return out
}

func guberCheck(answer []byte, batch int) error {
	n := 0
	for len(answer) > 0 {
		_, _, tag := protowire.ConsumeTag(answer)
		if tag < 0 {
			return errors.New("no answer of gubernator's")
		}
		one, size := protowire.ConsumeBytes(answer[tag:])
		if size < 0 {
			return errors.New("no answer of gubernator's")
		}
		answer = answer[tag+size:]
		if err := guberOne(one); err != nil {
			return err
		}
		n++
	}
	if n != batch {
		return fmt.Errorf("%d answers to %d", n, batch)
	}
	return nil
}

// guberOne wants one answer to be under the limit.
func guberOne(b []byte) error {
	back := uint64(0)
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errors.New("no answer of gubernator's")
		}
		b = b[n:]
		switch {
		case number == guberError || number == guberStatus:
			return errors.New("gubernator refused")
		case number == guberLimitBack && kind == protowire.VarintType:
			back, _ = protowire.ConsumeVarint(b)
		}
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return errors.New("no answer of gubernator's")
		}
		b = b[n:]
	}
	if back != limit {
		return fmt.Errorf("gubernator holds the limit %d", back)
	}
	return nil
}
