package nearest_test

import (
	"testing"

	"github.com/rowhouse-platform/rowhouse/sdk/nearest"
)

func TestName(t *testing.T) {
	t.Parallel()
	known := []string{"business", "free", "flags", "flat", "v"}
	for written, want := range map[string]string{
		"fre": "free", "busyness": "business", "Free": "free", "flgas": "flags", "fla": "flat",
		"": "", "xyz": "", "enterprise": "", "free-of-charge": "",
	} {
		if got := nearest.Name(written, known); got != want {
			t.Errorf("%q is near %q, want %q", written, got, want)
		}
	}
}
