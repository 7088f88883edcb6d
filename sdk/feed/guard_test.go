package feed_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/rowhouse-platform/rowhouse/sdk/feed"
)

// die ends the process as a crash does: what the next one finds is what stands on the disk now.
func (r *rig) die() {
	r.Helper()
	synctest.Wait()
	left := r.TempDir()
	if err := os.CopyFS(left, os.DirFS(r.dir)); err != nil {
		r.Fatal(err)
	}
	r.feed.Close()
	r.dir = left
}

// told is what a process says of changes that are held back.
type told struct {
	held   []feed.Entry
	reader *sdkmetric.ManualReader
}

// guarded starts a process whose keys "kill" are never held back.
func (r *rig) guarded() {
	r.Helper()
	r.con = &consumer{}
	r.told = told{reader: sdkmetric.NewManualReader()}
	r.start(func(c *feed.Config) {
		c.Metrics = sdkmetric.NewMeterProvider(sdkmetric.WithReader(r.reader))
		c.Hold, c.SaveEvery = true, time.Nanosecond
		c.Held = func(e feed.Entry) { r.held = append(r.held, e) }
		c.Urgent = func(e feed.Entry) bool { return e.Key == "kill" }
	})
}

// lived has a process live with a first state for longer than a crash takes.
func (r *rig) lived(pairs ...string) {
	r.Helper()
	r.guarded()
	c := <-r.line.calls
	r.pub.delta(pairs...)
	c.send(r.pub.snapshot()...)
	for range 70 {
		<-time.After(time.Second) // virtual time
		c.send(r.pub.bookmark())
	}
}

// crash has the process that follows c die of changes.
func (r *rig) crash(c call, pairs ...string) {
	r.Helper()
	c.send(r.pub.delta(pairs...), r.pub.bookmark())
	r.want(r.pub.state, r.pub.revision)
	r.die()
}

func TestTwoDeathsHoldChangesBack(t *testing.T) {
	bubble(t, func(r *rig) {
		r.lived("a", "1", "b", "1", "gone", "1")
		r.die() // which is nobody's fault
		r.guarded()
		r.crash(<-r.line.calls, "a", "2", "new", "2", "gone", "-", "kill", "on")
		r.guarded()
		r.want(r.pub.state, 2) // from the newest file, as ever
		if h := r.feed.Status().Held; h != 0 {
			t.Errorf("held %d after one death", h)
		}
		c := <-r.line.calls
		c.send(r.pub.bookmark())
		r.die()
		for range 2 { // it stays so for the next process, if this one dies as well
			r.guarded()
			r.want(map[string]string{"a": "1", "b": "1", "gone": "1"}, 1)
			c = <-r.line.calls
			if c.token != "at-1" {
				t.Errorf("opened at %q", c.token)
			}
			r.die()
		}
		r.guarded()
		c = <-r.line.calls
		c.send(r.pub.snapshot()...)
		r.want(map[string]string{"a": "1", "b": "1", "gone": "1", "kill": "on"}, 2)
		s := r.feed.Status()
		if s.Held != 2 || len(s.Quarantined) != 3 || !strings.Contains(s.Quarantined["gone"], "held back") {
			t.Errorf("status %+v", s)
		}
		held := make(map[string]string)
		for _, e := range r.held {
			held[fmt.Sprint(e.Key, " ", e.Deleted)] = string(e.Value)
		}
		if want := map[string]string{"a false": "2", "new false": "2", "gone true": ""}; !maps.Equal(held, want) {
			t.Errorf("told of %v, want %v", held, want)
		}
		if got := gauges(t, r.reader)["rowhouse.feed.held"]; got != 2 {
			t.Errorf("the gauge says %v", got)
		}
		// What is new goes on, and another value of a key that is held back ends that.
		c.send(r.pub.delta("b", "3"), r.pub.delta("a", "4", "gone", "4"))
		r.want(map[string]string{"a": "4", "b": "3", "gone": "4", "kill": "on"}, 4)
		if s := r.feed.Status(); s.Held != 2 || len(s.Quarantined) != 1 {
			t.Errorf("status %+v", s)
		}
		c.send(r.pub.delta("new", "-"), r.pub.bookmark())
		r.want(r.pub.state, 5)
		if s := r.feed.Status(); s.Held != 0 || len(s.Quarantined) != 0 {
			t.Errorf("status %+v", s)
		}
		if got, ok := gauges(t, r.reader)["rowhouse.feed.held"]; got != 0 || !ok {
			t.Errorf("the gauge says %v, %t", got, ok)
		}
	})
}

func TestDeltasUpToTheDeathAreHeldBack(t *testing.T) {
	bubble(t, func(r *rig) {
		r.lived("a", "1")
		r.die()
		r.guarded()
		poison := r.pub.delta("a", "2")
		for range 2 {
			c := <-r.line.calls
			c.send(poison)
			r.want(map[string]string{"a": "2"}, 2)
			r.die()
			r.guarded()
		}
		c := <-r.line.calls
		c.send(poison, r.pub.delta("b", "3"), r.pub.bookmark())
		r.want(map[string]string{"a": "1", "b": "3"}, 3)
		// A snapshot brings nothing back that is held back, and takes nothing away that came later.
		c.fail <- os.ErrClosed
		c = <-r.line.calls
		c.send(append(r.pub.snapshot(), r.pub.delta("c", "4"))...)
		r.want(map[string]string{"a": "1", "b": "3", "c": "4"}, 4)
		// After an orderly end it is tried again: by a repaired program, perhaps.
		c.send(r.pub.bookmark())
		r.feed.Close()
		r.guarded()
		c = <-r.line.calls
		c.send(r.pub.snapshot()...)
		r.want(r.pub.state, 4)
	})
}

// TestDeathsLongAfterAChangeHoldNothingBack kills processes that lived well with their state, and some at once.
func TestDeathsLongAfterAChangeHoldNothingBack(t *testing.T) {
	bubble(t, func(r *rig) {
		r.lived("a", "1")
		r.die()
		for range 5 {
			r.guarded()
			c := <-r.line.calls
			c.send(r.pub.bookmark())
			r.die()
		}
		for range 4 {
			r.guarded()
			c := <-r.line.calls
			c.send(r.pub.delta("a", "x"+strings.Repeat("x", int(r.pub.revision))))
			for range 70 {
				<-time.After(time.Second) // virtual time
				c.send(r.pub.bookmark())
			}
			r.want(r.pub.state, r.pub.revision)
			r.die()
		}
		r.guarded()
		r.want(r.pub.state, r.pub.revision)
		if s := r.feed.Status(); s.Held != 0 {
			t.Errorf("status %+v", s)
		}
	})
}

// TestNothingToGoBackTo has processes die of their first state: there is none to hold on to, and none is no state.
func TestNothingToGoBackTo(t *testing.T) {
	bubble(t, func(r *rig) {
		for range 4 {
			r.guarded()
			c := <-r.line.calls
			if r.pub.revision == 0 {
				r.pub.delta("a", "1")
			}
			c.send(r.pub.snapshot()...)
			r.want(r.pub.state, 1)
			r.die()
		}
	})
}

// TestADamagedMarkerSaysNothing starts beside what no process of ours has left.
func TestADamagedMarkerSaysNothing(t *testing.T) {
	bubble(t, func(r *rig) {
		if err := os.WriteFile(filepath.Join(r.dir, name+".guard"), []byte(strings.Repeat("x", 500)), 0o600); err != nil {
			t.Fatal(err)
		}
		r.lived("a", "1")
		r.want(r.pub.state, 1)
	})
}
