// Package pgserver starts a private PostgreSQL from the binaries that are
// installed on this machine.
//
// It is for `rowhouse dev`, for tests (through package pgtest) and for tools
// that need a real PostgreSQL for a while. It is not for production databases:
// it neither replicates nor backs up, and it listens on nothing but a Unix
// socket and, on request, the loopback address.
//
// A server is one postgres process in its own process group. It dies with the
// process that started it, however that ends. It works for an ordinary user,
// and for root, where it drops to the user postgres (else nobody), because
// PostgreSQL refuses to run as root.
//
// Start with [Start] and [Options]; [Test] and [Dev] are the two profiles.
// [StartBouncer] puts a PgBouncer before a server. Every failure that a person can mend is an [*Error] that names the mend in
// one line.
package pgserver
