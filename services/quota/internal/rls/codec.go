package rls

import (
	"fmt"
	"sync"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"

	_ "google.golang.org/grpc/encoding/proto" // the codec that codec falls back to
)

// frame is the bytes of one call: the request's, and then the answer's.
type frame struct {
	bytes []byte
	d     decision
}

// keepFrame is up to how many bytes and descriptors a frame is kept for the next call.
const (
	keepFrame       = 64 << 10
	keepDescriptors = 1024
)

// frames are those that wait for a call.
type frames struct{ pool sync.Pool }

func (f *frames) take() *frame {
	if kept, ok := f.pool.Get().(*frame); ok {
		return kept
	}
	return new(frame)
}

func (f *frames) give(used *frame) {
	if cap(used.bytes) <= keepFrame && cap(used.d.asked) <= keepDescriptors {
		f.pool.Put(used)
	}
}

// codec reads requests into frames and writes answers out of them. All else is left to gRPC's own codec.
type codec struct{ frames *frames }

// reply is a frame whose answer is to be sent.
type reply struct{ frame *frame }

// Name is that of gRPC's codec: the bytes are the same.
func (codec) Name() string { return "proto" }

// Unmarshal implements encoding.CodecV2.
func (codec) Unmarshal(data mem.BufferSlice, into any) error {
	f, ok := into.(*frame)
	if !ok {
		return encoding.GetCodecV2("proto").Unmarshal(data, into)
	}
	n := data.Len()
	if cap(f.bytes) < n {
		f.bytes = make([]byte, n, n+n/2)
	}
	f.bytes = f.bytes[:n]
	data.CopyTo(f.bytes)
	return nil
}

// Marshal implements encoding.CodecV2. The frame of a reply is the next call's afterwards.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	r, ok := v.(reply)
	if !ok {
		return encoding.GetCodecV2("proto").Marshal(v)
	}
	defer c.frames.give(r.frame)
	size := r.frame.d.answer.size()
	pool := mem.DefaultBufferPool()
	buffer := pool.Get(size)
	written, err := r.frame.d.answer.append((*buffer)[:0])
	if err != nil {
		pool.Put(buffer)
		return nil, fmt.Errorf("write an answer: %w", err)
	}
	*buffer = written
	return mem.BufferSlice{mem.NewBuffer(buffer, pool)}, nil
}
