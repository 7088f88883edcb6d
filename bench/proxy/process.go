package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

const (
	startWithin = 90 * time.Second
	stopWithin  = 30 * time.Second
	lookEvery   = 50 * time.Millisecond
)

// process is one that we started. Its output is in a file beside the benchmark's.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string
	// done is closed when it has ended; err says how.
	done chan struct{}
	err  error
}

// start starts a command and waits until up says that it serves.
func start(ctx context.Context, dir, name string, up func() bool, command ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	path, err := find(command[0])
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	// Not bound to ctx: whoever starts a process stops it, in order, and waits.
	p.cmd = exec.CommandContext(context.WithoutCancel(ctx), path, command[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = p.cmd.Start()
	if err := errors.Join(err, log.Close()); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { // stop waits for it
		defer close(p.done)
		p.err = p.cmd.Wait()
	}()
	if err := p.await(ctx, up); err != nil {
		return nil, errors.Join(err, p.stop())
	}
	return p, nil
}

// await waits until the process serves or ends.
func (p *process) await(ctx context.Context, up func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for !up() {
		select {
		case <-p.done:
			return fmt.Errorf("%s ended: %w\n%s", p.name, p.err, p.said())
		case <-ctx.Done():
			return fmt.Errorf("%s does not serve: %w\n%s", p.name, ctx.Err(), p.said())
		case <-tick.C:
		}
	}
	return nil
}

// said returns the end of what the process wrote.
func (p *process) said() []byte {
	const end = 2000
	b, _ := os.ReadFile(p.log) // what it said is help, not the matter
	return b[max(0, len(b)-end):]
}

// stop ends the process and waits for it.
func (p *process) stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.done:
		return nil
	case <-time.After(stopWithin):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not end in %s and was killed", p.name, stopWithin)
	}
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// find finds a command, also where Debian keeps those of servers.
func find(command string) (string, error) {
	path, err := exec.LookPath(command)
	if err == nil {
		return path, nil
	}
	if path, sbinErr := exec.LookPath("/usr/sbin/" + command); sbinErr == nil {
		return path, nil
	}
	return "", fmt.Errorf("%w; scripts/install.sh bench installs it", err)
}

// listening returns a function that tells whether somebody answers at the address.
func listening(ctx context.Context, address string) func() bool {
	return func() bool {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	}
}

// says returns a function that tells whether a file holds the text by now.
func says(path, text string) func() bool {
	return func() bool {
		b, err := os.ReadFile(path)
		return err == nil && bytes.Contains(b, []byte(text))
	}
}

// free returns an address on loopback that nobody has.
func free(ctx context.Context) (string, error) {
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}

// readPid reads a file with a process's number.
func readPid(path string) (int, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(bytes.TrimSpace(b)))
}
