// Package provider is the OpenFeature provider of Rowhouse's flags: it evaluates in this process, for the tenant of the
// Go context, and asks no other service.
//
// One provider serves all tenants. The tenant comes from the verified tenant context alone; an evaluation without one is
// INVALID_CONTEXT and gives the code's default. Code that needs no OpenFeature uses package flags. Start at [New].
package provider

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/open-feature/go-sdk/openfeature"

	"github.com/rowhouse-platform/rowhouse/sdk/feed"
	"github.com/rowhouse-platform/rowhouse/sdk/flags"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/flagset"
)

// Name is the provider's name in OpenFeature.
const Name = "rowhouse"

const (
	// silence is after how long without word from config what is known counts as stale.
	silence = 5 * time.Second
	look    = 500 * time.Millisecond
	// ahead is how many events wait for a reader, who is told of later ones at once.
	ahead = 8
)

// Follower is the feed of settings: a *feed.Feed.
type Follower interface {
	// Ready is closed once there is a state, from disk or from the stream.
	Ready() <-chan struct{}
	// Status tells when the stream was heard last.
	Status() feed.Status
}

// Config makes a [Provider]. Flags and Feed are required.
type Config struct {
	// Flags answers.
	Flags *flags.Client
	// Feed keeps the settings up to date that Flags reads: what settings.Follow returned.
	Feed Follower
	// Clock tells how long the feed has been silent; it is the feed's. Default time.Now.
	Clock func() time.Time
	// Log gets attributes that cannot be evaluated. Default slog.Default().
	Log *slog.Logger
}

// Provider implements openfeature.FeatureProvider, ContextAwareStateHandler and EventHandler. It is ready as soon as
// there are flags, from config or from the last good copy on disk, and never in error from then on: without word from
// config for five seconds it is stale, and goes on to answer.
type Provider struct {
	c       Config
	events  chan openfeature.Event
	ending  chan struct{}
	end     func()
	running sync.WaitGroup
}

// New returns a provider, which openfeature.SetProvider initializes and shuts down.
func New(c Config) *Provider {
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	p := &Provider{c: c, events: make(chan openfeature.Event, ahead), ending: make(chan struct{})}
	p.end = sync.OnceFunc(func() { close(p.ending) })
	return p
}

// Metadata implements openfeature.FeatureProvider.
func (p *Provider) Metadata() openfeature.Metadata { return openfeature.Metadata{Name: Name} }

// Hooks implements openfeature.FeatureProvider. There are none.
func (p *Provider) Hooks() []openfeature.Hook { return nil }

// EventChannel implements openfeature.EventHandler.
func (p *Provider) EventChannel() <-chan openfeature.Event { return p.events }

// Init waits for the first flags, however long that takes, or for Shutdown.
func (p *Provider) Init(e openfeature.EvaluationContext) error {
	return p.InitWithContext(context.Background(), e) //nolint:forbidigo // the interface gives none
}

// InitWithContext waits for the first flags.
func (p *Provider) InitWithContext(ctx context.Context, _ openfeature.EvaluationContext) error {
	select {
	case <-p.c.Feed.Ready():
	case <-p.ending:
		return notReady("it was shut down")
	case <-ctx.Done():
		return notReady(context.Cause(ctx).Error())
	}
	watch := p.c.Flags.Watch()
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	p.running.Go(func() {
		defer watch.Close()
		for {
			keys, err := watch.Next(watching)
			if err != nil {
				return
			}
			p.send(openfeature.ProviderConfigChange, "the flags changed", keys)
		}
	})
	p.running.Go(func() {
		defer stop()
		p.follow()
	})
	return nil
}

func notReady(why string) error {
	return &openfeature.ProviderInitError{ErrorCode: openfeature.ProviderNotReadyCode, Message: "no flags yet: " + why}
}

// follow says when the feed falls silent and when it is back, until the end.
func (p *Provider) follow() {
	tick := time.NewTicker(look)
	defer tick.Stop()
	stale, began := false, p.c.Clock()
	for {
		select {
		case <-p.ending:
			return
		case <-tick.C:
		}
		heard := p.c.Feed.Status().LastBookmark
		if heard.IsZero() {
			heard = began // a copy from disk
		}
		switch silent := p.c.Clock().Sub(heard) > silence; {
		case silent && !stale:
			p.send(openfeature.ProviderStale, "config is silent; the last known flags hold", nil)
			stale = true
		case !silent && stale:
			p.send(openfeature.ProviderReady, "config is back", nil)
			stale = false
		}
	}
}

// send gives an event to the SDK, which reads until the provider is shut down.
func (p *Provider) send(kind openfeature.EventType, message string, keys []string) {
	select {
	case p.events <- openfeature.Event{
		ProviderName: Name, EventType: kind,
		ProviderEventDetails: openfeature.ProviderEventDetails{Message: message, FlagChanges: keys},
	}:
	case <-p.ending:
	}
}

// Shutdown ends the events and waits for what runs. Evaluations go on to work.
func (p *Provider) Shutdown() {
	p.end()
	p.running.Wait()
}

// ShutdownWithContext is Shutdown, which takes no time.
func (p *Provider) ShutdownWithContext(context.Context) error {
	p.Shutdown()
	return nil
}

// BooleanEvaluation implements openfeature.FeatureProvider.
func (p *Provider) BooleanEvaluation(
	ctx context.Context, flag string, defaultValue bool, flatCtx openfeature.FlattenedContext,
) openfeature.BoolResolutionDetail {
	return detailOf(p.c.Flags.BoolDetail(p.in(ctx, flatCtx), flag, defaultValue))
}

// StringEvaluation implements openfeature.FeatureProvider.
func (p *Provider) StringEvaluation(
	ctx context.Context, flag, defaultValue string, flatCtx openfeature.FlattenedContext,
) openfeature.StringResolutionDetail {
	return detailOf(p.c.Flags.StringDetail(p.in(ctx, flatCtx), flag, defaultValue))
}

// FloatEvaluation implements openfeature.FeatureProvider.
func (p *Provider) FloatEvaluation(
	ctx context.Context, flag string, defaultValue float64, flatCtx openfeature.FlattenedContext,
) openfeature.FloatResolutionDetail {
	return detailOf(p.c.Flags.FloatDetail(p.in(ctx, flatCtx), flag, defaultValue))
}

// IntEvaluation implements openfeature.FeatureProvider.
func (p *Provider) IntEvaluation(
	ctx context.Context, flag string, defaultValue int64, flatCtx openfeature.FlattenedContext,
) openfeature.IntResolutionDetail {
	return detailOf(p.c.Flags.IntDetail(p.in(ctx, flatCtx), flag, defaultValue))
}

// ObjectEvaluation implements openfeature.FeatureProvider. A value is a map[string]any, which is shared: do not change
// it.
func (p *Provider) ObjectEvaluation(
	ctx context.Context, flag string, defaultValue any, flatCtx openfeature.FlattenedContext,
) openfeature.InterfaceResolutionDetail {
	d := p.c.Flags.ObjectDetail(p.in(ctx, flatCtx), flag, nil)
	out := flags.Detail[any]{Value: defaultValue, Variant: d.Variant, Reason: d.Reason, Code: d.Code, Metadata: d.Metadata}
	if d.Value != nil {
		out.Value = d.Value
	}
	return detailOf(out)
}

// in puts the caller's attributes into ctx. If they, or the tenant, are not acceptable, so will the evaluation say.
func (p *Provider) in(ctx context.Context, attributes openfeature.FlattenedContext) context.Context {
	if len(attributes) == 0 {
		return ctx
	}
	with, err := p.c.Flags.With(ctx, attributes)
	if !errors.Is(err, flagset.ErrContext) {
		return with // without a tenant the evaluation says so
	}
	// Types of Go's that are no JSON, such as a time, count as what encoding/json makes of them.
	b, failed := json.Marshal(attributes)
	plain := map[string]any{}
	if failed == nil {
		failed = json.Unmarshal(b, &plain)
	}
	if failed == nil {
		with, err = p.c.Flags.With(ctx, plain)
	}
	if err != nil {
		p.c.Log.WarnContext(ctx, "flags: the evaluation context was refused", "error", err)
	}
	return with
}

// detailOf is an answer in OpenFeature's words.
func detailOf[T any](d flags.Detail[T]) openfeature.GenericResolutionDetail[T] {
	return openfeature.GenericResolutionDetail[T]{Value: d.Value, ProviderResolutionDetail: openfeature.ProviderResolutionDetail{
		ResolutionError: errorOf(d.Code), Reason: openfeature.Reason(d.Reason.String()), Variant: d.Variant, FlagMetadata: d.Metadata,
	}}
}

func errorOf(code flagset.Code) openfeature.ResolutionError {
	switch code {
	case flagset.OK:
		return openfeature.ResolutionError{}
	case flagset.FlagNotFound:
		return openfeature.NewFlagNotFoundResolutionError("there is no such flag for this tenant")
	case flagset.ParseError:
		return openfeature.NewParseErrorResolutionError("the flag is broken")
	case flagset.TypeMismatch:
		return openfeature.NewTypeMismatchResolutionError("the flag has a value of another type")
	case flagset.InvalidContext:
		return openfeature.NewInvalidContextResolutionError("no verified tenant, or attributes that are not acceptable")
	case flagset.NotReady:
		return openfeature.NewProviderNotReadyResolutionError("there are no flags yet")
	default:
		return openfeature.NewGeneralResolutionError("the flag's rule does too much or names no variant")
	}
}
