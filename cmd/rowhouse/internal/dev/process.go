package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	probeEvery  = 50 * time.Millisecond
	readyWithin = 60 * time.Second
	stopWithin  = 40 * time.Second
	longestWord = 300 // bytes
)

// child is a running service.
type child struct {
	name string
	cmd  *exec.Cmd
	log  *os.File
	from int64 // where its own lines begin in the log, behind those of earlier starts
	done chan struct{}
	err  error
}

// family is all running services.
type family struct {
	l       Layout
	mu      sync.Mutex
	members []*child
	ending  bool
	// lost is told when a service ends by itself.
	lost func(c *child)
}

// start starts a service. It dies with us, however we end: the kernel sees to that.
func (f *family) start(name string, command ...string) error {
	log, err := os.OpenFile(f.l.Log(name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, secretMode)
	if err != nil {
		return fmt.Errorf("log of %s: %w", name, err)
	}
	from, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return errors.Join(fmt.Errorf("log of %s: %w", name, err), log.Close())
	}
	cmd := exec.Command(command[0], command[1:]...) //nolint:noctx // stop ends it, in an order of our choice
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own, or Ctrl-C would reach it before we say in which order to end.
	cmd.SysProcAttr = detached()
	c := &child{name: name, cmd: cmd, log: log, from: from, done: make(chan struct{})}
	if err := startLocked(cmd, c.done); err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", name, err), log.Close())
	}
	if err := os.WriteFile(f.l.path(name, "pid"), []byte(strconv.Itoa(cmd.Process.Pid)+"\n"), secretMode); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	f.mu.Lock()
	f.members = append(f.members, c)
	f.mu.Unlock()
	go f.watch(c)
	return nil
}

// watch waits for a service's end; its owner is the family, whose stop waits for done.
func (f *family) watch(c *child) {
	c.err = c.cmd.Wait()
	_ = c.log.Close()
	close(c.done)
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.ending && f.lost != nil {
		f.lost(c)
	}
}

// stop ends all services, the last started first, and waits for each.
func (f *family) stop() error {
	f.mu.Lock()
	f.ending = true
	members := f.members
	f.mu.Unlock()
	var errs []error
	for _, c := range slices.Backward(members) {
		_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
		select {
		case <-c.done:
		case <-time.After(stopWithin):
			errs = append(errs, fmt.Errorf("%s did not end in %s and was killed", c.name, stopWithin))
			_ = c.cmd.Process.Kill()
			<-c.done
		}
	}
	return errors.Join(errs...)
}

// ready waits until a service says that it can serve.
func (f *family) ready(ctx context.Context, name string, opsPort int) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	c := f.member(name)
	for {
		if probe(ctx, "http://"+loopback(opsPort)+"/readyz") {
			return nil
		}
		select {
		case <-c.done:
			return fmt.Errorf("%s ended (%w): %s; see %s", name, c.err, lastWord(f.l.Log(name), c.from), f.l.Log(name))
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready after %s: %s; see %s", name, readyWithin, lastWord(f.l.Log(name), c.from), f.l.Log(name))
		case <-tick.C:
		}
	}
}

func (f *family) member(name string) *child {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range slices.Backward(f.members) { // the latest start counts
		if c.name == name {
			return c
		}
	}
	return nil
}

func probe(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// lastWord is the last line that a process wrote into a log from an offset on: why it
// ended, when it did so by itself.
func lastWord(path string, from int64) string {
	b, err := os.ReadFile(path)
	if err != nil || int64(len(b)) < from {
		return "its log cannot be read"
	}
	text := strings.TrimSpace(string(b[from:]))
	line := strings.ToValidUTF8(text[strings.LastIndexByte(text, '\n')+1:], "")
	switch {
	case line == "":
		return "it said nothing"
	case len(line) > longestWord:
		return strings.ToValidUTF8(line[:longestWord], "") + " …"
	default:
		return line
	}
}
