package tenancy

import (
	"context"
	"errors"
	"fmt"

	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/services/tenancy/internal/cells"
)

// Check does all that a start does short of connecting and listening: it reads every file that c names.
func (c Config) Check(ctx context.Context) error {
	if err := c.Validate(); err != nil {
		return err
	}
	faults := []error{c.Process.Check(ctx)}
	if err := (pg.Config{DSNFile: string(c.Database)}).Validate(); err != nil {
		faults = append(faults, fmt.Errorf("database: %w", err))
	}
	_, err := c.keys()
	faults = append(faults, err, c.Hooks.check())
	databases, err := cells.Open(string(c.CellSecrets))
	if err != nil {
		return errors.Join(append(faults, fmt.Errorf("cell_secrets: %w", err))...)
	}
	databases.Close()
	return errors.Join(faults...)
}
