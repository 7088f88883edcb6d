package apiattack

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Kind names what an attack tries.
type Kind string

// The kinds of attack.
const (
	// OwnRequest is the attacker's ordinary call: a list without the tenant in its filter.
	OwnRequest Kind = "own-request"
	// SameRequest repeats the bytes that the victim sent a moment before: a cache whose key
	// lacks the tenant.
	SameRequest Kind = "same-request"
	// ForeignID puts an id of the victim's into one field.
	ForeignID Kind = "foreign-id"
	// ForeignBatch puts an id of the victim's beside one of the attacker's.
	ForeignBatch Kind = "foreign-batch"
	// ForeignMask names the victim's things in a field mask.
	ForeignMask Kind = "foreign-mask"
	// ForeignPageToken goes on with the victim's list.
	ForeignPageToken Kind = "foreign-page-token"
	// ForeignEtag uses the victim's etag.
	ForeignEtag Kind = "foreign-etag"
	// Replay sends a request under the victim's request id: one that was used shows the
	// first answer.
	Replay Kind = "replay"
	// Stream listens while the victim writes.
	Stream Kind = "stream"
	// Intrusion calls without right, as one of the target's intruders.
	Intrusion Kind = "intrusion"
	// Timing compares how long answers take.
	Timing Kind = "timing"
	// Output looks for secrets in what the service writes elsewhere: logs, metrics, traces.
	Output Kind = "output"
)

// Kinds returns all kinds of attack.
func Kinds() []Kind {
	return []Kind{OwnRequest, SameRequest, ForeignID, ForeignBatch, ForeignMask, ForeignPageToken, ForeignEtag, Replay,
		Stream, Intrusion, Timing, Output}
}

// Verdict is how an attack ended.
type Verdict string

// The verdicts.
const (
	// Held: nothing crossed.
	Held Verdict = "held"
	// Leaked: something did, or the answer tells that a foreign thing exists.
	Leaked Verdict = "leaked"
	// Untested: the attack could not be made, and shows nothing.
	Untested Verdict = "untested"
	// Noted: a measurement to look at, not a finding.
	Noted Verdict = "noted"
)

// Result is one attack and how it ended.
type Result struct {
	// Method is the full method, "/notes.v1.NotesService/GetNote"; empty for [Output].
	Method string `json:"method,omitempty"`
	// Attack is what was tried.
	Attack Kind `json:"attack"`
	// Where says in which field or as whom: "note.name", "no context".
	Where string `json:"where,omitempty"`
	// Verdict is how it ended.
	Verdict Verdict `json:"verdict"`
	// Evidence says what was seen, in words, for each verdict but Held.
	Evidence string `json:"evidence,omitempty"`
	// Repeat is the attacker's call: the method and its request as JSON. Ids in it are
	// those of the run.
	Repeat string `json:"repeat,omitempty"`
}

// Method is what became of one method.
type Method struct {
	// Name is the full method.
	Name string `json:"name"`
	// Verdict is Held, Leaked or Untested. A method is tested when its ordinary call
	// succeeded as the victim and at least one attack on it was made.
	Verdict Verdict `json:"verdict"`
	// Why says why it is Untested.
	Why string `json:"why,omitempty"`
	// Excused tells an Untested method that the target's Skip names, or that is declared
	// to be of another plane, from one that nobody has thought of.
	Excused bool `json:"excused,omitempty"`
	// Attacks counts the attacks by kind.
	Attacks map[Kind]int `json:"attacks,omitempty"`
	// Dropped counts the attacks that were left out: by MaxPerMethod, or because ten of
	// their kind had leaked before.
	Dropped int `json:"dropped,omitempty"`
}

// Report is what an attack found.
type Report struct {
	// Seed repeats the choices of the run.
	Seed uint64 `json:"seed"`
	// Start and Duration are when and how long.
	Start    time.Time     `json:"start"`
	Duration time.Duration `json:"duration_ns"`
	// Calls is how many calls were made, by everybody.
	Calls int `json:"calls"`
	// Methods are all methods of the services, by name.
	Methods []Method `json:"methods"`
	// Results are all attacks, in the order in which they were made.
	Results []Result `json:"results"`
}

// Findings returns the results that leaked.
func (r Report) Findings() []Result { return r.with(Leaked) }

func (r Report) with(v Verdict) (some []Result) {
	for _, result := range r.Results {
		if result.Verdict == v {
			some = append(some, result)
		}
	}
	return some
}

// Untested returns the methods that were not exercised, without those that are excused
// when unexcused is asked for.
func (r Report) Untested(unexcused bool) (some []Method) {
	for _, m := range r.Methods {
		if m.Verdict == Untested && (!unexcused || !m.Excused) {
			some = append(some, m)
		}
	}
	return some
}

// Coverage is one line: how many methods and kinds of attack met, and what came of it.
func (r Report) Coverage() string {
	pairs, tested, outside, dropped := 0, 0, 0, 0
	for _, m := range r.Methods {
		pairs, dropped = pairs+len(m.Attacks), dropped+m.Dropped
		switch {
		case m.Verdict != Untested:
			tested++
		case m.Excused:
			outside++
		}
	}
	kinds := map[Kind]bool{}
	for _, result := range r.Results {
		kinds[result.Attack] = kinds[result.Attack] || result.Verdict != Untested
	}
	used := 0
	for _, ran := range kinds {
		if ran {
			used++
		}
	}
	return fmt.Sprintf("%d of %d methods × %d of %d kinds of attack: %d pairs, %d attacks, %d calls; "+
		"%d leaked, %d methods untested, %d excused, %d attacks not possible, %d dropped",
		tested, len(r.Methods), used, len(Kinds()), pairs, len(r.Results), r.Calls,
		len(r.Findings()), len(r.Untested(true)), outside, len(r.with(Untested)), dropped)
}

// WriteText writes the report for people: the coverage, what leaked, what was not tested.
func (r Report) WriteText(w io.Writer) {
	fmt.Fprintln(w, r.Coverage())
	for _, f := range r.Findings() {
		fmt.Fprintln(w, "LEAKED  ", f)
	}
	for _, f := range slices.Concat(r.with(Noted), r.with(Untested)) {
		fmt.Fprintf(w, "%-8s %s\n", f.Verdict, f)
	}
	for _, m := range r.Methods {
		kinds := make([]string, 0, len(m.Attacks))
		for _, k := range Kinds() {
			if n := m.Attacks[k]; n > 0 {
				kinds = append(kinds, fmt.Sprintf("%s×%d", k, n))
			}
		}
		if m.Dropped > 0 {
			kinds = append(kinds, fmt.Sprintf("(%d dropped)", m.Dropped))
		}
		fmt.Fprintf(w, "%-8s %s %s%s\n", m.Verdict, m.Name, strings.Join(kinds, " "), m.Why)
	}
}

// String is the result in one line.
func (r Result) String() string {
	parts := slices.DeleteFunc([]string{r.Method, string(r.Attack), r.Where}, func(s string) bool { return s == "" })
	text := strings.Join(parts, " ")
	if r.Evidence != "" {
		text += ": " + r.Evidence
	}
	if r.Repeat != "" {
		text += "; repeat as the attacker: " + r.Repeat
	}
	return text
}
