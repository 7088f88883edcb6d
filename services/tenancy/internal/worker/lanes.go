package worker

import "sync"

// lanes runs the work of each cell beside that of the others, so that what a silent cell holds up is its own.
type lanes struct {
	width int // how much of one cell's work runs at a time

	work sync.WaitGroup
	mu   sync.Mutex
	busy map[string]int
}

func newLanes(width int) *lanes { return &lanes{width: width, busy: map[string]int{}} }

// full returns the cells that take no more work now. Only one goroutine may ask and then start.
func (l *lanes) full() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	full := []string{}
	for cell, n := range l.busy {
		if n >= l.width {
			full = append(full, cell)
		}
	}
	return full
}

// start runs fn in the cell's lane, and then done, when there is room again.
func (l *lanes) start(cell string, fn, done func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy[cell]++
	l.work.Go(func() {
		defer done()
		defer l.end(cell)
		fn()
	})
}

func (l *lanes) end(cell string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy[cell]--; l.busy[cell] == 0 {
		delete(l.busy, cell)
	}
}

// wait returns when all work has ended.
func (l *lanes) wait() { l.work.Wait() }
