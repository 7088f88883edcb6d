// Package tenant says for which tenant a call is made, and proves it.
//
// A tenant context is made once, at the edge, by a [Signer]; it travels as one
// metadata entry, [MetadataKey]; every service on the way checks it with a
// [Verifier]. A [Context] exists only after that check, so whoever holds one
// holds a verified statement: there is no other constructor, and readers who
// find none get an error, never a zero value. Tests get theirs from
// sdk/tenanttest, which signs and verifies real tokens.
//
// Start at [Verifier.Verify] on the way in and [FromContext] in a handler. The
// verifier reads a [Trust]: signing keys and the state of every tenant, fed by
// tenancy and seen by the very next call, cached tokens included.
//
// The package knows no transport: sdk/tenantgrpc and sdk/tenanthttp carry the
// token, sdk/trust feeds the trust, sdk/tenantdb turns the context's seal into
// a database transaction. It says who the tenant is, not what a caller may do.
package tenant
