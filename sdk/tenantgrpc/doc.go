// Package tenantgrpc carries tenant contexts and refusals over gRPC.
//
// On the way in, [Server] verifies the context before anything else sees the
// call, so that every span and log line of the call bears the right tenant, and
// refuses what needs a context and has none. On the way out, [Client] forwards
// the context of the call being served. Streams end when their tenant is
// suspended, moved or deleted, and when their context expires without being
// renewed.
//
// Requests that break the rules beside their fields (buf.validate) are refused as
// INVALID_FIELD before a handler sees them: [Examine].
//
// Which methods need a context is not configured: each RPC declares it in the
// method option rowhouse.api.v1.rule, product services' own protos included. A
// server calls [Check] when all its services are registered, and does not start
// when one of its methods declares nothing.
//
// [Status] and [FromStatus] are the one mapping between faults and gRPC
// statuses.
//
// The package asks for whom a call is made. Who may administer what, on the
// other planes, is not its matter.
package tenantgrpc
