package pgserver

import "syscall"

// processAttributes puts a child into its own process group, so that Ctrl-C
// reaches the caller alone, and lets the kernel end it with the caller.
func processAttributes(who identity, atCallersEnd syscall.Signal) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Setpgid:    true,
		Pdeathsig:  atCallersEnd,
		Credential: who.become,
	}
}
