// Package defects takes one defence away at a time and looks that something cries.
//
// A defence in PostgreSQL is taken from a live scratch database, which the corpus of attacks
// (sdk/tenanttest/sqlattack) and the audit of the catalogs then look at. A defence in Go is
// taken by an overlay: the tests of a package are built with one file changed, and one of
// them must fail. Nothing of the repository is written.
//
// The tables are in database_test.go and code_test.go. In a normal run every row is held
// against today's texts and a few are tried; with ROWHOUSE_TEST_LONG=1 all are, in some minutes.
package defects
