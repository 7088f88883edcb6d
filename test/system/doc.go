// Package system tests whole houses: what `rowhouse dev` starts, each service a process
// of its own with its own database role and identity, and PostgreSQL beneath.
//
// It holds what only separate processes can show: the way from a domain to a tenant's
// rows, that nothing leads to another tenant's, and what goes on while parts are dead.
// What one package promises is tested in that package.
//
// TestMain builds the binaries once, or takes those in the folder ROWHOUSE_BIN. One
// house is shared by the tests that do not harm it, see shared; the others start their
// own with start. Start at way_test.go.
package system
