package pgserver

import "syscall"

// processAttributes puts a child into its own process group, so that Ctrl-C
// reaches the caller alone, and lets the kernel end it with the caller.
func processAttributes(who identity) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Setpgid:    true,
		Pdeathsig:  syscall.SIGQUIT,
		Credential: who.become,
	}
}
