package gateway

import (
	"io/fs"

	"github.com/rowhouse-platform/rowhouse/internal/change"
)

// Database is the name of the gateway's database and the prefix of its roles.
const Database = "rowhouse_gateway"

// Migrations returns what makes the database, in order.
func Migrations() []fs.FS { return []fs.FS{change.Migrations()} }
