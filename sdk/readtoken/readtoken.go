// Package readtoken keeps in a context which commit its caller has to see.
//
// A read from a replica may miss what the caller has just committed. Package tenantdb seals
// the position of each commit into a token and notes it here; a read in the same context, or
// in the one of a later request that brings the token along, sees that commit. Packages
// tenanthttp (a cookie) and tenantgrpc (metadata) carry tokens between requests; whoever
// carries them otherwise starts at [NewContext].
//
// A token tells its holder nothing. It is no credential: who has another one's may wait for a
// commit that is not theirs, and sees no more.
package readtoken

import (
	"context"
	"sync"
)

const (
	// MaxLen bounds a token, in bytes. They are of letters, digits, "-" and "_".
	MaxLen = 64
	// Unknown stands for a commit of which the position is not known. No token is read as it:
	// reads go to the primary.
	Unknown = "-"
)

type key struct{}

type holder struct {
	mu    sync.Mutex
	token string
}

// NewContext returns a context that keeps the token of its caller's last commit, which may be
// made in it or before: then token is what FromContext gave for that request. It is "" for a
// caller who has none, and so has committed nothing lately. It is shared by the contexts that
// come from it.
func NewContext(ctx context.Context, token string) context.Context {
	return context.WithValue(ctx, key{}, &holder{token: token})
}

// FromContext returns the token of the last commit, and false when nobody keeps it.
func FromContext(ctx context.Context) (token string, ok bool) {
	h, ok := ctx.Value(key{}).(*holder)
	if !ok {
		return "", false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.token, true
}

// Note replaces the token, where the context keeps one. It is for those who commit, and for
// those who carry tokens.
func Note(ctx context.Context, token string) {
	h, ok := ctx.Value(key{}).(*holder)
	if !ok {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.token = token
}
