// Package catalog audits a database of tenants: it reads PostgreSQL's catalogs and finds
// what would let an application reach another tenant's rows, whatever put it there.
//
// It is for whoever changes such a database: cell.Init and cell.Migrate run it, tenancy
// after it provisioned, the command line for operators and CI. It reads no tenant's row,
// changes nothing, and does not replace the attacks of sdk/tenanttest: a catalog without
// findings says that the defences are in place, not that they hold.
//
// Start at [Audit]; package cell knows what to compare schema rowhouse with, so most
// callers want cell.Audit. [Rules] is the table of what is looked for. A [Report] writes
// itself as text, JSON, or SARIF 2.1.0 for code hosts.
package catalog
