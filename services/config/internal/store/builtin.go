package store

import (
	"context"
	"fmt"
)

// BuiltIn is what a release noted of a namespace that exists from the start.
type BuiltIn struct {
	// Version is the number of the schema, 0 where nothing is noted.
	Version int32
	// Schema is what the release wrote; another one in the namespace is an owner's.
	Schema string
}

// ReadBuiltIn returns what is noted of a namespace.
func ReadBuiltIn(ctx context.Context, q Querier, uid string) (b BuiltIn, err error) {
	err = q.QueryRow(ctx, `SELECT builtin_version, builtin_schema FROM settings.namespace WHERE uid = $1`, uid).Scan(&b.Version, &b.Schema)
	if err != nil {
		return b, fmt.Errorf("read what is noted of a namespace: %w", err)
	}
	return b, nil
}

// PutBuiltIn notes what a release wrote.
func PutBuiltIn(ctx context.Context, q Querier, uid string, b BuiltIn) error {
	_, err := q.Exec(ctx, `UPDATE settings.namespace SET builtin_version = $2, builtin_schema = $3 WHERE uid = $1`, uid, b.Version, b.Schema)
	if err != nil {
		return fmt.Errorf("note what a release wrote: %w", err)
	}
	return nil
}
