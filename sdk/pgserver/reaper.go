package pgserver

import (
	"context"
	"io"
	"os/exec"
	"path/filepath"
	"syscall"
)

// reaper removes a throw-away folder when this process ends without Stop,
// which is how every `go test` without a TestMain ends. It waits for its
// standard input to close, and then for postgres to let go of the lock.
// Where it cannot run, the next start sweeps the folder instead.
type reaper struct {
	cmd   *exec.Cmd
	stdin io.Closer
}

const reaperScript = `cat >/dev/null; exec flock -w 60 "$1" rm -rf -- "$2"`

// startReaper returns nil when there is no shell or no flock.
func startReaper(ctx context.Context, h *home) *reaper {
	if _, err := exec.LookPath("flock"); err != nil {
		return nil
	}
	return startScript(ctx, reaperScript, filepath.Join(h.dir, lockName), h.dir)
}

// startRemover is [startReaper] for a folder whose child dies with this process.
func startRemover(ctx context.Context, dir string) *reaper {
	return startScript(ctx, `cat >/dev/null; exec rm -rf -- "$1"`, dir)
}

func startScript(ctx context.Context, script string, args ...string) *reaper {
	args = append([]string{"-c", script, "rowhouse-pg-reaper"}, args...)
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "/bin/sh", args...)
	cmd.Dir, cmd.Env = "/", serverEnv()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil
	}
	if err := cmd.Start(); err != nil {
		return nil
	}
	return &reaper{cmd: cmd, stdin: stdin}
}

// stop ends the reaper. The folder is gone already.
func (r *reaper) stop() {
	if r == nil {
		return
	}
	_ = r.cmd.Process.Kill()
	_ = r.stdin.Close()
	_ = r.cmd.Wait() // it was killed: that is its only result
}
