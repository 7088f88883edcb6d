package gcra

// Convert carries the state of a limit over to another version of it: the tokens
// that were spent and not yet earned back stay spent, at most the new burst. A
// higher limit helps at once, a lower one costs at most one new burst.
func Convert(from, to Limit, tat, now Ticks) Ticks {
	debt := tat - now
	if debt <= 0 || from.tokens <= 0 || to.tokens <= 0 {
		return min(tat, now)
	}
	used := from.earned(debt)
	if from.Cost(used) < debt && used < from.burst {
		used++ // a token in part is a token
	}
	return now + to.Cost(min(used, to.burst))
}
