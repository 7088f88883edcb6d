package cli

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
)

func TestFlagsImport(t *testing.T) {
	t.Parallel()
	const before = `{"$evaluators":{"x":{}},"flags":{"a":{"state":"ENABLED","targeting":{}},"b":{"state":"ENABLED"},"c":{"state":"ENABLED"}}}`
	file := write(t, "flags.json", ` {"flags": {"a": {"state": "DISABLED"}, "b": {"state": "ENABLED"}, "d": {"state": "ENABLED"}}} `)
	const merged = `{"$evaluators":{"x":{}},"flags":{"a":{"state":"DISABLED"},"b":{"state":"ENABLED"},"c":{"state":"ENABLED"},"d":{"state":"ENABLED"}}}`
	const replaced = `{"flags":{"a":{"state":"DISABLED"},"b":{"state":"ENABLED"},"d":{"state":"ENABLED"}}}`
	for name, tt := range map[string]struct{ args, content, out, err string }{
		"stay":  {"-o tsv", merged, "d\tadded\na\tchanged\n", ""},
		"go":    {"-o tsv --replace", replaced, "d\tadded\na\tchanged\nc\tremoved\n", ""},
		"JSON":  {"-o json --replace", replaced, `"removed": [` + "\n    \"c\"", ""},
		"words": {"--replace", replaced, "removed", "1 added, 1 changed, 1 removed: c\n"},
		"no to": {"-o yaml", merged, "removed: []", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &house{terminal: name == "words", answers: map[string]answer{
				"DocumentService/GetDocument": always(&configv1.GetDocumentResponse{Document: &configv1.Document{
					Name: "platform/config/flags", Content: before, Etag: `"e"`,
				}}),
				"DocumentService/UpdateDocument": always(&configv1.UpdateDocumentResponse{Document: &configv1.Document{Name: "platform/config/flags"}}),
			}}
			got := h.run(t, append([]string{"flags", "import", "-f", file}, strings.Fields(tt.args)...)...)
			if got.code != 0 || !strings.Contains(got.out, tt.out) || !strings.Contains(got.err, tt.err) {
				t.Errorf("got %+v, want %q and %q", got, tt.out, tt.err)
			}
			calls := h.calls()
			sent, ok := calls[len(calls)-1].request.(*configv1.UpdateDocumentRequest)
			if !ok || sent.GetDocument().GetContent() != tt.content || sent.GetDocument().GetEtag() != `"e"` {
				t.Errorf("sent %v", sent)
			}
		})
	}
}

// Who makes the document after it was found missing does not lose what they wrote.
func TestFlagsImportReplacesNothingUnseen(t *testing.T) {
	t.Parallel()
	const name = "platform/config/flags"
	file := write(t, "flags.json", `{"flags": {"a": {"state": "ENABLED"}}}`)
	for _, when := range []string{"before the try", "after the try"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			k := newKeeper()
			k.schema("namespaces/flags", `{}`)
			h := &house{answers: k.answers()}
			h.answers["DocumentService/GetDocument"] = func(context.Context, proto.Message) (proto.Message, error) {
				if when == "before the try" {
					defer k.set(name, `{"flags":{"theirs":{}}}`)
				}
				return nil, refusedBy(codes.NotFound, "RESOURCE_NOT_FOUND", "%s does not exist", name)
			}
			h.answers["DocumentService/UpdateDocument"] = func(ctx context.Context, m proto.Message) (proto.Message, error) {
				answer, err := k.update(ctx, m)
				if m.(*configv1.UpdateDocumentRequest).GetValidateOnly() && when == "after the try" {
					k.set(name, `{"flags":{"theirs":{}}}`)
				}
				return answer, err
			}
			got := h.run(t, "flags", "import", "-f", file)
			if got.code == 0 || !strings.Contains(k.documents[name].GetContent(), "theirs") {
				t.Errorf("it went over what is there: %+v", got)
			}
		})
	}
	k := newKeeper()
	k.schema("namespaces/flags", `{}`)
	h := &house{answers: k.answers()}
	h.answers["DocumentService/GetDocument"] = refuse(refusedBy(codes.NotFound, "RESOURCE_NOT_FOUND", "%s does not exist", name))
	if got := h.run(t, "flags", "import", "-f", file); got.code != 0 || k.documents[name] == nil {
		t.Errorf("where nothing is: %+v", got)
	}
}

func TestFilesOfJSONAreReadStrictly(t *testing.T) {
	t.Parallel()
	broken := write(t, "x.json", "{\n  \"flags\": {},\n}\n")
	const where = "x.json: line 3, column 1: is no JSON"
	for _, line := range []string{
		"flags import -f", "config set platform notes --reason because -f", "namespaces create notes --schema-file",
		"apps update notes --file",
	} {
		h := new(house)
		if got := h.run(t, append(strings.Fields(line), broken)...); got.code != 2 || !strings.Contains(got.err, where) || len(h.calls()) > 0 {
			t.Errorf("%s: %+v", line, got)
		}
	}
	for text, want := range map[string]string{
		`{"flags":{"a":{},"a":{}}}`:                                    "/flags/a: a member stands twice",
		`{"flags":[{"key":"a","state":"ENABLED","state":"DISABLED"}]}`: "/flags/0/state: a member stands twice",
	} {
		h := new(house)
		if got := h.run(t, "flags", "import", "-f", write(t, "twice.json", text)); got.code != 2 || !strings.Contains(got.err, want) || len(h.calls()) > 0 {
			t.Errorf("a member twice: %+v", got)
		}
	}
}
