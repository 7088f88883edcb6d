package prove

import (
	"errors"
	"fmt"
	"slices"
)

// count counts the lines by their status.
func (s *Section) count() map[Status]int {
	n := map[Status]int{}
	for _, l := range s.Lines {
		n[l.Status]++
	}
	return n
}

// judge gives a section that ran its status: one failed line fails it, and one that did not
// run, or an error, keeps it from passing.
func (s *Section) judge(err error) {
	n := s.count()
	switch {
	case n[Fail] > 0:
		s.Status, s.Reason = Fail, fmt.Sprintf("%d of %d failed", n[Fail], len(s.Lines))
	case err != nil:
		s.Status, s.Reason = NotRun, "could not look: "+err.Error()
	case n[Pass] == 0:
		s.Status, s.Reason = NotRun, "there was nothing to look at"
	case n[Pass] < len(s.Lines):
		s.Status, s.Reason = NotRun, fmt.Sprintf("%d of %d did not run", len(s.Lines)-n[Pass], len(s.Lines))
	default:
		s.Status, s.Reason = Pass, fmt.Sprintf("%d of %d passed", n[Pass], len(s.Lines))
		if risks := s.accepted(); risks > 0 {
			s.Reason += fmt.Sprintf(", accepted risks: %d", risks)
		}
	}
	if n[Fail] > 0 && err != nil {
		s.Reason += "; then it could not look further: " + err.Error()
	}
}

// accepted counts the risks that somebody took, which a pass must not hide.
func (s *Section) accepted() (n int) {
	for _, l := range s.Lines {
		for _, f := range l.Findings {
			if f.Severity == "accepted" {
				n++
			}
		}
	}
	return n
}

// judge gives the report its verdict.
func (r *Report) judge() {
	r.Verdict = Pass
	for _, s := range r.Sections {
		if s.Status == NotRun && slices.Contains(r.Required, s.ID) {
			r.Missing = append(r.Missing, s.ID)
		}
	}
	if len(r.Missing) > 0 || len(r.Required) == 0 {
		r.Verdict = Incomplete
	}
	if slices.ContainsFunc(r.Sections, func(s Section) bool { return s.Status == Fail }) {
		r.Verdict = Fail
	}
}

// ErrContradiction says that a report claims more than its lines show, which none does that
// [Run] made.
var ErrContradiction = errors.New("the report contradicts itself")

// Judge returns the report with the verdict of a reader who requires these sections; without
// any, all of [Sections]. It believes no conclusion of who made the report: each is drawn again
// from the lines. One that claims more than they show is [ErrContradiction].
func (r *Report) Judge(required []string) (*Report, error) {
	if err := r.contradiction(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrContradiction, err)
	}
	if len(required) == 0 {
		for _, about := range Sections() {
			required = append(required, about.ID)
		}
	}
	return r.by(required), nil
}

// by is the report as judged by those who require these sections. One that is not in it did not run.
func (r *Report) by(required []string) *Report {
	judged := *r
	judged.Required, judged.Missing = required, []string{}
	for _, id := range required {
		if !slices.ContainsFunc(r.Sections, func(s Section) bool { return s.ID == id }) {
			judged.Missing = append(judged.Missing, id)
		}
	}
	judged.judge()
	return &judged
}

// contradiction says which conclusion of the report is better than what it is drawn from.
func (r *Report) contradiction() error {
	seen := map[string]bool{}
	for _, s := range r.Sections {
		if seen[s.ID] {
			return fmt.Errorf("it has two sections %q", s.ID)
		}
		seen[s.ID] = true
		for _, l := range s.Lines {
			wrong := slices.ContainsFunc(l.Findings, func(f Finding) bool { return f.Severity == "error" })
			if l.Status == Pass && wrong {
				return fmt.Errorf("the line %q of %q passed with an error", l.Name, s.ID)
			}
		}
		if n := s.count(); s.Status == Pass && (n[Pass] == 0 || n[Pass] < len(s.Lines)) || s.Status == NotRun && n[Fail] > 0 {
			return fmt.Errorf("the section %q is said to be %s, and %d of its %d lines passed", s.ID, s.Status.Words(), n[Pass], len(s.Lines))
		}
		if !slices.Contains([]Status{Pass, Fail, NotRun}, s.Status) {
			return fmt.Errorf("the section %q has the status %q", s.ID, s.Status)
		}
	}
	if again := r.by(r.Required).Verdict; again != r.Verdict {
		return fmt.Errorf("its verdict is said to be %q, and its sections make it %s", r.Verdict, again)
	}
	return nil
}
