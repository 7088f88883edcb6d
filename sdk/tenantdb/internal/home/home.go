// Package home says where a tenant's tables of an app are, and writes SQL for that place.
//
// SQL always says app.note. In the SHARED and DATABASE models the schema is app; in the
// SCHEMA model it is the tenant's own, and the qualifier is swapped in the text. A
// search_path would do the same at run time, but PostgreSQL then analyses each prepared
// statement anew, and a pooler may serve the path of another tenant.
package home

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// SharedSchema is the schema that SQL names, and where tables are unless the tenant has a
// schema of its own.
const SharedSchema = "app"

// maxName is the longest identifier of PostgreSQL, which cuts longer ones.
const maxName = 63

// Schema returns the name of the tenant's schema in the SCHEMA model.
func Schema(uid tenant.UID) string { return "t_" + hex.EncodeToString(uid[:]) }

// SharedDatabase returns the name of the database in which an app keeps the tenants of the
// SHARED and SCHEMA models.
func SharedDatabase(app string) string { return strings.ReplaceAll(app, "-", "_") }

// Database returns the name of the tenant's database in the DATABASE model. An app's name
// that leaves no room for the tenant is cut, and told from others by a digest.
func Database(app string, uid tenant.UID) string {
	prefix := SharedDatabase(app)
	if room := maxName - 1 - 2*len(uid); len(prefix) > room {
		sum := sha256.Sum256([]byte(app))
		digest := hex.EncodeToString(sum[:4])
		prefix = prefix[:room-1-len(digest)] + "_" + digest
	}
	return prefix + "_" + hex.EncodeToString(uid[:])
}
