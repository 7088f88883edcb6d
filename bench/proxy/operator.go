package proxy

import (
	"context"
	"os"
	"strings"
)

// token is an operator's, sent with every call.
type token string

// readToken reads a token's file.
func readToken(path string) (token, error) {
	b, err := os.ReadFile(path)
	return token(strings.TrimSpace(string(b))), err
}

// GetRequestMetadata returns the header with the token.
func (t token) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(t)}, nil
}

// RequireTransportSecurity keeps the token off plain connections.
func (token) RequireTransportSecurity() bool { return true }
