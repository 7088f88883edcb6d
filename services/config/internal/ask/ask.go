// Package ask calls hooks: it sends a question to each hook of a step, signed as webhooks are, reads what they answer, and
// leaves alone for a while those that do not.
//
// It knows neither database nor gRPC; what a step is and whom it concerns is the caller's. Start at [Asker.Ask].
package ask

import (
	"cmp"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/egress"
	"github.com/rowhouse-platform/rowhouse/internal/hook"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/webhook"
)

const (
	// MaxTimeout is how long a hook may take.
	MaxTimeout = 2 * time.Second
	// MaxAnswer bounds what is read of an answer, in bytes.
	MaxAnswer = 64 << 10

	maxText     = 500 // characters of a reason or a warning
	maxWarnings = 10
)

// Failures that are not those of [egress.Class].
const (
	failureBreaker = "BREAKER_OPEN"
	failureStatus  = "STATUS"
	failureAnswer  = "BAD_ANSWER"
	failureSize    = "ANSWER_TOO_LARGE"
	failureKey     = "NO_KEY"
)

// Target is a hook that is asked.
type Target struct {
	// Name is "hooks/{hook}".
	Name, UID, URL string
	// Closed says that its silence refuses the step.
	Closed  bool
	Timeout time.Duration
	Keys    []webhook.Key
}

// Poster calls hooks; [egress.Client] is one.
type Poster interface {
	Post(ctx context.Context, url string, header http.Header, body []byte) (*egress.Answer, error)
}

// Config is what an Asker needs.
type Config struct {
	Poster Poster
	Clock  func() time.Time
	Log    *slog.Logger
	// Meters makes the metrics. Default: nothing is counted.
	Meters metric.MeterProvider
}

// Asker asks hooks. It is safe for concurrent use.
type Asker struct {
	cfg   Config
	calls metric.Int64Counter
	took  metric.Float64Histogram

	mu       sync.Mutex
	breakers map[string]*guarded // by the uid of a hook
}

// guarded is a breaker with the name that metrics show.
type guarded struct {
	*breaker

	name string
}

// New returns an Asker. An error of a meter means a name that is not valid; the metrics work all the same.
func New(cfg Config) *Asker {
	if cfg.Meters == nil {
		cfg.Meters = noop.NewMeterProvider()
	}
	a := &Asker{cfg: cfg, breakers: map[string]*guarded{}}
	meter := cfg.Meters.Meter("github.com/rowhouse-platform/rowhouse/services/config/hooks")
	a.calls, _ = meter.Int64Counter("rowhouse.hook.questions", metric.WithUnit("{question}"),
		metric.WithDescription("Questions to hooks, by hook and outcome."))
	a.took, _ = meter.Float64Histogram("rowhouse.hook.duration", metric.WithUnit("s"),
		metric.WithDescription("How long hooks took to answer, or not to."),
		metric.WithExplicitBucketBoundaries(.01, .025, .05, .1, .25, .5, 1, 1.5, 2, 2.5))
	state, _ := meter.Int64ObservableGauge("rowhouse.hook.breaker",
		metric.WithDescription("Where a hook's breaker stands in this process: 0 closed, 1 about to try, 2 open."))
	_, _ = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, b := range a.breakers {
			o.ObserveInt64(state, int64(b.state()), metric.WithAttributes(attribute.String("hook", b.name)))
		}
		return nil
	}, state)
	return a
}

// Question is what all hooks of a step are asked.
type Question struct {
	*configv1.HookQuestion

	// ID is the same for all repeats of the question.
	ID string
	// Test says that nobody takes the step.
	Test bool
}

// Ask asks all targets side by side and returns what each said, in the order of targets.
func (a *Asker) Ask(ctx context.Context, q Question, targets []Target) []*configv1.HookDecision {
	a.forget(targets)
	decisions := make([]*configv1.HookDecision, len(targets))
	var wait sync.WaitGroup
	for i, t := range targets {
		wait.Go(func() {
			start := a.cfg.Clock()
			decisions[i] = a.one(ctx, q, t)
			which := attribute.String("hook", t.Name)
			a.took.Record(ctx, a.cfg.Clock().Sub(start).Seconds(), metric.WithAttributes(which))
			outcome := strings.ToLower(strings.TrimPrefix(decisions[i].GetOutcome().String(), "HOOK_OUTCOME_"))
			a.calls.Add(ctx, 1, metric.WithAttributes(which, attribute.String("outcome", outcome)))
		})
	}
	wait.Wait()
	return decisions
}

// maxBreakers is above how many hooks there may be.
const maxBreakers = 100

// forget drops all breakers when too many are of hooks that are gone.
func (a *Asker) forget(targets []Target) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.breakers)+len(targets) > maxBreakers {
		clear(a.breakers)
	}
}

func (a *Asker) breaker(t Target) *breaker {
	a.mu.Lock()
	defer a.mu.Unlock()
	b := a.breakers[t.UID]
	if b == nil {
		b = &guarded{&breaker{clock: a.cfg.Clock}, t.Name}
		a.breakers[t.UID] = b
	}
	return b.breaker
}

// one asks one hook.
func (a *Asker) one(ctx context.Context, q Question, t Target) *configv1.HookDecision {
	b := a.breaker(t)
	if !b.enter() {
		return t.silent(failureBreaker)
	}
	how := failed
	defer func() { b.leave(how) }()
	d, failure := a.call(ctx, q, t)
	switch {
	case failure == "":
		how = answered
		return d
	case ctx.Err() != nil:
		how = neither
	default:
		a.cfg.Log.WarnContext(ctx, "a hook gave no answer", "hook", t.Name, "failure", failure)
	}
	return t.silent(failure)
}

// silent is what a hook's silence means.
func (t Target) silent(failure string) *configv1.HookDecision {
	o := configv1.HookOutcome_HOOK_OUTCOME_FAILED_OPEN
	if t.Closed {
		o = configv1.HookOutcome_HOOK_OUTCOME_FAILED_CLOSED
	}
	return &configv1.HookDecision{Hook: t.Name, Outcome: o, Failure: failure}
}

// call makes the call. failure is "" when there is an answer.
func (a *Asker) call(ctx context.Context, q Question, t Target) (d *configv1.HookDecision, failure string) {
	if len(t.Keys) == 0 {
		return nil, failureKey
	}
	ctx, cancel := context.WithTimeout(ctx, min(cmp.Or(t.Timeout, MaxTimeout), MaxTimeout))
	defer cancel()
	now := a.cfg.Clock()
	body, err := q.body(now)
	if err != nil {
		return nil, failureAnswer
	}
	answer, err := a.cfg.Poster.Post(ctx, t.URL, webhook.Header("hook_"+q.ID, now, body, t.Keys), body)
	switch {
	case err != nil:
		return nil, string(egress.ClassOf(err))
	case answer.Status < 200 || answer.Status > 299:
		return nil, failureStatus
	case answer.Truncated:
		return nil, failureSize
	}
	return read(t.Name, answer.Body)
}

// body is the question as it is sent. It names what is about to happen and holds no content of it.
func (q Question) body(now time.Time) ([]byte, error) {
	type data struct {
		Tenant       string `json:"tenant,omitempty"`
		TenantUID    string `json:"tenantUid,omitempty"`
		Plan         string `json:"plan,omitempty"`
		PreviousPlan string `json:"previousPlan,omitempty"`
		Host         string `json:"host,omitempty"`
		App          string `json:"app,omitempty"`
		Document     string `json:"document,omitempty"`
		Caller       string `json:"caller"`
		Reason       string `json:"reason,omitempty"`
		Method       string `json:"method"`
		Test         bool   `json:"test,omitempty"`
	}
	return json.Marshal(struct {
		Type      string    `json:"type"`
		Timestamp time.Time `json:"timestamp"`
		Data      data      `json:"data"`
	}{hook.TypeOf(q.GetStep()), now.UTC(), data{
		q.GetTenant(), q.GetTenantUid(), q.GetPlan(), q.GetPreviousPlan(), q.GetHost(), q.GetApp(), q.GetDocument(), q.GetCaller(),
		q.GetReason(), q.GetMethod(), q.Test,
	}})
}

// read reads an answer. Only "allow": true, written once, allows: what can be read in two ways is no answer.
func read(name string, body []byte) (*configv1.HookDecision, string) {
	o, err := sdk.Parse(body)
	if err != nil {
		return nil, failureAnswer
	}
	allow, ok := o["allow"].(bool)
	if !ok {
		return nil, failureAnswer
	}
	d := &configv1.HookDecision{Hook: name, Outcome: configv1.HookOutcome_HOOK_OUTCOME_DENIED}
	if allow {
		d.Outcome = configv1.HookOutcome_HOOK_OUTCOME_ALLOWED
	}
	if v, given := o["reason"]; given {
		text, ok := v.(string)
		if !ok {
			return nil, failureAnswer
		}
		d.Reason = Clean(text)
	}
	warnings, ok := o["warnings"].([]any)
	if _, given := o["warnings"]; given && !ok {
		return nil, failureAnswer
	}
	for _, v := range warnings[:min(len(warnings), maxWarnings)] {
		text, ok := v.(string)
		if !ok {
			return nil, failureAnswer
		}
		d.Warnings = append(d.Warnings, Clean(text))
	}
	return d, ""
}

// Clean makes a text that somebody else wrote fit to be shown on a terminal and in a log: one line without control and
// format characters, which could hide or turn around what follows, and of bounded length.
func Clean(text string) string {
	words := strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) })
	runes := slices.DeleteFunc([]rune(strings.Join(words, " ")), func(r rune) bool {
		return unicode.In(r, unicode.Cf, unicode.Co, unicode.Cs) || !unicode.IsPrint(r) && r != ' '
	})
	if len(runes) > maxText {
		runes = append(runes[:maxText-1], '…')
	}
	return string(runes)
}
