package webhook_test

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/rowhouse-platform/rowhouse/internal/egress"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/webhook"
)

// queue hands out its tasks once and says when the last is finished.
type queue struct {
	webhook.Queue

	tasks    chan webhook.Task
	finished chan webhook.Result
}

func (q *queue) FanOut(context.Context, int) (int, error) { return 0, nil }

func (q *queue) Claim(_ context.Context, _ int, fast bool) ([]webhook.Task, error) {
	select {
	case t := <-q.tasks:
		if t.Fast != fast {
			q.tasks <- t
			return nil, nil
		}
		return []webhook.Task{t}, nil
	default:
		return nil, nil
	}
}

func (q *queue) Finish(_ context.Context, _ webhook.Task, r webhook.Result) error {
	q.finished <- r
	return nil
}

type receivers struct{}

func (receivers) Post(_ context.Context, url string, _ http.Header, _ []byte) (*egress.Answer, error) {
	if url == "https://10.0.0.1/secret-path" {
		return nil, &egress.Error{Class: egress.Private}
	}
	return &egress.Answer{Status: map[string]int{"https://good.dev": 204, "https://bad.dev": 503}[url]}, nil
}

// Attempts are counted by lane and class; no label says whose they are.
func TestAttemptsAreCounted(t *testing.T) {
	t.Parallel()
	key, err := webhook.OpenKey(webhook.HMAC, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	reader := metric.NewManualReader()
	q := &queue{tasks: make(chan webhook.Task, 4), finished: make(chan webhook.Result, 4)}
	d := webhook.NewDispatcher(webhook.Config{
		Queue: q, Poster: receivers{}, Clock: time.Now, Log: slog.New(slog.DiscardHandler), Poll: time.Millisecond,
		Meters: metric.NewMeterProvider(metric.WithReader(reader)),
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	for _, task := range []webhook.Task{
		{URL: "https://good.dev", Fast: true}, {URL: "https://bad.dev"}, {URL: "https://10.0.0.1/secret-path", TenantUID: "acme"},
	} {
		task.Keys = []webhook.Key{key}
		q.tasks <- task
		<-q.finished
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range all.ScopeMetrics[0].Metrics {
		if counted, ok := m.Data.(metricdata.Sum[int64]); ok && m.Name == "rowhouse.webhook.attempts" {
			for _, p := range counted.DataPoints {
				got = append(got, p.Attributes.Encoded(attribute.DefaultEncoder()))
			}
		}
	}
	slices.Sort(got)
	want := []string{"lane=fast,outcome=delivered", "lane=slow,outcome=private_address", "lane=slow,outcome=status_5xx"}
	if !slices.Equal(got, want) {
		t.Errorf("counted %q, want %q", got, want)
	}
}
