package registry

import (
	"crypto/sha256"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// Migration is a change of an app's tables.
type Migration struct {
	// Version orders an app's migrations, such as "0001_notes".
	Version string
	// Sum is the SHA-256 of Statements.
	Sum        [sha256.Size]byte
	Statements string
}

// NewMigration returns the migration with its sum.
func NewMigration(version, statements string) Migration {
	return Migration{Version: version, Sum: sha256.Sum256([]byte(statements)), Statements: statements}
}

// Register returns those of wanted that are new to an app that has registered known, both in the order of their versions.
// Errors: INVALID_FIELD when wanted is in no order; CHECKSUM_DRIFT when one that is known has another text now;
// MIGRATION_OUT_OF_ORDER when a new one comes before a known one.
func Register(known, wanted []Migration) ([]Migration, error) {
	sums, last := make(map[string][sha256.Size]byte, len(known)), ""
	for _, m := range known {
		sums[m.Version], last = m.Sum, m.Version
	}
	var fresh []Migration
	for i, m := range wanted {
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
	return fresh, nil
}
