package rls

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

const (
	// maxSeries is how many series are counted by values; what comes after that is "other".
	maxSeries   = 1000
	otherSeries = "other"
)

// series counts the decisions of one limit.
type series struct {
	domain, limit string
	// value is set for series of values.
	value                  string
	allowed, over, shadows atomic.Int64
}

// count counts one decision.
func (s *series) count(over, shadow bool) {
	switch {
	case !over:
		s.allowed.Add(1)
	case shadow:
		s.shadows.Add(1)
	default:
		s.over.Add(1)
	}
}

type seriesKey struct{ domain, limit, value string }

// Meter counts decisions by domain and limit: by names, of which there are as many as imported rules, and by values only
// where a rule asks for it, [maxSeries] at most.
type Meter struct {
	mu     sync.RWMutex
	all    map[seriesKey]*series
	valued int
}

// NewMeter returns a meter that shows its counts to provider.
func NewMeter(provider metric.MeterProvider) (*Meter, error) {
	m := &Meter{all: map[seriesKey]*series{}}
	meter := provider.Meter("github.com/rowhouse-platform/rowhouse/services/quota/internal/rls")
	counter, err := meter.Int64ObservableCounter("rowhouse.quota.ratelimit.decisions",
		metric.WithDescription("Decisions for Envoys by domain, limit and outcome: allowed, over, shadow."))
	if err != nil {
		return nil, fmt.Errorf("count decisions: %w", err)
	}
	if _, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		m.observe(o, counter)
		return nil
	}, counter); err != nil {
		return nil, fmt.Errorf("count decisions: %w", err)
	}
	return m, nil
}

func (m *Meter) observe(o metric.Observer, counter metric.Int64Observable) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, s := range m.all {
		about := []attribute.KeyValue{attribute.String("domain", s.domain), attribute.String("limit", s.limit)}
		if s.value != "" {
			about = append(about, attribute.String("values", s.value))
		}
		for outcome, n := range map[string]int64{"allowed": s.allowed.Load(), "over": s.over.Load(), "shadow": s.shadows.Load()} {
			if n > 0 {
				o.ObserveInt64(counter, n, metric.WithAttributes(append(about, attribute.String("outcome", outcome))...))
			}
		}
	}
}

// of returns the counts of a limit. They outlive imports.
func (m *Meter) of(domain, limit string) *series { return m.find(seriesKey{domain, limit, ""}) }

// valuesOf returns the counts of a limit for values.
func (m *Meter) valuesOf(domain, limit, value string) *series {
	return m.find(seriesKey{domain, limit, value})
}

func (m *Meter) find(k seriesKey) *series {
	m.mu.RLock()
	s := m.all[k]
	m.mu.RUnlock()
	if s != nil {
		return s
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.all[k]; s != nil {
		return s
	}
	if k.value != "" && k.value != otherSeries {
		if m.valued >= maxSeries {
			k.value = otherSeries
			if s := m.all[k]; s != nil {
				return s
			}
		} else {
			m.valued++
		}
	}
	// The texts are parts of a request, which does not stay.
	k = seriesKey{strings.Clone(k.domain), strings.Clone(k.limit), strings.Clone(k.value)}
	s = &series{domain: k.domain, limit: k.limit, value: k.value}
	m.all[k] = s
	return s
}
