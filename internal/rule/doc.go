// Package rule enforces what every RPC declares about itself in the method option rowhouse.api.v1.rule.
//
// Its interceptors stand before every handler of our services. In this order they ask: is the method known; who calls;
// is the request small enough, does it hold unknown fields, does each field keep its rule; may the caller do this; was
// a reason given. What the handler then needs to know about the call is in [CallFrom]. A method without a complete
// declaration keeps its server from starting: [Check].
//
// Services whose protos are not ours get their rules from a [Table]. The package decides about callers and requests,
// never about resources: whether the target exists, and in which state, is the handler's matter. Start at [New].
package rule
