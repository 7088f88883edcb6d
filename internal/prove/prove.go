// Package prove runs what shows that tenants are kept apart, and makes one report of it
// that somebody else can read, verify and repeat.
//
// A [Check] makes one section of the report: it looks at databases, source or servers and
// returns lines, each with its own status and the command that repeats it. What did not run
// is never a pass. [Run] runs checks in their order; a [Report] writes itself as text, JSON
// and HTML; [Seal] signs it and [Open] verifies it.
//
// It decides nothing about isolation itself: the rules are those of package catalog and of
// rowlint, the attacks those of sdk/tenanttest. Start at [Run].
package prove

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/rowhouse-platform/rowhouse/internal/version"
)

// Format names the shape of a report; it changes when a reader of the old one would misread it.
const Format = "rowhouse-prove/1"

// Status is how a line, a section or a report ended.
type Status string

// The statuses. A report that lacks a section it needs is Incomplete; nothing else is.
const (
	Pass       Status = "pass"
	Fail       Status = "fail"
	NotRun     Status = "not_run"
	Incomplete Status = "incomplete"
)

// Report is what was shown, when, and by which programs.
type Report struct {
	// Format is [Format].
	Format string `json:"format"`
	// Verdict is Fail when a section failed, else Incomplete when one of Required did not
	// run, else Pass.
	Verdict Status `json:"verdict"`
	// Required are the ids of the sections without which there is no Pass.
	Required []string `json:"required"`
	// Missing are those of Required that did not run.
	Missing []string `json:"missing"`
	// Time is when the report was begun, in UTC.
	Time time.Time `json:"time"`
	// Challenge is what the reader asked to find here, so that the report is no older than
	// the question; empty when nobody asked.
	Challenge string `json:"challenge,omitempty"`
	// Command is the command line that makes the report again; it does not say where to write it, or which key signs.
	Command string `json:"command"`
	// Subject says in a few words what was looked at.
	Subject string `json:"subject"`
	// Programs are what looked, and Inputs what was looked at in files.
	Programs []Program `json:"programs"`
	Inputs   []Input   `json:"inputs"`
	// Sections are in the order of their checks.
	Sections []Section `json:"sections"`
}

// Program is a program that had a part in the report.
type Program struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	// SHA256 is that of its file, empty where it is not known.
	SHA256 string `json:"sha256,omitempty"`
}

// Input is a file, or a set of them, that was looked at.
type Input struct {
	Name   string `json:"name"`
	SHA256 string `json:"sha256"`
}

// Section is what one check showed.
type Section struct {
	About

	Status Status `json:"status"`
	// LeftOut says that the section did not run because nobody asked for it.
	LeftOut bool `json:"left_out,omitempty"`
	// Reason says in a line why the section has its status.
	Reason string `json:"reason"`
	// Lines are what was looked at, one by one.
	Lines []Line `json:"lines"`
	// Tables are evidence that has columns.
	Tables []Table `json:"tables"`
	// Milliseconds is how long it took.
	Milliseconds int64 `json:"milliseconds"`
}

// About says what a section is, whatever it finds.
type About struct {
	// ID is the name by which options call it; ids are stable.
	ID string `json:"id"`
	// Title is the claim in a few words.
	Title string `json:"title"`
	// Shows says what a pass shows, and Limits what it does not, for a reader who does not
	// know Rowhouse.
	Shows  string `json:"shows"`
	Limits string `json:"limits"`
	// Threats are the attackers that it is about, A0 to A3.
	Threats []string `json:"threats"`
}

// Line is one thing that was looked at.
type Line struct {
	// Name says what: a database, a model on a rung, a folder.
	Name   string `json:"name"`
	Status Status `json:"status"`
	// Result is what came out, or why it did not run.
	Result string `json:"result"`
	// Repeat is the command that does it again; empty where there is none.
	Repeat string `json:"repeat,omitempty"`
	// Findings are the faults, and remarks that are none.
	Findings []Finding `json:"findings,omitempty"`
}

// Finding is a fault or a remark.
type Finding struct {
	// Rule is the id of what found it: R02, Q5, the name of an attack.
	Rule string `json:"rule"`
	// Severity is error, warning, note or accepted; only errors make a line fail.
	Severity string `json:"severity"`
	// Object is what is wrong, or where.
	Object  string `json:"object"`
	Message string `json:"message"`
	// Mend is what to do about it, where that is known.
	Mend string `json:"mend,omitempty"`
}

// Table is evidence with columns.
type Table struct {
	Title string   `json:"title"`
	Head  []string `json:"head"`
	Rows  [][]Cell `json:"rows"`
}

// Cell is a field of a table. In JSON it is an object.
type Cell struct {
	Text string `json:"text"`
	// Mark colours it; it says nothing that Text does not.
	Mark Mark `json:"mark,omitempty"`
}

// Mark is whether a cell is good or bad news.
type Mark string

// The marks. Leaked is bad news of somebody else: of the recipe that is compared with.
const (
	Held   Mark = "held"
	Broken Mark = "broken"
	Leaked Mark = "leaked"
)

// Cells returns a row without marks.
func Cells(texts ...string) []Cell {
	row := make([]Cell, len(texts))
	for i, t := range texts {
		row[i].Text = t
	}
	return row
}

// Check makes one section.
type Check struct {
	About

	// Missing says why it cannot run, and how it could; empty when it can.
	Missing string
	// Run looks. An error means that nothing is known, so that the section did not run;
	// what it found wrong are lines. It is nil when Missing is not empty.
	Run func(ctx context.Context) (Outcome, error)
}

// Outcome is what a check found.
type Outcome struct {
	Lines    []Line
	Tables   []Table
	Programs []Program
	Inputs   []Input
}

// Options describe a report.
type Options struct {
	// Checks make the sections, in this order.
	Checks []Check
	// Only are the ids of the checks to run; empty means all. The sections of the others
	// say that they were left out.
	Only []string
	// Require are the ids of the sections without which there is no [Pass]. Empty means
	// Only or, when that is empty, all.
	Require []string
	// Challenge, Command and Subject are the report's.
	Challenge, Command, Subject string
	// Secrets are kept out of the report; checks may add to them.
	Secrets *Secrets
	// Clock is the time; nil means time.Now.
	Clock func() time.Time
	// Progress is told of each section: when it begins, with an empty status, and when it ended.
	Progress func(Section)
}

// ErrNoCheck says that options name a section that there is not.
var ErrNoCheck = errors.New("no such section")

// Run runs the checks and makes the report. What a check finds, or why it could not look, is
// in the report: the only errors are unknown ids, which are [ErrNoCheck].
func Run(ctx context.Context, o Options) (*Report, error) {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Progress == nil {
		o.Progress = func(Section) {}
	}
	if err := o.Check(); err != nil {
		return nil, err
	}
	r := &Report{
		Format: Format, Time: o.Clock().UTC().Truncate(time.Second), Challenge: o.Challenge, Command: o.Command,
		Subject: o.Subject, Required: o.required(), Missing: []string{}, Programs: []Program{self()}, Inputs: []Input{},
	}
	for _, c := range o.Checks {
		r.Sections = append(r.Sections, r.section(ctx, &o, c))
	}
	r.judge()
	r.tidy()
	r.scrub(o.Secrets.list())
	return r, nil
}

// Check says whether [Run] would refuse the options, which is for ids that no check has: [ErrNoCheck].
func (o *Options) Check() error {
	for _, id := range slices.Concat(o.Only, o.Require) {
		if !slices.ContainsFunc(o.Checks, func(c Check) bool { return c.ID == id }) {
			return fmt.Errorf("%w: %q; there are %s", ErrNoCheck, id, strings.Join(o.ids(), ", "))
		}
	}
	return nil
}

func (o *Options) ids() []string {
	all := make([]string, len(o.Checks))
	for i, c := range o.Checks {
		all[i] = c.ID
	}
	return all
}

// required returns the ids without which there is no pass, in the order of the sections.
func (o *Options) required() []string {
	named := o.Require
	if len(named) == 0 {
		named = o.Only
	}
	if len(named) == 0 {
		return o.ids()
	}
	return slices.DeleteFunc(o.ids(), func(id string) bool { return !slices.Contains(named, id) })
}

// section runs one check.
func (r *Report) section(ctx context.Context, o *Options, c Check) Section {
	s := Section{About: c.About, Status: NotRun, Lines: []Line{}, Tables: []Table{}}
	switch {
	case len(o.Only) > 0 && !slices.Contains(o.Only, c.ID):
		s.LeftOut, s.Reason = true, "left out: --only names other sections"
	case c.Missing != "":
		s.Reason = c.Missing
	case ctx.Err() != nil:
		s.Reason = "interrupted"
	default:
		o.Progress(s)
		began := o.Clock()
		found, err := c.Run(ctx)
		s.Milliseconds = o.Clock().Sub(began).Milliseconds()
		s.Lines, s.Tables = append(s.Lines, found.Lines...), append(s.Tables, found.Tables...)
		r.Programs, r.Inputs = append(r.Programs, found.Programs...), append(r.Inputs, found.Inputs...)
		s.judge(err)
	}
	o.Progress(s)
	return s
}

// tidy puts what came from several checks in one order, each thing once, and makes absent
// lists empty ones.
func (r *Report) tidy() {
	slices.SortFunc(r.Programs, func(a, b Program) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version), cmp.Compare(a.SHA256, b.SHA256))
	})
	r.Programs = slices.Compact(r.Programs)
	slices.SortFunc(r.Inputs, func(a, b Input) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.SHA256, b.SHA256)) })
	r.Inputs = slices.Compact(r.Inputs)
	for i := range r.Sections {
		if r.Sections[i].Threats == nil {
			r.Sections[i].Threats = []string{}
		}
	}
}

// Counts returns how many sections passed, failed, and did not run.
func (r *Report) Counts() (passed, failed, notRun int) {
	for _, s := range r.Sections {
		switch s.Status {
		case Pass:
			passed++
		case Fail:
			failed++
		default:
			notRun++
		}
	}
	return passed, failed, notRun
}

// self describes the running program.
func self() Program {
	p := Program{Name: "rowhouse", Version: version.String() + " " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH}
	if path, err := os.Executable(); err == nil {
		p.SHA256, _ = sumFile(path) // a program that cannot read itself has no sum
	}
	return p
}

// sumFile returns the SHA-256 of a file in hex.
func sumFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// SQLInputs returns an input for each *.sql file at the root of files, named below name.
func SQLInputs(name string, files fs.FS) ([]Input, error) {
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		return nil, fmt.Errorf("look for migrations: %w", err)
	}
	var all []Input
	for _, file := range names {
		b, err := fs.ReadFile(files, file)
		if err != nil {
			return nil, fmt.Errorf("read a migration: %w", err)
		}
		sum := sha256.Sum256(b)
		all = append(all, Input{Name: name + "/" + file, SHA256: hex.EncodeToString(sum[:])})
	}
	return all, nil
}
