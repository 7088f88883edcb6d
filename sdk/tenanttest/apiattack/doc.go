// Package apiattack attacks a gRPC service from its descriptors: one tenant tries to
// reach what is another's, by every method and every field.
//
// [Attack] needs two parties, who call as two tenants of the same service. It creates
// things as the victim, learns their ids from the answers, and then calls as the
// attacker with the victim's ids in every field, the victim's page tokens, etags,
// request ids and masks, in batches and streams, in the very bytes that the victim just
// sent. An attack has held when
//
//   - the answer is the one that an id gets which never existed: the code, the message,
//     the details, the headers and trailers, the fields;
//   - nothing of the victim's is in the answer: no piece of its canaries, none of its ids
//     that the attacker did not send;
//   - the victim's own reads answer as before.
//
// What varies by itself, such as times, is found by asking twice with ids that never
// existed, and is left out of the comparison.
//
// The package is not about SQL (see the red-team corpus) nor about tokens (see
// sdk/tenant), and it cannot attack what it cannot call: a method whose ordinary call
// fails is listed as untested with the reason, and [Run] fails for it until a sample
// makes it work or a reason excuses it.
//
// Start at [Run] in a test:
//
//	func TestOneTenantCannotReachAnother(t *testing.T) {
//		conn := dial(t, serve(t)) // your service, as your tests start it
//		apiattack.Run(t, apiattack.Target{
//			Victim:   apiattack.Party{Conn: conn, In: as("acme")},
//			Attacker: apiattack.Party{Conn: conn, In: as("globex")},
//			Services: []string{"notes.v1.NotesService"},
//		})
//	}
//
// and at [Attack] elsewhere. The package does not import testing.
package apiattack
