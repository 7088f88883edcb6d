//go:build !unix

package usage

import "os"

// lockFolder only makes the file: here nothing ends a lock with its process.
func lockFolder(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR, onlyOwner) //nolint:gosec // the caller's own folder
}
