package feed

import (
	"context"
	"log/slog"
	"time"
)

// startGrace is how long a feed may be without its first bookmark before that is more
// than the start of a house whose parts come up in some order.
const startGrace = 10 * time.Second

// outage is a time without a stream, as the log was told of it. It is touched by the
// following goroutine only.
type outage struct {
	lived bool // a stream has confirmed a state since the start
	began time.Time
	told  bool
	level slog.Level // the highest that it was told at
}

// failed tells that a stream ended: once per outage, at WARN; at INFO before there was
// any, until that takes too long. What follows is for who looks for it, at DEBUG.
func (o *outage) failed(ctx context.Context, log *slog.Logger, now time.Time, err error) {
	if !o.told {
		o.began = now
	}
	level := slog.LevelWarn
	if !o.lived && now.Sub(o.began) < startGrace {
		level = slog.LevelInfo
	}
	if o.told && level <= o.level {
		level = slog.LevelDebug
	} else {
		o.told, o.level = true, level
	}
	log.Log(ctx, level, "feed: the stream ended", "error", err)
}

// over tells that a stream has confirmed the state, if there was an outage.
func (o *outage) over(log *slog.Logger, now time.Time) {
	if o.told {
		log.Info("feed: the stream is back", "after", now.Sub(o.began).Round(time.Millisecond).String())
	}
	*o = outage{lived: true}
}
