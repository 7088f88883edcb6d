package rule

import (
	"testing"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
)

// What is marked debug_redact is in no record of a call; the request itself keeps it.
func TestRecordsHoldNoSecret(t *testing.T) {
	t.Parallel()
	req := &configv1.PutSecretRequest{Name: "n", Value: []byte("v"), RequestId: "r"}
	if got, want := withoutSecrets(req), (&configv1.PutSecretRequest{Name: "n", RequestId: "r"}); !proto.Equal(got, want) {
		t.Errorf("the record holds %v", got)
	}
	if string(req.GetValue()) != "v" {
		t.Error("the request lost its value")
	}
	for msg, want := range map[proto.Message]bool{
		req: true, &tenancyv1.RefreshContextRequest{}: true, &configv1.UpdateWebhookRequest{}: false, &configv1.ListSecretsRequest{}: false,
	} {
		if got := redacts(msg.ProtoReflect().Descriptor()); got != want {
			t.Errorf("redacts(%s) = %t", msg.ProtoReflect().Descriptor().Name(), got)
		}
	}
}

// Messages below are looked into, in lists too.
func TestRedactLooksBelow(t *testing.T) {
	t.Parallel()
	holder := &tenancyv1.CertifyKeyResponse{SealKeys: []*tenancyv1.SealKey{{Cell: "c", Key: []byte("k")}, {Cell: "d", Key: []byte("k")}}}
	if !redacts(holder.ProtoReflect().Descriptor()) {
		t.Error("a marked field below a list is not found")
	}
	want := &tenancyv1.CertifyKeyResponse{SealKeys: []*tenancyv1.SealKey{{Cell: "c"}, {Cell: "d"}}}
	if got := withoutSecrets(holder); !proto.Equal(got, want) {
		t.Errorf("the record holds %v", got)
	}
}
