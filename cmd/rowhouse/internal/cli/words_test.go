package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
)

// What is no resource is said too, also where the answer goes into a file.
func TestAnswersSaySomething(t *testing.T) {
	t.Parallel()
	answers := map[string]answer{
		"BrandDraftService/CreateBrandPreview": always(&configv1.CreateBrandPreviewResponse{Uri: "https://a.example:8443/x"}),
		"FlagService/ExplainFlag": always(&configv1.ExplainFlagResponse{
			Reason: "ERROR", ErrorCode: "PARSE_ERROR", ErrorDetails: "its condition: no such key: age",
		}),
		"WebhookService/RedeliverWebhook": always(&configv1.RedeliverWebhookResponse{Redelivered: 3}),
	}
	for line, want := range map[string]string{
		"brand drafts preview acme --host a.example":                  "https://a.example:8443/x\t",
		"webhooks redeliver acme billing":                             "3 messages are sent again\n",
		"flags evaluate acme beta":                                    "its condition: no such key: age",
		"flags lift note-count --reason repaired-now":                 "lifted note-count at platform\n",
		"config lift platform portal /banner --reason repaired-now":   "lifted /banner at platform/config/portal\n",
		"config lift platform portal /banner --reason x-y-z -o json":  "{}\n",
		"webhooks redeliver acme billing -o json":                     "\"redelivered\": 3",
		"brand drafts preview acme --host a.example -o yaml":          "uri: https://a.example:8443/x",
		"webhooks redeliver platform billing 0198c5f0-7f4b-7cc1-8a5e": "3 messages",
	} {
		got := (&house{answers: answers}).run(t, strings.Fields(line)...)
		if got.code != 0 || !strings.Contains(got.out, want) {
			t.Errorf("%s: status %d, wrote %q, said %q; want %q", line, got.code, got.out, got.err, want)
		}
	}
}

// A key that the service refuses leaves no file behind; one whose answer was lost does, for the next try.
func TestRefusedClientKeyLeavesNoFile(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		trial, real error
		code        int
		kept        bool
	}{
		{status.Error(codes.InvalidArgument, "bad origins"), nil, 1, false},
		{nil, status.Error(codes.Unavailable, "lost"), 1, true},
		{nil, nil, 0, true},
	} {
		path := filepath.Join(t.TempDir(), "web.key")
		h := &house{answers: map[string]answer{
			"ClientKeyService/CreateClientKey": func(_ context.Context, m proto.Message) (proto.Message, error) {
				if m.(*configv1.CreateClientKeyRequest).GetValidateOnly() {
					return &configv1.CreateClientKeyResponse{}, c.trial
				}
				return &configv1.CreateClientKeyResponse{ClientKey: &configv1.ClientKey{}}, c.real
			},
		}}
		got := h.run(t, "clientkeys", "create", "acme", "--kind", "browser", "--environment", "live", "--key-file", path)
		if _, err := os.Stat(path); got.code != c.code || (err == nil) != c.kept {
			t.Errorf("%+v: status %d, the file: %v, said %q", c, got.code, err, got.err)
		}
	}
}

// Who may not write alone is told how others are asked; who publishes such a change knows.
func TestApprovalSaysHow(t *testing.T) {
	t.Parallel()
	no := refuse(refusal(t, codes.FailedPrecondition, "no", &errdetails.ErrorInfo{Reason: "APPROVAL_REQUIRED"}))
	h := &house{answers: map[string]answer{"DocumentService/UpdateDocument": no, "ChangeService/PublishChange": no}}
	const how = "rowhouse config changes create"
	if got := h.run(t, "config", "set", "acme", "shop", "--set", "a=1"); !strings.Contains(got.err, how) {
		t.Errorf("said %q", got.err)
	}
	if got := h.run(t, "config", "changes", "publish", "prices"); strings.Contains(got.err, how) {
		t.Errorf("of a change: said %q", got.err)
	}
}
