package ofrep

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/flags"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/flagset"
)

const (
	maxBody    = 1_000_000
	maxContext = 64 << 10
	maxDepth   = 32
)

// readContext reads the evaluation context of a request. One that is absent, null or empty is empty: shipped providers
// send that for flags without rules.
func readContext(w http.ResponseWriter, r *http.Request, who flags.Who) (*flagset.Context, error) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, refusal{status: http.StatusRequestEntityTooLarge, details: fmt.Sprintf("the body is larger than %d bytes", maxBody)}
	}
	if err != nil {
		return nil, fault.New(fault.DeadlineExceeded, fault.ReasonRequestTimeout, "the request's body did not come").WithCause(err)
	}
	var body map[string]json.RawMessage
	if err := json.Unmarshal(text, &body); err != nil || body == nil {
		return nil, refusal{status: http.StatusBadRequest, code: codeParse, details: "the body is not a JSON object"}
	}
	attributes, err := attributesOf(body["context"])
	if err != nil {
		return nil, err
	}
	if named, ok := attributes["tenant"]; ok && named != who.ID.String() {
		return nil, fault.New(fault.PermissionDenied, fault.ReasonTenantMismatch, "the evaluation context names another tenant")
	}
	c, err := flagset.NewContext(who.Identity(), attributes)
	if err != nil {
		return nil, badContext("holds what no rule can read")
	}
	return c, nil
}

func badContext(what string) error {
	return refusal{status: http.StatusBadRequest, code: codeContext, details: "the context " + what}
}

func attributesOf(text json.RawMessage) (map[string]any, error) {
	text = bytes.TrimSpace(text)
	switch {
	case len(text) == 0 || string(text) == "null":
		return nil, nil //nolint:nilnil // no attributes
	case len(text) > maxContext:
		return nil, badContext(fmt.Sprintf("is larger than %d bytes", maxContext))
	case deep(text):
		return nil, badContext(fmt.Sprintf("is nested deeper than %d", maxDepth))
	}
	var attributes map[string]any
	if err := json.Unmarshal(text, &attributes); err != nil {
		return nil, badContext("is not an object, or a number in it is out of range")
	}
	if key, ok := attributes["targetingKey"]; ok {
		if _, ok := key.(string); !ok {
			return nil, badContext("has a targetingKey that is not a string")
		}
	}
	return attributes, nil
}

// deep reports whether a sound JSON text is nested too deep.
func deep(text []byte) bool {
	depth, quoted, escaped := 0, false, false
	for _, c := range text {
		switch {
		case escaped:
			escaped = false
		case quoted:
			escaped, quoted = c == '\\', c != '"'
		case c == '"':
			quoted = true
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}
