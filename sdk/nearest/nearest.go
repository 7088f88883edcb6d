// Package nearest finds what a misspelt name is most likely to mean, for "did you mean". All of Rowhouse asks it, so that a
// slip in a file, in a flag and on a command line is understood alike. It is not for search: it knows nothing of words.
package nearest

// Name is the known name that a misspelt one is most likely to mean: the one that the fewest changes of a byte make of it,
// if these are few for its length, and of several the first; else "".
func Name(written string, known []string) string {
	const letters = 3 // of which one may be wrong
	if written == "" {
		return ""
	}
	best, least := "", len(written)/letters+1
	for _, k := range known {
		if d := edits(written, k); d <= least && (best == "" || d < least) {
			best, least = k, d
		}
	}
	return best
}

// edits is how many bytes must be added, taken away, changed or swapped with the next to make b of a.
func edits(a, b string) int {
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		next := make([]int, len(b)+1)
		next[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			next[j+1] = min(row[j]+cost, row[j+1]+1, next[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
