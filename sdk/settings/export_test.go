package settings

// Tallied returns the requests and errors of both sides of the rollout that runs.
func (s *Store) Tallied() (next, current [2]int64) {
	l := (*s.rollouts.Load())[0]
	return [2]int64{l.next.requests.Load(), l.next.errors.Load()}, [2]int64{l.current.requests.Load(), l.current.errors.Load()}
}
