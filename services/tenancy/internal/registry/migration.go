package registry

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// Migration is a change of an app's tables.
type Migration struct {
	// Version orders an app's migrations, such as "0001_notes".
	Version string
	// Sum is the SHA-256 of Statements.
	Sum [sha256.Size]byte
	// Bytes is the length of Statements, which may be left out.
	Bytes      int
	Statements string
}

// What an app may register in all: a new home runs it in one go.
const (
	MaxMigrations     = 1000
	MaxMigrationBytes = 8 << 20
)

// NewMigration returns the migration with its sum.
func NewMigration(version, statements string) Migration {
	return Migration{Version: version, Sum: sha256.Sum256([]byte(statements)), Bytes: len(statements), Statements: statements}
}

// Register returns those of wanted that are new to an app that has registered known, both in the order of their versions.
// Numbers may leave gaps. Errors: INVALID_FIELD when wanted is in no order, or one holds what PostgreSQL cannot;
// CHECKSUM_DRIFT when one that is known has another text now; MIGRATION_OUT_OF_ORDER when a new one comes before a known
// one; MIGRATIONS_TOO_MANY.
func Register(known, wanted []Migration) ([]Migration, error) {
	sums, last := make(map[string][sha256.Size]byte, len(known)), ""
	for _, m := range known {
		sums[m.Version], last = m.Sum, m.Version
	}
	var fresh []Migration
	for i, m := range wanted {
		if strings.Contains(m.Statements, "\x00") {
			field, what := fmt.Sprintf("migrations[%d].statements", i), "holds a NUL byte"
			return nil, fault.New(fault.InvalidArgument, fault.ReasonInvalidField, "%s of %s %s", field, m.Version, what).
				WithField(fault.FieldViolation{Field: field, Description: what})
		}
		if i > 0 && m.Version <= wanted[i-1].Version {
			return nil, fault.New(fault.InvalidArgument, fault.ReasonInvalidField, "migrations: %s does not come after %s",
				m.Version, wanted[i-1].Version).WithField(fault.FieldViolation{Field: "migrations", Description: "are not in the order of their ids"})
		}
		sum, registered := sums[m.Version]
		switch {
		case registered && sum != m.Sum:
			return nil, refuse(fault.FailedPrecondition, ReasonChecksumDrift,
				"%s was registered with another text; what ran stays as it is, so write a new migration", m.Version).
				WithMetadata("migration", m.Version)
		case !registered && m.Version < last:
			return nil, refuse(fault.FailedPrecondition, ReasonMigrationOutOfOrder,
				"%s comes before %s, which is registered; give it a later number", m.Version, last).
				WithMetadata("migration", m.Version).WithMetadata("last", last)
		case !registered:
			fresh = append(fresh, m)
		}
	}
	return fresh, bounded(known, fresh)
}

// bounded refuses more migrations than an app may have.
func bounded(known, fresh []Migration) error {
	all, bytes := slices.Concat(known, fresh), 0
	for _, m := range all {
		bytes += m.Bytes
	}
	switch {
	case len(fresh) == 0:
		return nil
	case len(all) > MaxMigrations:
		return tooMany(fmt.Sprintf("%d migrations", MaxMigrations), len(all))
	case bytes > MaxMigrationBytes:
		return tooMany(fmt.Sprintf("%d bytes of migrations", MaxMigrationBytes), bytes)
	}
	return nil
}

func tooMany(limit string, count int) error {
	return refuse(fault.ResourceExhausted, ReasonMigrationsTooMany, "an app may have %s; the app would have %d", limit, count).
		WithMetadata("limit", limit)
}

// Withdraw says whether the migration with the version may be withdrawn from an app whose newest is newest and of whose
// homes the furthest has, or may have, run reached. Errors: MIGRATION_OUT_OF_ORDER; MIGRATION_IN_USE.
func Withdraw(version, newest, reached string) error {
	switch {
	case version != newest:
		return refuse(fault.FailedPrecondition, ReasonMigrationOutOfOrder,
			"%s is not the newest migration; withdraw %s and all between them first, the newest first", version, newest).
			WithMetadata("migration", version).WithMetadata("last", newest)
	case version <= reached:
		return refuse(fault.FailedPrecondition, ReasonMigrationInUse,
			"%s ran in a tenant's home and stays as it is, so write a new migration; or a home is just at it: then try again", version).
			WithMetadata("migration", version)
	}
	return nil
}
