package cli

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
)

func TestRewrapEndsWhereNothingGetsLess(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		remaining []int64
		code      int
		says      string
	}{
		"all":                {[]int64{7, 3, 0}, 0, `"rewrapped": 6`},
		"two replicas fight": {[]int64{7, 3, 3, 3, 3}, 1, "after 6 keys 3 remain"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			left := tt.remaining
			h := &house{answers: map[string]answer{"SecretService/RewrapSecrets": func(context.Context, proto.Message) (proto.Message, error) {
				r := &configv1.RewrapSecretsResponse{Rewrapped: 2, Remaining: left[0]}
				if left = left[1:]; len(left) == 0 {
					left = []int64{0}
				}
				return r, nil
			}}}
			got := h.run(t, "config", "secrets", "rewrap", "-o", "json")
			if got.code != tt.code || !strings.Contains(got.out+got.err, tt.says) {
				t.Errorf("got %+v, want %q", got, tt.says)
			}
		})
	}
}
