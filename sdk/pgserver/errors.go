package pgserver

import "errors"

// The kinds of failure that a person can mend. Start and Discover return them
// inside an [*Error]; match them with errors.Is.
var (
	// ErrNoBinaries means that no PostgreSQL of major 15 or newer was found.
	ErrNoBinaries = errors.New("no PostgreSQL binaries")
	// ErrRunning means that a server already runs on the folder.
	ErrRunning = errors.New("already running")
	// ErrForeign means that the folder holds something else or belongs to
	// another user.
	ErrForeign = errors.New("foreign folder")
	// ErrBroken means that the data folder is incomplete or damaged.
	ErrBroken = errors.New("broken data folder")
	// ErrVersion means that another major version made the data folder, or that
	// PgBouncer is too old for its options.
	ErrVersion = errors.New("another major version")
	// ErrFolder means that the server's user cannot reach or use a folder.
	ErrFolder = errors.New("unusable folder")
	// ErrPathTooLong means that the socket's path exceeds the kernel's limit.
	ErrPathTooLong = errors.New("socket path too long")
	// ErrOptions means that the options contradict each other.
	ErrOptions = errors.New("bad options")
	// ErrStart means that postgres or initdb ended with an error.
	ErrStart = errors.New("PostgreSQL did not start")
)

// Error is a failure that a person can mend.
type Error struct {
	Kind error  // one of the Err values of this package
	What string // what was found, and where
	Mend string // what to do about it
}

// Error returns what was found and the mend, in one line.
func (e *Error) Error() string {
	return "pgserver: " + e.Kind.Error() + ": " + e.What + "; mend: " + e.Mend
}

// Unwrap returns the kind, so that errors.Is(err, ErrRunning) works.
func (e *Error) Unwrap() error { return e.Kind }
