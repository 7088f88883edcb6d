package yamlfile_test

import (
	"testing"

	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
)

func TestNearest(t *testing.T) {
	t.Parallel()
	for written, want := range map[string]string{"fre": "free", "busyness": "business", "": "", "x": "", "enterprise": "", "Free": "free"} {
		if got := yamlfile.Nearest(written, []string{"business", "free"}); got != want {
			t.Errorf("%q is near %q, want %q", written, got, want)
		}
	}
}
