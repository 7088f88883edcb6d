package keyfile

import (
	"os"
	"testing"
)

func TestTooOpen(t *testing.T) {
	t.Parallel()
	const root, service = 0, 65532
	tests := map[string]struct {
		mode          os.FileMode
		owner, reader int
		want          bool
	}{
		"own file":                        {0o600, service, service, false},
		"own file, group reads":           {0o640, service, service, true},
		"root's file, group reads":        {0o440, root, service, false},
		"root's file, group writes":       {0o460, root, service, true},
		"root's file, everyone reads":     {0o444, root, service, true},
		"root reads root's, group too":    {0o440, root, root, true},
		"another's file, group reads":     {0o440, 1000, service, true},
		"root's file, everyone may start": {0o441, root, service, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := tooOpen(test.mode, test.owner, test.reader); got != test.want {
				t.Errorf("tooOpen(%04o, owner %d, reader %d) = %t, want %t", test.mode, test.owner, test.reader, got, test.want)
			}
		})
	}
}
