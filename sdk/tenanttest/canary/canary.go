// Package canary finds what belongs to one tenant in what another can read.
//
// A [Watch] hands out secrets: texts that nobody can guess, which a test writes into one
// tenant's rows. It then looks for them in everything that leaves a service: the answers,
// errors, headers and trailers of calls ([Watch.DialOptions], [Watch.Transport]), logs
// ([Watch.Writer]), metrics ([Watch.Source]) and traces ([Watch.Exporter]). A piece of
// twelve characters is enough, whatever its case; so is one in base64, in hex, escaped for
// URLs or JSON, in UTF-16, or spelled backwards.
//
//	watch := canary.New()
//	secret := watch.Secret("acme") // goes into a row of acme's
//	conn := dial(t, watch.DialOptions("globex")...)
//	log := slog.New(slog.NewJSONHandler(watch.Writer("log"), nil))
//	… // globex calls, with the service logging to log
//	watch.Check(t)
//
// What is encrypted or compressed is not looked into. Start at [New].
package canary

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Watch knows whose secrets and ids are whose, and what was found where it must not be.
// It is safe for concurrent use.
type Watch struct {
	mu      sync.RWMutex
	needles map[key][]needle // guarded by mu
	owners  map[string]map[string]bool
	sources []source        // guarded by mu
	finds   map[string]Find // guarded by mu, by what makes them different
}

// Find is a place that shows what is another's.
type Find struct {
	// Owner is whose it is; Reader is who could read it, empty for what is nobody's own,
	// such as a log.
	Owner, Reader string
	// Where is what was looked at, as "/notes.v1.NotesService/GetNote" or "log".
	Where string
	// Value is the id that was found, or empty where it is a piece of a secret.
	Value string
	// Form says how it was written: "plain", "base64", "hex", …
	Form string
	// Excerpt is what stands around it, quoted.
	Excerpt string
}

// String is the find in one line.
func (f Find) String() string {
	what := "a secret of " + f.Owner
	if f.Value != "" {
		what = "the id " + f.Value + " of " + f.Owner
	}
	reader := ""
	if f.Reader != "" {
		reader = ", read by " + f.Reader
	}
	return fmt.Sprintf("%s (%s) in %s%s: %s", what, f.Form, f.Where, reader, f.Excerpt)
}

type source struct {
	where string
	read  func(context.Context) ([]byte, error)
}

// New returns a watch that knows no secrets yet.
func New() *Watch {
	return &Watch{needles: map[key][]needle{}, owners: map[string]map[string]bool{}, finds: map[string]Find{}}
}

// secretLetters is the length of a secret: 26 letters and digits of 5 bits, which survive
// every encoding of text as they are.
const secretLetters = 26

// Secret returns a new secret of owner. Nobody else may ever read a piece of it, and it
// may not stand in logs, metrics and traces.
func (w *Watch) Secret(owner string) string {
	secret := strings.ToLower(rand.Text())[:secretLetters]
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range pieces(secret) {
		n.owner = owner
		w.add(n)
	}
	return secret
}

// ID makes a value known as owner's: nobody else may read it. It may stand in logs. A
// value of less than eight bytes, or one that two owners have, is nobody's.
func (w *Watch) ID(owner, value string) {
	if len(value) < keyLength {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.owners[value] == nil {
		w.owners[value] = map[string]bool{}
		for _, n := range spellings(value) {
			n.value = value
			w.add(n)
		}
	}
	w.owners[value][owner] = true
}

func (w *Watch) add(n needle) {
	k := keyOf(n.bytes)
	w.needles[k] = append(w.needles[k], n)
}

// Search returns what reader must not see of data, without remembering it. An empty
// reader is for what everybody's calls leave behind: there every secret is a find and no
// id is.
func (w *Watch) Search(reader, where string, data []byte) []Find {
	w.mu.RLock()
	defer w.mu.RUnlock()
	found := map[string]Find{}
	w.scan(data, func(n needle, at int) {
		f := Find{Owner: n.owner, Reader: reader, Where: where, Value: n.value, Form: n.form}
		if n.value != "" {
			owners := w.owners[n.value]
			if reader == "" || owners[reader] || len(owners) != 1 {
				return
			}
			for owner := range owners {
				f.Owner = owner
			}
		}
		if f.Owner == reader {
			return
		}
		if _, known := found[f.identity()]; !known {
			f.Excerpt = excerpt(data, at, len(n.bytes))
			found[f.identity()] = f
		}
	})
	return slices.SortedFunc(maps.Values(found), Find.compare)
}

// Look searches data and remembers what it finds.
func (w *Watch) Look(reader, where string, data []byte) {
	finds := w.Search(reader, where, data)
	if len(finds) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, f := range finds {
		if _, known := w.finds[f.identity()]; !known {
			w.finds[f.identity()] = f
		}
	}
}

// Source has [Watch.Finds] look at what read returns then: a scrape of metrics, a file.
func (w *Watch) Source(where string, read func(context.Context) ([]byte, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sources = append(w.sources, source{where, read})
}

// Finds reads the sources and returns all finds so far. The error says which sources could
// not be read; what else was found is returned with it.
func (w *Watch) Finds(ctx context.Context) ([]Find, error) {
	w.mu.RLock()
	sources := slices.Clone(w.sources)
	w.mu.RUnlock()
	var errs []error
	for _, s := range sources {
		data, err := s.read(ctx)
		if err != nil {
			errs = append(errs, fmt.Errorf("read %s: %w", s.where, err))
		}
		w.Look("", s.where, data)
	}
	w.mu.RLock()
	defer w.mu.RUnlock()
	return slices.SortedFunc(maps.Values(w.finds), Find.compare), errors.Join(errs...)
}

// T is the part of testing.TB that a check needs.
type T interface {
	// Helper marks the caller as one that speaks for its own caller.
	Helper()
	// Context ends with the test.
	Context() context.Context
	// Errorf makes the test fail and goes on.
	Errorf(format string, args ...any)
}

// Check fails the test for each find. Call it when all calls have ended.
func (w *Watch) Check(t T) {
	t.Helper()
	finds, err := w.Finds(t.Context())
	if err != nil {
		t.Errorf("%v", err)
	}
	for _, f := range finds {
		t.Errorf("%s", f)
	}
}

// identity is what makes finds different: the same secret twice in one log is one find.
func (f Find) identity() string {
	return strings.Join([]string{f.Where, f.Reader, f.Owner, f.Value, f.Form}, "\x00")
}

func (f Find) compare(g Find) int { return cmp.Compare(f.identity(), g.identity()) }
