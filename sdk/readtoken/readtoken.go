// Package readtoken keeps in a context which commit its caller has to see.
//
// A read from a replica may miss what the caller has just committed. Package tenantdb seals
// the position of each commit into a token and notes it here; a read in the same context, or
// in the one of a later request that brings the token along, sees that commit. Packages
// tenanthttp (a cookie) and tenantgrpc (metadata) carry tokens between requests; whoever
// carries them otherwise starts at [NewContext].
//
// Commits that run side by side in several processes leave a token each, and who merges them keeps
// them all. A browser does not: of parallel answers it keeps the cookie that came last, so that a
// read right after may miss the others' commits, for as long as replicas may lag. Pages that
// depend on it send such writes one after the other, or read with tenantdb.Primary.
//
// A token tells its holder nothing. It is no credential: who has another one's may wait for a
// commit that is not theirs, and sees no more.
package readtoken

import (
	"context"
	"slices"
	"strings"
	"sync"
)

const (
	// MaxLen bounds a token, in bytes. They are of letters, digits, "-", "_" and ".".
	MaxLen = 256
	// Unknown stands for a commit of which the position is not known. No token is read as it:
	// reads go to the primary.
	Unknown = "-"

	// most is of how many parallel commits a token may be, separator stands between them.
	most      = 4
	separator = "."
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

// Note keeps token, where the context keeps one, in place of covered: what FromContext gave before
// the commit, or the call that may have committed, began. What was noted meanwhile stays beside it.
// [Unknown], once there, stays, because nothing is known to cover that commit; so it does in place
// of the tokens of too many parallel commits. Note is for those who commit, and for those who carry
// tokens.
func Note(ctx context.Context, covered, token string) {
	h, ok := ctx.Value(key{}).(*holder)
	if !ok {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	old := Split(covered)
	kept := slices.DeleteFunc(Split(h.token), func(t string) bool { return t != Unknown && slices.Contains(old, t) })
	for _, t := range Split(token) {
		if !slices.Contains(kept, t) {
			kept = append(kept, t)
		}
	}
	if len(kept) > most || slices.Contains(kept, Unknown) {
		kept = []string{Unknown}
	}
	h.token = strings.Join(kept, separator)
}

// Split returns the tokens of the single commits that a token is of.
func Split(token string) []string {
	if token == "" {
		return nil
	}
	return strings.Split(token, separator)
}
