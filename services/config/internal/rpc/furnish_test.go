package rpc

import (
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
)

// TestSchemasHaveTheirVersions fails when a built-in schema changed and its number did not: then databases that exist
// would keep the old one. Raise the number in builtIn, and write both here.
func TestSchemasHaveTheirVersions(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]struct {
		version int32
		digest  string
	}{
		"brand":         {1, "657a5c8cfcf17186"},
		"flag-kills":    {1, "5774188b380b81f1"},
		"flags":         {1, "734fae44e2de9dba"},
		"setting-kills": {1, "98d13b8a31be5ac9"},
	} {
		is := builtIn()[id]
		schema, err := settings.CompileNew(id, is.schema, "")
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256([]byte(schema.Text))
		if got := hex.EncodeToString(sum[:8]); got != want.digest || is.version != want.version {
			t.Errorf("%s has version %d and digest %s, want %d and %s", id, is.version, got, want.version, want.digest)
		}
	}
	if len(builtIn()) != 4 {
		t.Error("a namespace is missing here")
	}
}
