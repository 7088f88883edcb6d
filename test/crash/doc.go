// Package crash kills PostgreSQL and the app with SIGKILL in the middle of writes, and
// compares what is there afterwards with what was acknowledged. It has tests only.
package crash
