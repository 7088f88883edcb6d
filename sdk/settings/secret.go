package settings

import (
	"fmt"
	"io"
	"log/slog"
)

// redacted is what shows of a secret.
const redacted = "[redacted]"

// Secret is the value of a secret. It shows itself in no text: not by any verb of fmt, in no JSON, no log of slog, no gob
// and nothing else that asks for text. The bytes come from [Secret.Reveal] alone. The zero Secret has none.
type Secret struct {
	// Two pointers: where a Secret is a field that is not exported fmt cannot ask it how it wants to be shown. It prints
	// bytes then, and for a verb that does not fit also what one pointer leads to.
	value **[]byte
}

// NewSecret is a secret with a value, for tests and for programs that get values elsewhere. It keeps a copy.
func NewSecret(value []byte) Secret {
	kept := new(append([]byte(nil), value...))
	return Secret{&kept}
}

// Reveal returns a copy of the value.
func (s Secret) Reveal() []byte {
	if s.value == nil {
		return nil
	}
	return append([]byte(nil), **s.value...)
}

// IsZero says whether there is no value.
func (s Secret) IsZero() bool { return s.value == nil }

// String returns "[redacted]".
func (Secret) String() string { return redacted }

// GoString returns "[redacted]".
func (Secret) GoString() string { return redacted }

// Format writes "[redacted]", whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) } // fmt has no use for the error

// LogValue returns "[redacted]".
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "[redacted]"; encoding/json and others use it.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON returns "[redacted]" as JSON.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// GobEncode returns "[redacted]".
func (Secret) GobEncode() ([]byte, error) { return []byte(redacted), nil }
