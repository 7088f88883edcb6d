package ofrep_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// listener is a client of a stream, in a bubble of synctest.
type listener struct {
	*httptest.ResponseRecorder

	mu     sync.Mutex
	done   chan struct{}
	cancel context.CancelFunc
}

// leave closes the stream.
func (l *listener) leave() {
	l.cancel()
	<-l.done
}

// Write implements http.ResponseWriter.
func (l *listener) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Body.Write(b)
}

// address fetches the flags and returns where their stream is.
func (s *site) address(key string) string {
	s.Helper()
	got := s.send(ask{body: `{}`, key: key})
	var body struct {
		Streams []struct{ Endpoint struct{ RequestURI string } } `json:"eventStreams"`
	}
	if err := json.Unmarshal(got.Body.Bytes(), &body); err != nil {
		s.Fatal(err)
	}
	return body.Streams[0].Endpoint.RequestURI
}

// listen opens a stream.
func (s *site) listen(address string, header map[string]string) *listener {
	s.Helper()
	ctx, cancel := context.WithCancel(s.Context())
	l := &listener{ResponseRecorder: httptest.NewRecorder(), done: make(chan struct{}), cancel: cancel}
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "https://acme.example"+address, http.NoBody)
	for name, value := range header {
		r.Header.Set(name, value)
	}
	go func() {
		defer close(l.done)
		s.handler.ServeHTTP(l, r)
	}()
	s.Cleanup(l.leave)
	return l
}

// frames returns what came since the last call.
func (l *listener) frames() (events, comments int) {
	synctest.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	text := l.Body.String()
	l.Body.Reset()
	return strings.Count(text, "event: message\n"), strings.Count(text, ":\n\n")
}

// ended reports whether the stream is over.
func (l *listener) ended() bool {
	synctest.Wait()
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// inBubble runs a test with a site whose time runs.
func inBubble(t *testing.T, fn func(t *testing.T, s *site)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.LetTimeRun()
		fn(t, s)
	})
}

// pass lets time pass in a bubble.
func pass(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // the bubble's, which is over at once

func (l *listener) want(tb testing.TB, what string, events, comments int) {
	tb.Helper()
	if e, c := l.frames(); e != events || c != comments {
		tb.Errorf("%s: %d events and %d comments, want %d and %d", what, e, c, events, comments)
	}
}

func TestStreamPaces(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		l := s.listen(s.address(s.key), nil)
		l.want(t, "at once", 1, 0)
		pass(time.Second)
		for i := range 100 { // within a second
			s.SetTenant("acme", `{"flags":{"n":{"state":"ENABLED","variants":{"v":`+strings.Repeat("1", i%10+1)+`},"defaultVariant":"v"}}}`)
			pass(10 * time.Millisecond)
		}
		pass(300 * time.Millisecond)
		if e, _ := l.frames(); e < 4 || e > 5 {
			t.Errorf("%d frames for a second of changes", e)
		}
		s.SetTenant("acme", `{"flags":{}}`)
		l.want(t, "one change, at once", 1, 0)
		s.SetTenant("acme", timed)
		l.want(t, "another, too soon", 0, 0)
		pass(250 * time.Millisecond)
		l.want(t, "the last is always sent", 1, 0)
		s.SetTenant("globex", `{"flags":{}}`)
		pass(time.Second)
		l.want(t, "another tenant's change", 0, 0)
		pass(30 * time.Second)
		l.want(t, "in between", 0, 2)
	})
}

func TestStreamHoldsAFrame(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		l := s.listen(s.address(s.key), nil)
		synctest.Wait()
		l.mu.Lock()
		text := l.Body.String()
		l.mu.Unlock()
		id, rest, _ := strings.Cut(strings.TrimPrefix(text, "id: "), "\n")
		data := strings.TrimSuffix(strings.TrimPrefix(rest, "event: message\ndata: "), "\n\n")
		var frame struct {
			Type, ETag   string
			LastModified int64
		}
		if err := json.Unmarshal([]byte(data), &frame); err != nil {
			t.Fatalf("%v in %q", err, text)
		}
		if frame.Type != "refetchEvaluation" || frame.ETag != id || frame.LastModified != s.Now().Unix() || id == "" {
			t.Errorf("frame %+v with id %q", frame, id)
		}
		if got := l.Header().Get("Content-Type"); got != "text/event-stream" {
			t.Errorf("type %q", got)
		}
	})
}

func TestStreamTellsOfTime(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		turn := s.Now().Add(40 * time.Second).Unix()
		s.SetPlatform(strings.ReplaceAll(timed, "1795262400", strconv.FormatInt(turn, 10)))
		before := s.send(ask{body: `{}`}).Header().Get("ETag")
		l := s.listen(s.address(s.key), nil)
		l.want(t, "at once", 1, 0)
		pass(39 * time.Second)
		l.want(t, "before", 0, 2)
		pass(time.Second)
		l.want(t, "the moment", 1, 0)
		if after := s.send(ask{body: `{}`}).Header().Get("ETag"); after == before {
			t.Error("told, and nothing changed")
		}
		pass(time.Minute)
		l.want(t, "afterwards, once more, as for > the moment is a second later", 1, 3)
	})
}

// Streams end when they have no right to be any more.
func TestStreamEnds(t *testing.T) {
	for what, end := range map[string]func(*site, string){
		"revoked": func(s *site, key string) { s.Revoke(key) },
		"ended":   func(s *site, _ string) { pass(time.Hour) },
		"drained": func(s *site, _ string) { s.End() },
	} {
		t.Run(what, func(t *testing.T) {
			inBubble(t, func(t *testing.T, s *site) {
				key := s.KeyUntil("acme", s.Now().Add(time.Hour))
				l := s.listen(s.address(key), nil)
				pass(time.Minute)
				s.Key("acme") // another key changes nothing
				if l.ended() {
					t.Fatal("ended too soon")
				}
				end(s, key)
				if !l.ended() {
					t.Error("goes on")
				}
			})
		})
	}
}

// A key that everybody has opens a bounded number of streams; those of another key, and fetches, go on.
func TestStreamsOfAKeyAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, s *site) {
		s.Door.Streams = 2
		first := s.address(s.key)
		other := s.address(s.Key("acme"))
		s.listen(first, nil).want(t, "the first", 1, 0)
		ends := s.listen(first, nil)
		ends.want(t, "the second", 1, 0)
		third := s.listen(first, nil)
		if !third.ended() || third.Code != http.StatusTooManyRequests || third.Header().Get("Retry-After") != "1" {
			t.Errorf("the third: %d %v", third.Code, third.Header())
		}
		s.listen(other, nil).want(t, "of another key", 1, 0)
		if got := s.send(ask{body: `{}`}); got.Code != http.StatusOK {
			t.Errorf("a fetch beside them: %d", got.Code)
		}
		ends.leave()
		s.listen(first, nil).want(t, "in the place of one that ended", 1, 0)
	})
}

func TestStreamTokens(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	const page = "https://app.acme.example"
	browser := s.Key("acme", page)
	ofServer := s.address(s.key)
	ofBrowser := func() string {
		got := s.send(ask{body: `{}`, key: browser, header: map[string]string{"Origin": page}})
		_, rest, _ := strings.Cut(got.Body.String(), `"requestUri":"`)
		uri, _, _ := strings.Cut(rest, `"`)
		return uri
	}()
	revoked := s.Key("acme")
	ofRevoked := s.address(revoked)
	s.Revoke(revoked)
	day := 24 * time.Hour
	now := s.Now()
	status := func(address, origin string, at time.Time) int {
		s.SetTime(at)
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // an open stream ends at once
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "https://acme.example"+address, http.NoBody)
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		w := httptest.NewRecorder()
		s.handler.ServeHTTP(w, r)
		return w.Code
	}
	for _, c := range []struct {
		what, address, origin string
		at                    time.Time
		want                  int
	}{
		{"today", ofServer, "", now, 200},
		{"tomorrow", ofServer, "", now.Add(day), 200},
		{"in two days", ofServer, "", now.Add(2 * day), 401},
		{"yesterday, by another clock", ofServer, "", now.Add(-day), 200},
		{"two days before", ofServer, "", now.Add(-2 * day), 401},
		{"revoked", ofRevoked, "", now, 401},
		{"cut", ofServer[:len(ofServer)-1], "", now, 401},
		{"changed", ofServer[:len(ofServer)-2] + "AA", "", now, 401},
		{"empty", "/ofrep/v1/events?t=", "", now, 401},
		{"a page", ofBrowser, page, now, 200},
		{"a page of the host itself", ofBrowser, "", now, 200},
		{"another page", ofBrowser, "https://evil.example", now, 403},
	} {
		if got := status(c.address, c.origin, c.at); got != c.want {
			t.Errorf("%s: %d, want %d", c.what, got, c.want)
		}
	}
	acme := s.handler
	s.handler = s.For("globex", newHandler(s))
	if got := status(ofServer, "", now); got != http.StatusForbidden {
		t.Errorf("acme's stream on globex's host: %d", got)
	}
	s.handler = acme
}
