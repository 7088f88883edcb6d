package proxy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ticksPerSecond is the unit of /proc/<pid>/stat, USER_HZ, which is 100 on every Linux
// that Go runs on.
const ticksPerSecond = 100

// CPUTime returns the time that a process and those that it started have been running, for other benchmarks of servers.
func CPUTime(pid int) (time.Duration, error) { return cpuTime(pid) }

// cpuTime returns the time that a process and its children have been running, in user
// and in kernel mode.
func cpuTime(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(proc(pid, "stat"))
	if err != nil {
		return 0, fmt.Errorf("CPU time: %w", err)
	}
	total, err := parseStat(string(stat))
	if err != nil {
		return 0, err
	}
	for _, child := range children(pid) {
		more, err := cpuTime(child)
		if errors.Is(err, os.ErrNotExist) {
			continue // it ended in between
		}
		if err != nil {
			return 0, err
		}
		total += more
	}
	return total, nil
}

func proc(pid int, elem ...string) string {
	return filepath.Join(append([]string{"/proc", strconv.Itoa(pid)}, elem...)...)
}

// parseStat returns utime + stime, fields 14 and 15 of proc(5)'s stat. Field 2, the
// command, may hold spaces and parentheses.
func parseStat(stat string) (time.Duration, error) {
	end := strings.LastIndexByte(stat, ')')
	fields := strings.Fields(stat[end+1:])
	const utime, stime = 14 - 3, 15 - 3
	if end < 0 || len(fields) <= stime {
		return 0, fmt.Errorf("CPU time: %q is no process's stat", stat)
	}
	user, err := strconv.ParseInt(fields[utime], 10, 64)
	system, err2 := strconv.ParseInt(fields[stime], 10, 64)
	if err := errors.Join(err, err2); err != nil {
		return 0, fmt.Errorf("CPU time: %w", err)
	}
	return time.Duration(user+system) * time.Second / ticksPerSecond, nil
}

// children returns the processes that a process has started.
func children(pid int) []int {
	lists, _ := filepath.Glob(proc(pid, "task", "*", "children")) // the pattern is well-formed
	var out []int
	for _, list := range lists {
		b, _ := os.ReadFile(list) // a thread that ended has no children
		for field := range strings.FieldsSeq(string(b)) {
			if child, err := strconv.Atoi(field); err == nil {
				out = append(out, child)
			}
		}
	}
	return out
}

// pin binds all threads of a process to one processor. Those that it starts later
// inherit that, and a Go process follows with GOMAXPROCS within a second.
func pin(pid, cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	threads, err := os.ReadDir(proc(pid, "task"))
	if err != nil {
		return fmt.Errorf("pin: %w", err)
	}
	for _, thread := range threads {
		tid, err := strconv.Atoi(thread.Name())
		if err != nil {
			continue
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("pin: %w", err)
		}
	}
	return nil
}
