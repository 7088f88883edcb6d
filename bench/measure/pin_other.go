//go:build !linux

package measure

import "errors"

// Processors returns nothing: only Linux says which ones.
func Processors() []int { return nil }

// Pin is for Linux.
func Pin([]int, ...int) error { return errors.New("processes are kept on processors on Linux only") }
