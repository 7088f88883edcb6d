package ofrep

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/rowhouse-platform/rowhouse/sdk/flags"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/clientkey"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/door"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/flagset"
)

// behind is how long a process that is behind what the client was told of waits until it knows.
const behind = time.Second

// success is one flag's answer. Value is absent where the client's own default applies.
type success struct {
	Key      string         `json:"key"`
	Reason   string         `json:"reason"`
	Variant  string         `json:"variant,omitempty"`
	Value    any            `json:"value,omitempty"`
	Metadata map[string]any `json:"metadata,omitempty"`
}

// visible reports whether the holder of a key may know of a flag. Browsers see flags whose metadata says "public": true.
func visible(k *clientkey.Key, metadata map[string]any) bool {
	return k.Kind == clientkey.Server || metadata["public"] == true
}

// answerOf is a flag's answer on the wire with its status.
func answerOf(key string, r flagset.Result) (status int, answer any) {
	switch code := r.Code(); code {
	case flagset.OK:
		return http.StatusOK, success{
			Key: key, Reason: r.Reason().String(), Variant: r.Variant(), Value: r.Value(), Metadata: r.Metadata(),
		}
	case flagset.FlagNotFound:
		return http.StatusNotFound, failure{Key: key, Code: code.String(), Details: "there is no such flag"}
	default:
		details := "the flag's rule gave no variant of it, or took too long"
		if code == flagset.ParseError {
			details = "the flag's definition or rule is broken"
		}
		return http.StatusBadRequest, failure{Key: key, Code: code.String(), Details: details, Metadata: r.Metadata()}
	}
}

// single answers for one flag.
func (h *Handler) single(w http.ResponseWriter, r *http.Request, v door.Visit, key string) error {
	view, c, err := h.ask(w, r, v)
	if own, ok := errors.AsType[refusal](err); ok && own.status == http.StatusBadRequest {
		own.key = key // the protocol wants it with each failure of a single flag
		return own
	}
	if err != nil {
		return err
	}
	result := view.Evaluate(key, c)
	if !visible(v.Key, result.Metadata()) { // an absent flag has none
		result = flagset.Failed(flagset.FlagNotFound)
	}
	h.c.Door.Flags.Count(r.Context(), result.Code())
	status, answer := answerOf(key, result)
	writeJSON(w, status, answer)
	return nil
}

// ask reads a request and finds what holds for it.
func (h *Handler) ask(w http.ResponseWriter, r *http.Request, v door.Visit) (*flags.View, *flagset.Context, error) {
	c, err := readContext(w, r, v.Who)
	if err != nil {
		return nil, nil, err
	}
	if err := h.catchUp(w, r); err != nil {
		return nil, nil, err
	}
	view, err := h.c.Door.Flags.For(v.Who)
	if err != nil {
		h.c.Door.Flags.Count(r.Context(), flagset.NotReady)
	}
	return view, c, err
}

// ahead is by how many revisions another process may be ahead of this one. What is further ahead, none of ours has said.
const ahead = 1 << 20

// catchUp waits until this process knows what the client was told of by another one. What a client is told here it can make
// up, so it is no failure of ours.
func (h *Handler) catchUp(w http.ResponseWriter, r *http.Request) error {
	if r.URL.RawQuery == "" {
		return nil
	}
	told, err := strconv.ParseInt(r.URL.Query().Get("flagConfigEtag"), 10, 64)
	known := h.c.Revision()
	switch {
	case err != nil || known >= told:
		return nil // of no token, or one that is not ours, nothing follows
	case told-known > ahead:
		return refusal{status: http.StatusBadRequest, code: codeGeneral, details: "flagConfigEtag is of no notice of ours"}
	}
	ctx, cancel := context.WithTimeout(r.Context(), behind)
	defer cancel()
	const look = 5 * time.Millisecond
	tick := time.NewTicker(look)
	defer tick.Stop()
	for h.c.Revision() < told {
		select {
		case <-tick.C:
		case <-ctx.Done():
			w.Header().Set("Retry-After", "1")
			return refusal{status: http.StatusTooManyRequests, details: "the change is not known here yet"}
		}
	}
	return nil
}

// bulkAnswer is the answer for all flags.
type bulkAnswer struct {
	Flags    []any          `json:"flags"`
	Metadata map[string]any `json:"metadata,omitempty"`
	Streams  []stream       `json:"eventStreams"`
}

type stream struct {
	Type     string   `json:"type"`
	Endpoint endpoint `json:"endpoint"`
	// Inactivity is after how many seconds in the background a page may leave the stream.
	Inactivity int `json:"inactivityDelaySec"`
}

type endpoint struct {
	RequestURI string `json:"requestUri"`
}

const inactivity = 120

// bulk answers for all flags, or says that nothing changed.
func (h *Handler) bulk(w http.ResponseWriter, r *http.Request, v door.Visit) error {
	view, c, err := h.ask(w, r, v)
	if err != nil {
		return err
	}
	tag := etagKey{version: view.Version, key: v.Key.ID, epoch: epochOf(h.c.Door.Now()), context: c.Data()}
	if given := r.Header.Values("If-None-Match"); len(given) > 0 {
		tag.times = timesOf(view, c, v.Key)
		if name := tag.String(); matches(given, name) {
			w.Header().Set("ETag", name)
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
	}
	out := bulkAnswer{Flags: make([]any, 0, len(view.Keys())), Streams: []stream{h.streamFor(v, tag.epoch)}}
	if visible(v.Key, view.Metadata()) {
		out.Metadata = view.Metadata()
	}
	var times times
	for _, key := range view.Keys() {
		result := view.Evaluate(key, c)
		if !visible(v.Key, result.Metadata()) {
			continue
		}
		if view.Times(key).Read { // the very answer that is sent, should the clock have gone on
			times.add(key, result)
		}
		h.c.Door.Flags.Count(r.Context(), result.Code())
		_, answer := answerOf(key, result)
		out.Flags = append(out.Flags, answer)
	}
	tag.times = times.sum()
	w.Header().Set("ETag", tag.String())
	writeJSON(w, http.StatusOK, out)
	return nil
}

func (h *Handler) streamFor(v door.Visit, epoch uint32) stream {
	return stream{Type: "sse", Endpoint: endpoint{pathEvents + "?t=" + seal(v.Key, epoch)}, Inactivity: inactivity}
}
