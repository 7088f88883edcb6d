//go:build unix && !linux

package pgserver

import "syscall"

// processAttributes puts a child into its own process group, so that Ctrl-C
// reaches the caller alone. Only Linux can end it with the caller.
func processAttributes(who identity, _ syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: who.become}
}
