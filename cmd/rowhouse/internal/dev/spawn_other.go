//go:build !linux

package dev

import (
	"os/exec"
	"syscall"
)

func detached() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func startLocked(cmd *exec.Cmd, _ <-chan struct{}) error { return cmd.Start() }
