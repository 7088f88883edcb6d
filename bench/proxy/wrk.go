package proxy

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// load is what wrk sends: what a browser's fetch would, more or less.
type load struct {
	url, host   string
	connections int
	seconds     int
	// cpu is the processor that wrk is bound to; negative for any.
	cpu int
}

// answers is what wrk got.
type answers struct {
	requests int
	// refused counts answers other than 2xx and 3xx, broken those that did not come.
	refused, broken int
}

// run sends requests for the time, one after the other on each connection.
func (l load) run(ctx context.Context) (answers, error) {
	args := []string{
		"wrk", "-t1", "-c" + strconv.Itoa(l.connections), "-d" + strconv.Itoa(l.seconds) + "s",
		"-H", "Host: " + l.host, "-H", "Accept: application/json", "-H", "Accept-Encoding: gzip, br",
		"-H", "Accept-Language: en", "-H", "User-Agent: wrk", "-H", "Cookie: session=0123456789abcdef", l.url,
	}
	if l.cpu >= 0 {
		args = append([]string{"taskset", "-c", strconv.Itoa(l.cpu)}, args...)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(l.seconds)*time.Second+stopWithin)
	defer cancel()
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return answers{}, fmt.Errorf("wrk: %w\n%s", err, out)
	}
	return parseWrk(out)
}

// parseWrk reads wrk's report.
func parseWrk(out []byte) (answers, error) {
	total := regexp.MustCompile(`(\d+) requests in `).FindSubmatch(out)
	if total == nil {
		return answers{}, fmt.Errorf("wrk said nothing of requests:\n%s", out)
	}
	var a answers
	a.requests = atoi(total[1])
	if m := regexp.MustCompile(`Non-2xx or 3xx responses: (\d+)`).FindSubmatch(out); m != nil {
		a.refused = atoi(m[1])
	}
	if m := regexp.MustCompile(`Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`).FindSubmatch(out); m != nil {
		for _, n := range m[1:] {
			a.broken += atoi(n)
		}
	}
	return a, nil
}

// atoi is for digits that an expression found.
func atoi(digits []byte) int {
	n, _ := strconv.Atoi(string(digits))
	return n
}
