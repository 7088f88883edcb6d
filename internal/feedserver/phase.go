package feedserver

// phaseSet is a set of phases, one bit for each.
type phaseSet uint16

const allPhases = phaseSet(1<<phases - 1)

func (s phaseSet) has(phase int) bool { return s&(1<<phase) != 0 }

// phasesBetween are those whose moments come after one count of moments, up to another.
func phasesBetween(told, now int) phaseSet {
	if now-told >= phases {
		return allPhases
	}
	var due phaseSet
	for moment := told + 1; moment <= now; moment++ {
		due |= 1 << (moment % phases)
	}
	return due
}

// enter gives a watcher its phase: the first that is not full.
func (f *feedState) enter(w *watcher) {
	full := max(phaseSize, len(f.watchers)/phases+1)
	for phase, n := range f.phases {
		if n < full {
			w.phase = phase
			break
		}
	}
	f.phases[w.phase]++
	f.watchers[w] = struct{}{}
}

// leave forgets a watcher.
func (f *feedState) leave(w *watcher) {
	f.phases[w.phase]--
	delete(f.watchers, w)
}

// watched reports whether a watcher is in one of the phases.
func (f *feedState) watched(due phaseSet) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.watchedLocked(due)
}

func (f *feedState) watchedLocked(due phaseSet) bool {
	for phase, n := range f.phases {
		if n > 0 && due.has(phase) {
			return true
		}
	}
	return false
}
