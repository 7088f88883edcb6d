package serve

import (
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

// limitMemory gives the garbage collector 90 % of the cgroup's memory as its limit, unless GOMEMLIMIT says otherwise.
// The runtime follows the cgroup's processors by itself, its memory not.
func limitMemory() {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	for _, path := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		// Unlimited is "max", or a number near the largest there is.
		limit, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		if err == nil && limit > 0 && limit < 1<<50 {
			debug.SetMemoryLimit(limit / 10 * 9)
		}
		return
	}
}
