package dev

import (
	"os/exec"
	"runtime"
	"syscall"
)

// detached puts a child into a group of its own and has the kernel end it with us.
func detached() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

// startLocked starts cmd from a thread that lives as long as the child: the kernel
// sends the death signal when the *thread* that made the child ends.
func startLocked(cmd *exec.Cmd, done <-chan struct{}) error {
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			<-done
		}
	}()
	return <-started
}
