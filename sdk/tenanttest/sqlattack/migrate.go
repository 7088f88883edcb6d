package sqlattack

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
)

const careless = "9000_careless"

// migrate ships a migration of the app's developers to the victim's home.
func (s *scene) migrate(ctx context.Context, sql string) error {
	first, err := fs.ReadFile(Migrations(), "0001_notes.sql")
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	files, err := archive(map[string]string{"0001_notes.sql": string(first), careless + ".sql": sql})
	if err != nil {
		return err
	}
	if s.model == tenant.ModelSchema {
		return cell.MigrateSchema(ctx, s.adminTheir, s.victim.UID, files)
	}
	return cell.Migrate(ctx, s.adminTheir, files)
}

// archive is a file system in memory.
func archive(files map[string]string) (fs.FS, error) {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, text := range files {
		f, err := w.Create(name)
		if err == nil {
			_, err = io.WriteString(f, text)
		}
		if err != nil {
			return nil, fmt.Errorf("write %s: %w", name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("write migrations: %w", err)
	}
	r, err := zip.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	return r, nil
}

// withdraw takes a migration back that was let in.
func (a *arena) withdraw(ctx context.Context, undo string) error {
	if a.level.Ours() {
		undo = "DELETE FROM rowhouse.migration WHERE version = '" + careless + "'; " + undo
	}
	if _, err := a.adminTheir.PgConn().Exec(ctx, undo).ReadAll(); err != nil {
		return fmt.Errorf("take the migration back: %w", err)
	}
	return nil
}
