package rls

import (
	"errors"
	"fmt"
	"unicode/utf8"
	"unsafe"

	common "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/rowhouse-platform/rowhouse/services/quota/internal/rls/ruleset"
)

// override is a limit that a request brings along.
type override struct {
	requests   uint32
	unit       int32
	multiplier uint32
	// multiplied says that multiplier was sent, be it 0.
	multiplied bool
}

// descriptor is one thing that a request asks about.
type descriptor struct {
	entries []ruleset.Entry
	// override is a limit that comes with it, where overridden.
	override   override
	overridden bool
	// hits are its own, where counted; they may be 0.
	hits     uint64
	counted  bool
	negative bool
}

// request is a RateLimitRequest. Its texts are parts of the bytes that it was read from.
type request struct {
	domain      string
	descriptors []descriptor
	hits        uint32

	entries []ruleset.Entry // of all descriptors
}

// Numbers of the fields that are read.
const (
	requestDomain, requestDescriptors, requestHits = 1, 2, 3

	descriptorEntries, descriptorLimit, descriptorHits, descriptorNegative = 1, 2, 3, 4

	entryKey, entryValue = 1, 2

	wrapped = 1 // the value of a google.protobuf.UInt64Value and its like
)

// errUnusual is returned for bytes that are not what an encoder writes: a message in two parts, a field of another
// type. The generated code knows what they mean.
var errUnusual = errors.New("an unusual encoding")

// errRequest is returned for bytes that are no RateLimitRequest.
var errRequest = errors.New("the bytes are no RateLimitRequest")

// read reads a request, of which it keeps parts of b.
func (r *request) read(b []byte) error {
	r.reset()
	err := r.fields(b)
	if errors.Is(err, errUnusual) {
		r.reset()
		err = r.generated(b)
	}
	return err
}

func (r *request) reset() {
	clear(r.descriptors)
	clear(r.entries)
	*r = request{descriptors: r.descriptors[:0], entries: r.entries[:0]}
}

// field is one field of a message.
type field struct {
	number protowire.Number
	kind   protowire.Type
	bytes  []byte // of BytesType
	value  uint64 // of VarintType
}

// next reads the first field of b, and returns what follows it.
func next(b []byte) (f field, rest []byte, err error) {
	number, kind, n := protowire.ConsumeTag(b)
	if n < 0 {
		return f, nil, errUnusual
	}
	f.number, f.kind, b = number, kind, b[n:]
	switch kind {
	case protowire.BytesType:
		f.bytes, n = protowire.ConsumeBytes(b)
	case protowire.VarintType:
		f.value, n = protowire.ConsumeVarint(b)
	default:
		n = protowire.ConsumeFieldValue(number, kind, b)
	}
	if n < 0 {
		return f, nil, errUnusual
	}
	return f, b[n:], nil
}

// text is a field's text, which shares the memory of the message.
func (f field) text() (string, error) {
	if f.kind != protowire.BytesType || !utf8.Valid(f.bytes) {
		return "", errUnusual
	}
	return unsafe.String(unsafe.SliceData(f.bytes), len(f.bytes)), nil //nolint:gosec // a frame keeps its bytes until it is answered
}

// message is a field's bytes, of which there may be one. Two would be parts of one message.
func (f field) message(seen *bool) ([]byte, error) {
	if f.kind != protowire.BytesType || *seen {
		return nil, errUnusual
	}
	*seen = true
	return f.bytes, nil
}

// number is a field's number.
func (f field) varint() (uint64, error) {
	if f.kind != protowire.VarintType {
		return 0, errUnusual
	}
	return f.value, nil
}

func (r *request) fields(b []byte) error {
	for len(b) > 0 {
		f, rest, err := next(b)
		if err != nil {
			return err
		}
		b = rest
		switch f.number {
		case requestDomain:
			r.domain, err = f.text()
		case requestDescriptors:
			if f.kind != protowire.BytesType {
				return errUnusual
			}
			err = r.descriptor(f.bytes)
		case requestHits:
			var hits uint64
			hits, err = f.varint()
			r.hits = uint32(hits) //nolint:gosec // as the generated code cuts it
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *request) descriptor(b []byte) error {
	var d descriptor
	begin := len(r.entries)
	for len(b) > 0 {
		f, rest, err := next(b)
		if err != nil {
			return err
		}
		b = rest
		var inner []byte
		switch f.number {
		case descriptorEntries:
			if f.kind != protowire.BytesType {
				return errUnusual
			}
			err = r.entry(f.bytes)
		case descriptorLimit:
			if inner, err = f.message(&d.overridden); err == nil {
				err = d.override.read(inner)
			}
		case descriptorHits:
			if inner, err = f.message(&d.counted); err == nil {
				d.hits, err = value(inner)
			}
		case descriptorNegative:
			var v uint64
			v, err = f.varint()
			d.negative = v != 0
		}
		if err != nil {
			return err
		}
	}
	d.entries = r.entries[begin:len(r.entries):len(r.entries)]
	r.descriptors = append(r.descriptors, d)
	return nil
}

func (r *request) entry(b []byte) error {
	var e ruleset.Entry
	for len(b) > 0 {
		f, rest, err := next(b)
		if err != nil {
			return err
		}
		b = rest
		switch f.number {
		case entryKey:
			e.Key, err = f.text()
		case entryValue:
			e.Value, err = f.text()
		}
		if err != nil {
			return err
		}
	}
	r.entries = append(r.entries, e)
	return nil
}

func (o *override) read(b []byte) error {
	for len(b) > 0 {
		f, rest, err := next(b)
		if err != nil {
			return err
		}
		b = rest
		var v uint64
		switch f.number {
		case 1:
			v, err = f.varint()
			o.requests = uint32(v) //nolint:gosec // as the generated code cuts it
		case 2:
			v, err = f.varint()
			o.unit = int32(v) //nolint:gosec // as above
		case 3:
			var inner []byte
			if inner, err = f.message(&o.multiplied); err == nil {
				v, err = value(inner)
				o.multiplier = uint32(v) //nolint:gosec // as above
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// value reads a google.protobuf.UInt64Value or UInt32Value.
func value(b []byte) (v uint64, err error) {
	for len(b) > 0 {
		f, rest, err := next(b)
		if err != nil {
			return 0, err
		}
		b = rest
		if f.number == wrapped {
			if v, err = f.varint(); err != nil {
				return 0, err
			}
		}
	}
	return v, nil
}

// generated reads the request by the generated code.
func (r *request) generated(b []byte) error {
	m := new(rlsv3.RateLimitRequest)
	if err := proto.Unmarshal(b, m); err != nil {
		return fmt.Errorf("%w: %w", errRequest, err)
	}
	r.of(m)
	return nil
}

// of takes a request from the generated type.
func (r *request) of(m *rlsv3.RateLimitRequest) {
	r.domain, r.hits = m.GetDomain(), m.GetHitsAddend()
	for _, d := range m.GetDescriptors() {
		r.descriptors = append(r.descriptors, descriptorOf(d))
	}
}

func descriptorOf(m *common.RateLimitDescriptor) descriptor {
	d := descriptor{
		hits: m.GetHitsAddend().GetValue(), counted: m.GetHitsAddend() != nil, negative: m.GetIsNegativeHits(), overridden: m.GetLimit() != nil,
	}
	for _, e := range m.GetEntries() {
		d.entries = append(d.entries, ruleset.Entry{Key: e.GetKey(), Value: e.GetValue()})
	}
	if limit := m.GetLimit(); limit != nil {
		d.override = override{
			requests: limit.GetRequestsPerUnit(), unit: int32(limit.GetUnit()),
			multiplier: limit.GetUnitMultiplier().GetValue(), multiplied: limit.GetUnitMultiplier() != nil,
		}
	}
	return d
}
