package flagd

import (
	"context"
	"time"

	syncv1 "buf.build/gen/go/open-feature/flagd/protocolbuffers/go/flagd/sync/v1"
	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/rowhouse-platform/rowhouse/sdk/flags"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/door"
)

const (
	// pause is the least time between two messages of a stream: what changes meanwhile is one.
	pause = 250 * time.Millisecond
	// keepAlive is how often a stream of events says something.
	keepAlive = 20 * time.Second
)

// hold subscribes to the flags of a visit for as long as it may.
func (s server) hold(ctx context.Context) (held context.Context, sub *flags.Subscription, view *flags.View, stop func(), err error) {
	v := visitOf(ctx)
	held, release, err := s.h.c.Door.Hold(ctx, v)
	if err != nil {
		return ctx, nil, nil, func() {}, err
	}
	sub, view, err = s.h.c.Door.Flags.Subscribe(v.Who)
	return held, sub, view, func() { sub.Close(); release() }, err
}

// events sends the events of a stream of either version.
func (s server) events(ctx context.Context, send func(kind string, data *structpb.Struct) error) error {
	held, sub, view, stop, err := s.hold(ctx)
	defer stop()
	if err != nil {
		return err
	}
	if err := s.greet(view.Keys(), send); err != nil {
		return err
	}
	for wait(held, pause) {
		var keys []string
		view, keys = s.h.c.Door.Next(held, sub, view, keepAlive)
		switch {
		case held.Err() != nil:
		case keys == nil:
			err = send("keep_alive", nil)
		default:
			err = send("configuration_change", changeOf(keys))
		}
		if err != nil {
			return err
		}
	}
	cause := context.Cause(held)
	if s.ending() {
		return send("provider_shutdown", nil)
	}
	return cause
}

// greet begins a stream. Providers keep static answers, also those that they got while they had no stream and did not
// hear of changes: some forget all when a change names nothing, and the others what it names.
func (s server) greet(keys []string, send func(kind string, data *structpb.Struct) error) error {
	err := send("provider_ready", nil)
	if err == nil {
		err = send("configuration_change", nil)
	}
	if err == nil {
		err = send("configuration_change", changeOf(keys))
	}
	return err
}

// ending reports whether the process ends, which no provider takes for an error.
func (s server) ending() bool {
	select {
	case <-s.h.c.Door.Ending:
		return true
	default:
		return false
	}
}

// changeOf names flags whose answers may be others. Providers keep static answers until their flag is named.
func changeOf(keys []string) *structpb.Struct {
	named := make(map[string]*structpb.Value, len(keys))
	for _, key := range keys {
		named[key] = structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{
			"type": structpb.NewStringValue("update"), "flagKey": structpb.NewStringValue(key),
		}})
	}
	return &structpb.Struct{Fields: map[string]*structpb.Value{"flags": structpb.NewStructValue(&structpb.Struct{Fields: named})}}
}

// wait reports whether d passed before ctx ended.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// syncing serves flagd.sync.v1, for providers that evaluate by themselves.
type syncing struct{ server }

// SyncFlags implements flagd.sync.v1.FlagSyncService.
func (s syncing) SyncFlags(
	ctx context.Context, req *connect.Request[syncv1.SyncFlagsRequest], out *connect.ServerStream[syncv1.SyncFlagsResponse],
) error {
	v := visitOf(ctx)
	if err := checkSelector(v, req.Msg.GetSelector()); err != nil { //nolint:staticcheck // deprecated, and sent by shipped providers
		return err
	}
	held, sub, view, stop, err := s.hold(ctx)
	defer stop()
	if err != nil {
		return err
	}
	for {
		if err := out.Send(&syncv1.SyncFlagsResponse{FlagConfiguration: bound(view), SyncContext: syncContext(v)}); err != nil {
			return err
		}
		if !wait(held, pause) {
			return context.Cause(held)
		}
		change, err := sub.Next(held)
		if err != nil {
			return err
		}
		view = change.View
	}
}

// FetchAllFlags implements flagd.sync.v1.FlagSyncService.
func (s syncing) FetchAllFlags(
	ctx context.Context, req *connect.Request[syncv1.FetchAllFlagsRequest],
) (*connect.Response[syncv1.FetchAllFlagsResponse], error) {
	v := visitOf(ctx)
	if err := checkSelector(v, req.Msg.GetSelector()); err != nil { //nolint:staticcheck // deprecated, and sent by shipped providers
		return nil, err
	}
	view, err := s.h.c.Door.Flags.For(v.Who)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&syncv1.FetchAllFlagsResponse{FlagConfiguration: bound(view)}), nil
}

// GetMetadata implements flagd.sync.v1.FlagSyncService. It is deprecated: SyncFlags sends the same.
//
//nolint:staticcheck // as said
func (s syncing) GetMetadata(
	ctx context.Context, _ *connect.Request[syncv1.GetMetadataRequest],
) (*connect.Response[syncv1.GetMetadataResponse], error) {
	return connect.NewResponse(&syncv1.GetMetadataResponse{Metadata: syncContext(visitOf(ctx))}), nil
}

// syncContext is what rules see of the tenant, which the provider adds to each of its contexts.
func syncContext(v door.Visit) *structpb.Struct {
	fields := map[string]*structpb.Value{}
	for name, value := range map[string]string{
		"tenant": v.Who.ID.String(), "plan": v.Who.Plan, "region": v.Who.Region, "environment": v.Who.Environment,
	} {
		if value != "" {
			fields[name] = structpb.NewStringValue(value)
		}
	}
	return &structpb.Struct{Fields: fields}
}
