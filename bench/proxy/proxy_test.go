package proxy

import (
	"os"
	"testing"
	"time"
)

func TestParseWrk(t *testing.T) {
	t.Parallel()
	const clean = `Running 1s test @ http://127.0.0.1:1/
  1 threads and 16 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.02ms  100.00us   3.00ms   90.00%
  12345 requests in 1.10s, 14.20MB read
Requests/sec:  11222.73
`
	const troubled = `  100 requests in 1.00s, 1.00MB read
  Socket errors: connect 1, read 2, write 3, timeout 4
  Non-2xx or 3xx responses: 7
`
	for name, tc := range map[string]struct {
		out  string
		want answers
	}{
		"clean":    {clean, answers{requests: 12345}},
		"troubled": {troubled, answers{requests: 100, refused: 7, broken: 10}},
	} {
		if got, err := parseWrk([]byte(tc.out)); err != nil || got != tc.want {
			t.Errorf("%s: parseWrk = %+v, %v, want %+v", name, got, err, tc.want)
		}
	}
	if got, err := parseWrk([]byte("unable to connect")); err == nil {
		t.Errorf("parseWrk = %+v, want an error", got)
	}
}

func TestParseStat(t *testing.T) {
	t.Parallel()
	const stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 100 0 0 0 150 25 7 9 20 0 12 0 100 200 300"
	got, err := parseStat(stat)
	if want := 1750 * time.Millisecond; err != nil || got != want {
		t.Errorf("parseStat = %v, %v, want %v", got, err, want)
	}
	for _, bad := range []string{"", "42 (x) S 1", "42 (x) S 1 42 42 0 -1 4194560 100 0 0 0 many 25"} {
		if got, err := parseStat(bad); err == nil {
			t.Errorf("parseStat(%q) = %v, want an error", bad, got)
		}
	}
}

func TestCPUTimeGrows(t *testing.T) {
	t.Parallel()
	before, err := cpuTime(os.Getpid())
	if err != nil {
		t.Skipf("no /proc here: %v", err)
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		after, err := cpuTime(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if after > before {
			return
		}
	}
	t.Error("ten seconds of work cost no CPU time")
}

func TestConclude(t *testing.T) {
	t.Parallel()
	costs := map[string][]float64{
		ours: {10, 30, 20}, reverse: {20, 30, 40}, reverseTLS: {1, 1, 1}, "nginx": {1, 1, 1}, "haproxy": {1, 1, 1},
	}
	if r := conclude(costs, 0); r.Value != 20 || r.Ratio != 0.5 || !r.OK {
		t.Errorf("conclude = %+v, want 20 µs at a ratio of 0.5", r)
	}
	if r := conclude(costs, 1); r.OK {
		t.Error("a failed request is fine")
	}
}
