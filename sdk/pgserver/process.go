package pgserver

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	fastShutdown = 10 * time.Second // what SIGINT gets before SIGQUIT
	lastShutdown = 5 * time.Second  // what SIGQUIT gets before SIGKILL
)

// process is a running postgres or pgbouncer.
type process struct {
	cmd  *exec.Cmd
	log  *logWriter
	done chan struct{} // closed when it has ended
	err  error         // how it ended; read it after done
}

// launch starts postgres itself, not pg_ctl, so that its end is seen here.
// It inherits the lock of its home and so holds it for as long as it lives.
func launch(ctx context.Context, b Binaries, h *home, settings []string, logger *slog.Logger) (*process, error) {
	args := []string{"-D", h.data()}
	for _, s := range settings {
		args = append(args, "-c", s)
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), b.path("postgres"), args...)
	cmd.Env, cmd.Dir = serverEnv(), "/"
	cmd.ExtraFiles = []*os.File{h.lock}
	cmd.SysProcAttr = processAttributes(h.who, syscall.SIGQUIT)
	return begin(cmd, logger)
}

// begin starts a child whose messages go to the logger.
func begin(cmd *exec.Cmd, logger *slog.Logger) (*process, error) {
	p := &process{cmd: cmd, log: &logWriter{to: logger}, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.WaitDelay = 2 * time.Second
	started := make(chan error, 1)
	go p.run(started)
	if err := <-started; err != nil {
		return nil, &Error{ErrStart, err.Error(), "check " + cmd.Path}
	}
	return p, nil
}

// run owns the child. The parent-death signal comes when the *thread* that
// started the child ends, so that thread is kept until the child is gone.
func (p *process) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	p.err = p.cmd.Wait()
	close(p.done)
}

// stop asks for a fast shutdown and then insists. It returns when postgres is
// gone, or with the error of the context, whose end hurries it.
func (p *process) stop(ctx context.Context) error {
	for _, step := range []struct {
		signal syscall.Signal
		wait   time.Duration
	}{{syscall.SIGINT, fastShutdown}, {syscall.SIGQUIT, lastShutdown}} {
		err := p.cmd.Process.Signal(step.signal)
		if err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		if p.endsWithin(ctx, step.wait) {
			return nil
		}
	}
	err := p.cmd.Process.Kill()
	<-p.done
	return errors.Join(errors.New("postgres had to be killed"), err)
}

func (p *process) endsWithin(ctx context.Context, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.done:
		return true
	case <-timer.C:
	case <-ctx.Done():
		// The caller is in a hurry; go on to the next, harder signal, but
		// leave postgres a moment to obey this one.
		select {
		case <-p.done:
			return true
		case <-time.After(time.Second):
		}
	}
	return false
}

// logWriter splits the server's output into records and keeps the last lines
// for the error of a failed start.
type logWriter struct {
	to *slog.Logger

	mu   sync.Mutex
	rest []byte
	last []string
}

const keptLines = 20

// Write implements io.Writer; it never fails.
func (w *logWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rest = append(w.rest, b...)
	for {
		i := bytes.IndexByte(w.rest, '\n')
		if i < 0 {
			return len(b), nil
		}
		w.line(string(w.rest[:i]))
		w.rest = w.rest[i+1:]
	}
}

func (w *logWriter) line(text string) {
	w.last = append(w.last, text)
	if len(w.last) > keptLines {
		w.last = slices.Delete(w.last, 0, 1)
	}
	switch severity, _, _ := strings.Cut(text, ":"); severity {
	case "WARNING":
		w.to.Warn(text, "source", "postgres")
	case "PANIC":
		w.to.Error(text, "source", "postgres")
	default: // what clients provoke, FATAL too, is theirs to tell; a failed start tells its last words
		w.to.Debug(text, "source", "postgres")
	}
}

// contains reports whether one of the last lines holds one of the texts.
func (w *logWriter) contains(texts ...string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.last, func(line string) bool {
		return slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(line, text) })
	})
}

func (w *logWriter) tail(n int) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.last[max(0, len(w.last)-n):], " | ")
}
