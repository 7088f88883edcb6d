package ofrep

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/http"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/flags"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/clientkey"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/door"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

const (
	// pause is the least time between two frames of a stream.
	pause = 250 * time.Millisecond
	// comment is how often a stream says something, so that nobody takes it for dead.
	comment = 15 * time.Second
)

// Parts of a stream's token, which stands in a URL because EventSource sends no header. It is good for nothing but the
// notice that something changed.
const (
	tokenVersion = 1
	uidSize      = len(tenant.UID{})
	macSize      = 16
	tokenHead    = 1 + uidSize + 4
)

// seal makes the token of a key for a day.
func seal(k *clientkey.Key, epoch uint32) string {
	b := append([]byte{tokenVersion}, k.Tenant[:]...)
	b = binary.BigEndian.AppendUint32(b, epoch)
	b = append(b, k.ID...)
	return base64.RawURLEncoding.EncodeToString(append(b, mac(k, b)...))
}

// mac is keyed by the key's digest, which all gateways know and no client needs: a token needs no further secret that
// gateways would have to share, and ends with its key.
func mac(k *clientkey.Key, message []byte) []byte {
	h := hmac.New(sha256.New, k.Digest[:])
	_, _ = h.Write([]byte("rowhouse/ofrep/events\x00"))
	_, _ = h.Write(message)
	return h.Sum(nil)[:macSize]
}

// open lets the holder of a token in. A token is good on its day and on the next one, for providers keep it until their
// next fetch, and on the day before, for clocks differ.
func (h *Handler) open(ctx context.Context, token string) (door.Visit, error) {
	bad := fault.New(fault.Unauthenticated, fault.ReasonCredentialInvalid, "the stream's address is not valid any more; fetch the flags again")
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return door.Visit{}, err
	}
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(b) < tokenHead+macSize || b[0] != tokenVersion {
		return door.Visit{}, bad
	}
	if tenant.UID(b[1:1+uidSize]) != tc.UID() {
		return door.Visit{}, fault.New(fault.PermissionDenied, fault.ReasonTenantMismatch, "the stream is not of this host's tenant")
	}
	message, sum := b[:len(b)-macSize], b[len(b)-macSize:]
	v, err := h.c.Door.Named(ctx, string(message[tokenHead:]))
	if err != nil {
		return v, err
	}
	epoch, now := binary.BigEndian.Uint32(b[1+uidSize:]), epochOf(h.c.Door.Now())
	if !hmac.Equal(sum, mac(v.Key, message)) || epoch+1 < now || epoch > now+1 {
		return door.Visit{}, bad
	}
	return v, nil
}

// events streams notices that the flags may have changed (server-sent events).
func (h *Handler) events(w http.ResponseWriter, r *http.Request) error {
	v, err := h.open(r.Context(), r.URL.Query().Get("t"))
	if err != nil {
		return err
	}
	if err := allow(w, r, v.Key); err != nil {
		return err
	}
	held, stop, err := h.c.Door.Hold(r.Context(), v)
	if err != nil {
		return err
	}
	defer stop()
	s, view, err := h.c.Door.Flags.Subscribe(v.Who)
	defer s.Close() //nolint:staticcheck // it is to be closed also with an error
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	h.notify(held, w, s, view)
	return nil
}

// notify sends the first frame, which closes the gap between a client's fetch and now, and then one for each change.
func (h *Handler) notify(ctx context.Context, w http.ResponseWriter, s *flags.Subscription, view *flags.View) {
	out := http.NewResponseController(w)
	for changed := true; ctx.Err() == nil; {
		var err error
		if changed {
			revision := h.c.Revision()
			_, err = fmt.Fprintf(w, "id: %d\nevent: message\ndata: {\"type\":\"refetchEvaluation\",\"etag\":\"%d\",\"lastModified\":%d}\n\n",
				revision, revision, h.c.Door.Now().Unix())
		} else {
			_, err = fmt.Fprint(w, ":\n\n")
		}
		if err != nil || out.Flush() != nil {
			return
		}
		wait(ctx, pause) // what changes meanwhile is one frame
		var keys []string
		view, keys = h.c.Door.Next(ctx, s, view, comment)
		changed = keys != nil
	}
}

// wait returns after d, or when ctx has ended.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
