package tenantgrpc_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	notesv1 "github.com/rowhouse-platform/rowhouse/gen/notes/v1"
	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

func TestExamine(t *testing.T) {
	t.Parallel()
	create := func(title, id string) proto.Message {
		return &notesv1.CreateNoteRequest{Note: &notesv1.Note{Title: title}, RequestId: id}
	}
	newer := &notesv1.ListNotesRequest{}
	newer.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 1))
	for name, c := range map[string]struct {
		in     proto.Message
		how    tenantgrpc.Examination
		reason string // of the refusal; empty for none
		field  string // the first bad one
		rule   string // that it breaks
	}{
		"good":                 {in: create("a title,\tand a tab", "6f3c2a9e-0b1d-4c5e-8f70-1a2b3c4d5e6f")},
		"rule":                 {in: create("", ""), reason: "INVALID_FIELD", field: "note.title", rule: "STRING_MIN_LEN"},
		"no UUID":              {in: create("x", "abc"), reason: "INVALID_FIELD", field: "request_id", rule: "STRING_UUID"},
		"NUL":                  {in: create("a\x00b", ""), reason: "INVALID_FIELD", field: "note.title", rule: "CONTROL_CHARACTER"},
		"not UTF-8":            {in: create("\xff\xfe", ""), reason: "INVALID_FIELD", field: "note.title", rule: "NOT_UTF8"},
		"too large":            {in: create("x", ""), how: tenantgrpc.Examination{MaxSize: 1}, reason: "TOO_LARGE"},
		"too large by default": {in: &notesv1.ListNotesRequest{Query: strings.Repeat("x", tenantgrpc.MaxRequest)}, reason: "TOO_LARGE"},
		"unknown":              {in: newer, reason: "UNKNOWN_FIELD", rule: "UNKNOWN_FIELD"},
		"unknown to a read":    {in: newer, how: tenantgrpc.Examination{Newer: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := tenantgrpc.Examine(c.in, c.how)
			if c.reason == "" {
				must(t, err)
				return
			}
			expect(t, name, tenantgrpc.Status(err).Err(), fault.InvalidArgument, c.reason)
			f, _ := fault.As(err)
			if c.rule != "" && (len(f.Fields) == 0 || f.Fields[0].Field != c.field || f.Fields[0].Reason != c.rule) {
				t.Errorf("the bad fields are %+v, expected %s %s", f.Fields, c.field, c.rule)
			}
		})
	}
}

// A server refuses bad requests before their handlers, unary and streaming, unless it says that it judges them itself.
func TestServerExamines(t *testing.T) {
	t.Parallel()
	bad := &text{Value: "a\x00b"}
	h := newHouse(t)
	conn := h.dial(h.Gateway(), tenantgrpc.ClientConfig{})
	for _, method := range []string{whoami, admin} {
		expect(t, method, conn.Invoke(h.ctx("acme"), method, bad, new(text)), fault.InvalidArgument, "INVALID_FIELD")
	}
	if n := h.notes.count(); n != 0 {
		t.Errorf("%d bad requests reached a handler", n)
	}
	stream := open(h.ctx("acme"), t, conn, chat)
	must(t, stream.SendMsg(&text{Value: "good"}))
	if _, err := receive(stream); err != nil {
		t.Errorf("a good message: %v", err)
	}
	must(t, stream.SendMsg(bad))
	_, err := receive(stream)
	expect(t, "a bad message of a stream", err, fault.InvalidArgument, "INVALID_FIELD")

	newer := new(text)
	newer.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 1))
	expect(t, "an unknown field of a change", conn.Invoke(h.ctx("acme"), whoami, newer, new(text)), fault.InvalidArgument, "UNKNOWN_FIELD")
	reads := table()
	reads[whoami].Idempotency = apiv1.Idempotency_IDEMPOTENCY_SAFE
	r := newHouse(t, func(c *tenantgrpc.ServerConfig) { c.Rules = tenantgrpc.NewRules(reads) })
	must(t, r.dial(r.Gateway(), tenantgrpc.ClientConfig{}).Invoke(r.ctx("acme"), whoami, newer, new(text)))

	own := newHouse(t, func(c *tenantgrpc.ServerConfig) { c.Examined = true })
	must(t, own.dial(own.Gateway(), tenantgrpc.ClientConfig{}).Invoke(own.ctx("acme"), whoami, bad, new(text)))
}
