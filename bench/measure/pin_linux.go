package measure

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Processors returns the processors that this process may use.
func Processors() []int {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil
	}
	var all []int
	for cpu := 0; len(all) < set.Count(); cpu++ {
		if set.IsSet(cpu) {
			all = append(all, cpu)
		}
	}
	return all
}

// Pin keeps all threads of the processes on the given processors. Threads that they start
// later stay there too.
func Pin(processors []int, pids ...int) error {
	var set unix.CPUSet
	for _, cpu := range processors {
		set.Set(cpu)
	}
	for _, pid := range pids {
		threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return err
		}
		for _, t := range threads {
			tid, err := strconv.Atoi(t.Name())
			if err != nil {
				return err
			}
			if err := unix.SchedSetaffinity(tid, &set); err != nil {
				return fmt.Errorf("keep process %d on processors %v: %w", pid, processors, err)
			}
		}
	}
	return nil
}
