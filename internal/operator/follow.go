package operator

import (
	"fmt"
	"os"
	"sync"
	"time"
)

// lookEvery bounds how often a followed file is looked at.
const lookEvery = time.Second

// follower holds what a file says and takes its changes at use, at most once a second. A file that cannot be used
// leaves the last good reading in force.
type follower[T any] struct {
	path   string
	parse  func(path string) (T, error)
	clock  func() time.Time
	report func(error)

	mu     sync.Mutex
	looked time.Time
	stamp  fileStamp
	value  T
}

type fileStamp struct {
	modified time.Time
	size     int64
}

// follow reads the file for the first time; then any fault in it is an error.
func follow[T any](path string, cfg Config, parse func(string) (T, error)) (*follower[T], error) {
	f := &follower[T]{path: path, parse: parse, clock: cfg.Clock, report: cfg.OnReload}
	stamp, err := stampOf(path)
	if err != nil {
		return nil, err
	}
	value, err := parse(path)
	if err != nil {
		return nil, err
	}
	f.stamp, f.value, f.looked = stamp, value, f.clock()
	return f, nil
}

func (f *follower[T]) now() T {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.clock()
	if age := now.Sub(f.looked); age >= 0 && age < lookEvery {
		return f.value
	}
	f.looked = now
	stamp, err := stampOf(f.path)
	if err != nil {
		f.report(err)
		return f.value
	}
	if stamp == f.stamp {
		return f.value
	}
	f.stamp = stamp
	value, err := f.parse(f.path)
	if err != nil {
		f.report(fmt.Errorf("the earlier %s stays in force: %w", f.path, err))
		return f.value
	}
	f.report(nil)
	f.value = value
	return f.value
}

func stampOf(path string) (fileStamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return fileStamp{}, err
	}
	return fileStamp{modified: info.ModTime(), size: info.Size()}, nil
}
