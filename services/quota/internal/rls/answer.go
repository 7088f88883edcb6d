package rls

import (
	"math"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// Codes of a status, by Envoy's numbers.
const (
	codeOK   = uint64(rlsv3.RateLimitResponse_OK)
	codeOver = uint64(rlsv3.RateLimitResponse_OVER_LIMIT)
)

// status is what became of one descriptor.
type status struct {
	over bool
	// limit is the current limit, encoded; nil for none.
	limit     []byte
	remaining uint32
	// reset is in whole seconds; 0 for none.
	reset int64
}

// header is a field to add to the answer of the request that was judged.
type header struct{ key, value string }

// answer is a RateLimitResponse.
type answer struct {
	over     bool
	statuses []status
	headers  []header
	body     []byte
	// violations are the descriptors whose quota is reached.
	violations []int
}

// Numbers of the fields that are written.
const (
	answerCode, answerStatuses, answerHeaders, answerBody, answerMetadata = 1, 2, 3, 5, 6

	statusCode, statusLimit, statusRemaining, statusReset = 1, 2, 3, 4

	headerKey, headerValue = 1, 2

	durationSeconds = 1
)

// violationsField is where Envoy's quota mode is told of.
const violationsField = "quotaModeViolations"

func code(over bool) uint64 {
	if over {
		return codeOver
	}
	return codeOK
}

// size is about how many bytes the answer has.
func (a *answer) size() int {
	n := sizeOfNumber(answerCode, code(a.over)) + protowire.SizeTag(answerBody) + protowire.SizeBytes(len(a.body))
	for i := range a.statuses {
		n += protowire.SizeTag(answerStatuses) + protowire.SizeBytes(a.statuses[i].size())
	}
	for _, h := range a.headers {
		n += protowire.SizeTag(answerHeaders) + protowire.SizeBytes(sizeOfText(headerKey, h.key)+sizeOfText(headerValue, h.value))
	}
	return n
}

// append writes the answer behind b.
func (a *answer) append(b []byte) ([]byte, error) {
	b = appendNumber(b, answerCode, code(a.over))
	for i := range a.statuses {
		s := &a.statuses[i]
		b = protowire.AppendTag(b, answerStatuses, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(s.size())) //nolint:gosec // a size
		b = s.append(b)
	}
	for _, h := range a.headers {
		b = protowire.AppendTag(b, answerHeaders, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(sizeOfText(headerKey, h.key)+sizeOfText(headerValue, h.value))) //nolint:gosec // as above
		b = appendText(appendText(b, headerKey, h.key), headerValue, h.value)
	}
	if len(a.body) > 0 {
		b = protowire.AppendTag(b, answerBody, protowire.BytesType)
		b = protowire.AppendBytes(b, a.body)
	}
	if len(a.violations) == 0 {
		return b, nil
	}
	values := make([]*structpb.Value, len(a.violations))
	for i, v := range a.violations {
		values[i] = structpb.NewNumberValue(float64(v))
	}
	metadata, err := proto.Marshal(&structpb.Struct{Fields: map[string]*structpb.Value{
		violationsField: structpb.NewListValue(&structpb.ListValue{Values: values}),
	}})
	if err != nil {
		return nil, err
	}
	return protowire.AppendBytes(protowire.AppendTag(b, answerMetadata, protowire.BytesType), metadata), nil
}

func (s *status) size() int {
	n := sizeOfNumber(statusCode, code(s.over)) + sizeOfNumber(statusRemaining, uint64(s.remaining))
	if s.limit != nil {
		n += protowire.SizeTag(statusLimit) + protowire.SizeBytes(len(s.limit))
	}
	if s.reset > 0 {
		n += protowire.SizeTag(statusReset) + protowire.SizeBytes(sizeOfNumber(durationSeconds, uint64(s.reset)))
	}
	return n
}

func (s *status) append(b []byte) []byte {
	b = appendNumber(b, statusCode, code(s.over))
	if s.limit != nil {
		b = protowire.AppendBytes(protowire.AppendTag(b, statusLimit, protowire.BytesType), s.limit)
	}
	b = appendNumber(b, statusRemaining, uint64(s.remaining))
	if s.reset > 0 {
		b = protowire.AppendTag(b, statusReset, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(sizeOfNumber(durationSeconds, uint64(s.reset)))) //nolint:gosec // a size
		b = appendNumber(b, durationSeconds, uint64(s.reset))
	}
	return b
}

// appendNumber writes a number; 0 is left out, as the generated code does.
func appendNumber(b []byte, number protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, number, protowire.VarintType), v)
}

func sizeOfNumber(number protowire.Number, v uint64) int {
	if v == 0 {
		return 0
	}
	return protowire.SizeTag(number) + protowire.SizeVarint(v)
}

func appendText(b []byte, number protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	return protowire.AppendString(protowire.AppendTag(b, number, protowire.BytesType), s)
}

func sizeOfText(number protowire.Number, s string) int {
	if s == "" {
		return 0
	}
	return protowire.SizeTag(number) + protowire.SizeBytes(len(s))
}

// saturate cuts what does not fit.
func saturate(n int64) uint32 { return uint32(max(0, min(n, math.MaxUint32))) }
