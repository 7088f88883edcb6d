// Package serve runs a service as a process: one mTLS gRPC port, one plain port for probes and metrics, an orderly
// start and an orderly end.
//
// [Run] makes what every service needs (identity, callers' rights, telemetry), lets the service build itself from
// that, and serves it until the context ends. [Load] reads configurations, [Dial] opens connections to other services.
// It is for our services; product services bring their own server and use sdk/tenantgrpc.
package serve
