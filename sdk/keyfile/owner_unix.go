//go:build unix

package keyfile

import (
	"os"
	"syscall"
)

// ownerOf returns the user that a file belongs to, or the reader where that is not known.
func ownerOf(info os.FileInfo) int {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(stat.Uid)
	}
	return os.Geteuid()
}
