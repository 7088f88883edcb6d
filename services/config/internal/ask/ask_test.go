package ask_test

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/egress"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/ask"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/webhook"
)

// world is a hook, and the time.
type world struct {
	mu     sync.Mutex
	now    time.Time
	answer func() (*egress.Answer, error)
	calls  int
	bodies []string
}

func (w *world) Post(_ context.Context, _ string, _ http.Header, body []byte) (*egress.Answer, error) {
	w.mu.Lock()
	w.calls++
	w.bodies = append(w.bodies, string(body))
	answer := w.answer
	w.mu.Unlock()
	return answer()
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func (w *world) answers(fn func() (*egress.Answer, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer = fn
}

func says(body string) func() (*egress.Answer, error) {
	return func() (*egress.Answer, error) { return &egress.Answer{Status: 200, Body: []byte(body)}, nil }
}

func silent() (*egress.Answer, error) { return nil, &egress.Error{Class: egress.Timeout} }

func newWorld() (*world, *ask.Asker) {
	w := &world{now: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC), answer: says(`{"allow":true}`)}
	return w, ask.New(ask.Config{Poster: w, Clock: w.clock, Log: slog.New(slog.DiscardHandler)})
}

func one(tb testing.TB, a *ask.Asker, closed bool) *configv1.HookDecision {
	tb.Helper()
	key, err := webhook.OpenKey(webhook.HMAC, make([]byte, 32))
	if err != nil {
		tb.Fatal(err)
	}
	q := ask.Question{HookQuestion: &configv1.HookQuestion{Step: configv1.HookStep_HOOK_STEP_TENANT_PLAN_CHANGE, Tenant: "acme"}, ID: "x"}
	return a.Ask(tb.Context(), q, []ask.Target{{Name: "hooks/h", UID: "u", URL: "https://h.dev", Closed: closed, Keys: []webhook.Key{key}}})[0]
}

const (
	allowed    = configv1.HookOutcome_HOOK_OUTCOME_ALLOWED
	denied     = configv1.HookOutcome_HOOK_OUTCOME_DENIED
	failOpen   = configv1.HookOutcome_HOOK_OUTCOME_FAILED_OPEN
	failClosed = configv1.HookOutcome_HOOK_OUTCOME_FAILED_CLOSED
)

func TestAnswers(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]configv1.HookOutcome{
		`{"allow":true}`:                         allowed,
		`{"allow":false,"reason":"frozen"}`:      denied,
		`{"allow":true,"warnings":["a","b"]}`:    allowed,
		`{"allow":true,"patch":{"plan":"free"}}`: allowed, // nothing is changed by it
		`{"allow":false,"allow":true}`:           failClosed,
		`{"Allow":true}`:                         failClosed,
		`{"allow":"true"}`:                       failClosed,
		`{"allow":1}`:                            failClosed,
		`{"allow":null}`:                         failClosed,
		`{"allow":true} {"allow":false}`:         failClosed,
		`{"allow":true,"reason":1}`:              failClosed,
		`{"allow":true,"warnings":"x"}`:          failClosed,
		`{"allow":true,"warnings":[1]}`:          failClosed,
		`true`:                                   failClosed,
		``:                                       failClosed,
		`<html>`:                                 failClosed,
		"{\"allow\":true,\"reason\":\"\xff\"}":   failClosed,
	} {
		w, a := newWorld()
		w.answers(says(body))
		if d := one(t, a, true); d.GetOutcome() != want {
			t.Errorf("%q: %s %s, want %s", body, d.GetOutcome(), d.GetFailure(), want)
		}
	}
	for what, answer := range map[string]*egress.Answer{
		"500": {Status: 500, Body: []byte(`{"allow":true}`)}, "302": {Status: 302, Body: []byte(`{"allow":true}`)},
		"too large": {Status: 200, Body: []byte(`{"allow":true}`), Truncated: true},
	} {
		w, a := newWorld()
		w.answers(func() (*egress.Answer, error) { return answer, nil })
		if d := one(t, a, false); d.GetOutcome() != failOpen || d.GetFailure() == "" {
			t.Errorf("%s: %s", what, d)
		}
	}
}

func TestWhatIsAsked(t *testing.T) {
	t.Parallel()
	w, a := newWorld()
	one(t, a, true)
	want := `{"type":"tenant.plan_change","timestamp":"2026-11-22T00:00:00Z","data":{"tenant":"acme","caller":"","method":""}}`
	if w.bodies[0] != want {
		t.Errorf("asked\n%s, want\n%s", w.bodies[0], want)
	}
}

func TestTextsOfOthersAreCleaned(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"no\r\n\x1b[31mred\x00": "no [31mred", "a\u202Eb\u200Bc": "abc", "two\t \n words": "two words",
		strings.Repeat("ä", 600): strings.Repeat("ä", 499) + "…",
	} {
		if got := ask.Clean(text); got != want {
			t.Errorf("Clean(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestFiveFailuresInARowOpenTheBreaker(t *testing.T) {
	t.Parallel()
	w, a := newWorld()
	w.answers(silent)
	for range 5 {
		one(t, a, true)
	}
	if d := one(t, a, true); d.GetFailure() != "BREAKER_OPEN" || d.GetOutcome() != failClosed || w.calls != 5 {
		t.Fatalf("the sixth: %s, after %d calls", d, w.calls)
	}
	w.pass(29 * time.Second)
	if one(t, a, true); w.calls != 5 {
		t.Fatal("it was asked before 30 s")
	}
	w.pass(time.Second)
	if d := one(t, a, false); d.GetFailure() != "TIMEOUT" || w.calls != 6 {
		t.Fatalf("the probe: %s, %d calls", d, w.calls)
	}
	if d := one(t, a, true); d.GetFailure() != "BREAKER_OPEN" || w.calls != 6 {
		t.Fatalf("behind a probe that failed: %s, %d calls", d, w.calls)
	}
	w.pass(30 * time.Second)
	w.answers(says(`{"allow":false}`)) // a veto is an answer
	if d := one(t, a, true); d.GetOutcome() != denied {
		t.Fatalf("the second probe: %s", d)
	}
	if d := one(t, a, true); d.GetOutcome() != denied || w.calls != 8 {
		t.Errorf("behind a good probe: %s, %d calls", d, w.calls)
	}
}

func TestHalfOfTenOpenTheBreaker(t *testing.T) {
	t.Parallel()
	w, a := newWorld()
	for i := range 10 { // never five in a row
		w.answers(says(`{"allow":true}`))
		if i%2 == 1 {
			w.answers(silent)
		}
		one(t, a, true)
	}
	if d := one(t, a, true); d.GetFailure() != "BREAKER_OPEN" {
		t.Errorf("behind ten with five failures: %s", d)
	}
	w, a = newWorld()
	for i := range 30 { // as many, but five seconds apart: there are never ten in 30 s
		w.answers(says(`{"allow":true}`))
		if i%2 == 1 {
			w.answers(silent)
		}
		if d := one(t, a, true); d.GetFailure() == "BREAKER_OPEN" {
			t.Fatalf("call %d: the breaker is open", i)
		}
		w.pass(5 * time.Second)
	}
}

func TestOneProbeAtATime(t *testing.T) {
	t.Parallel()
	w, a := newWorld()
	w.answers(silent)
	for range 5 {
		one(t, a, true)
	}
	w.pass(30 * time.Second)
	inside, leave := make(chan struct{}), make(chan struct{})
	w.answers(func() (*egress.Answer, error) {
		close(inside)
		<-leave
		return says(`{"allow":true}`)()
	})
	var probe sync.WaitGroup
	probe.Go(func() {
		if d := one(t, a, true); d.GetOutcome() != allowed {
			t.Errorf("the probe: %s", d)
		}
	})
	<-inside
	if d := one(t, a, true); d.GetFailure() != "BREAKER_OPEN" {
		t.Errorf("beside the probe: %s", d)
	}
	close(leave)
	probe.Wait()
	w.answers(says(`{"allow":true}`))
	if d := one(t, a, true); d.GetOutcome() != allowed {
		t.Errorf("behind the probe: %s", d)
	}
}

// A caller that goes away says nothing about the hook.
func TestACallerThatGoesAwayIsNoFailure(t *testing.T) {
	t.Parallel()
	w, a := newWorld()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.answers(silent)
	key, err := webhook.OpenKey(webhook.HMAC, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	target := ask.Target{Name: "hooks/h", UID: "u", Keys: []webhook.Key{key}}
	for range 10 {
		a.Ask(ctx, ask.Question{HookQuestion: new(configv1.HookQuestion)}, []ask.Target{target})
	}
	w.answers(says(`{"allow":true}`))
	if d := one(t, a, true); d.GetOutcome() != allowed {
		t.Errorf("behind ten callers that left: %s", d)
	}
}
