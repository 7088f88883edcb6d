// Package rls answers Envoys: it serves envoy.service.ratelimit.v3.RateLimitService, and the same over JSON, on a
// listener of its own.
//
// Who calls is an mTLS identity with declared rights over declared domains ([Peers]); what holds is what operators
// imported from envoyproxy/ratelimit's YAML ([Domains], package ruleset); what is left is known to an [Engine], which
// charges all descriptors of a request or none. The bytes of the protocol are read and written here by hand ([request],
// [answer]), since the generated code costs more than the decision; tests hold both to the generated types.
//
// It is not for tenants' limits in general, which sdk/limits decides in the process. Start at [Service] and [Server].
package rls
