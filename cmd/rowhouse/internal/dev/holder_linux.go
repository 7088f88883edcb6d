package dev

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// holder returns " by name (pid n)" for the process that listens on a loopback port,
// or nothing when it cannot be seen.
func holder(port int) string {
	inode := listening("/proc/net/tcp", port)
	if inode == "" {
		inode = listening("/proc/net/tcp6", port)
	}
	if inode == "" {
		return ""
	}
	links, err := filepath.Glob("/proc/[0-9]*/fd/[0-9]*")
	if err != nil {
		return ""
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == "socket:["+inode+"]" {
			pid := strings.Split(link, "/")[2]
			name, _ := os.ReadFile("/proc/" + pid + "/comm")
			return fmt.Sprintf(" by %s (pid %s)", strings.TrimSpace(string(name)), pid)
		}
	}
	return ""
}

// listening returns the inode of the socket that listens on port.
func listening(table string, port int) string {
	const (
		localField, stateField, inodeField = 1, 3, 9
		listen                             = "0A"
	)
	b, err := os.ReadFile(table)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) <= inodeField || f[stateField] != listen {
			continue
		}
		_, hex, _ := strings.Cut(f[localField], ":")
		if n, err := strconv.ParseInt(hex, 16, 32); err == nil && int(n) == port {
			return f[inodeField]
		}
	}
	return ""
}
