// Package tenantotel makes one tenant visible in traces, metrics and logs.
//
// Every span, log line and exemplar of a call bears the tenant of the verified
// context that the call carries, and of nothing else: no header, no baggage and
// no trace state of a caller ever becomes a tenant here. Baggage is neither read
// nor forwarded.
//
// Start at [Setup]; give [Telemetry.ServerOptions] to gRPC servers,
// [Telemetry.Handler] to HTTP servers, [Telemetry.ClientOptions] to connections, [Telemetry.Logger] to whoever logs
// and [Telemetry.Metrics] to the ops port. Nothing here is global: providers are
// handed on.
//
// Telemetry never holds up the work it watches: exporters queue, and drop when a
// collector is slow or gone. Tenants are kept off metric labels, whose number
// must not grow with the number of tenants; they stay on exemplars.
package tenantotel
