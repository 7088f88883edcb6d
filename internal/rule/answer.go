package rule

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"

	"google.golang.org/grpc/status"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

// errPanic is the cause of what a panic is turned into.
var errPanic = errors.New("the handler panicked")

// panicked turns a panic into an error and tells the log where it came from.
func (e *Enforcer) panicked(ctx context.Context, call *Call, value any) error {
	e.cfg.Log.ErrorContext(ctx, "a handler panicked", "method", call.Method,
		"panic", fmt.Sprint(value), "stack", string(debug.Stack()))
	return errPanic
}

// answer logs why a call failed and makes the status that its caller gets.
func (e *Enforcer) answer(ctx context.Context, call *Call, err error) error {
	if err == nil {
		return nil
	}
	answer := tenantgrpc.StatusIn(ctx, err)
	level := levelOf(err)
	if !errors.Is(err, errPanic) && e.cfg.Log.Enabled(ctx, level) {
		e.cfg.Log.LogAttrs(ctx, level, "call failed", slog.String("method", call.Method),
			slog.String("code", answer.Code().String()), slog.String("error", err.Error()),
			slog.String("principal", call.Principal.Name), slog.String("peer", call.Peer),
			slog.String("request_id", call.RequestID))
	}
	return answer.Err()
}

// levelOf raises what operators must look at and keeps callers' own mistakes low.
func levelOf(err error) slog.Level {
	if _, ok := status.FromError(err); ok {
		return slog.LevelDebug // made by the framework or passed on from another service
	}
	switch fault.KindOf(err) {
	case fault.Internal:
		if errors.Is(err, context.Canceled) {
			return slog.LevelDebug
		}
		return slog.LevelError
	case fault.Unavailable, fault.DeadlineExceeded, fault.ResourceExhausted:
		return slog.LevelWarn
	case fault.Unauthenticated, fault.PermissionDenied:
		return slog.LevelInfo
	default:
		return slog.LevelDebug
	}
}
