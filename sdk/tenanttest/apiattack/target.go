package apiattack

import (
	"cmp"
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/canary"
)

// Target is a service and those who call it. Victim and Attacker are required.
type Target struct {
	// Victim owns what is attacked, Attacker reaches for it: two tenants of the service
	// that have nothing to do with one another. Both get data written; give tenants that
	// exist for this.
	Victim, Attacker Party
	// Intruders may call nothing at all. Where Attacker.In is set, one that calls
	// without it, "no context", is added.
	Intruders []Intruder

	// Services are the full names of the services to attack. Default: all that the server
	// lists by reflection, else all linked-in services of which a method declares itself
	// to be of the data plane (rowhouse.api.v1.rule).
	Services []string
	// Files describes the services. Default: server reflection over Attacker.Conn where
	// the server has it, else the linked-in descriptors.
	Files *protoregistry.Files

	// Values are for fields that cannot be guessed, by the field's full name, for example
	// "notes.v1.Note.color": a text as it stands in JSON without quotes. Both parties use them.
	Values map[string]string
	// Fix has the last word on every ordinary request, before an attack is put into it.
	// The request has its generated type where that is linked in, else it is a dynamicpb.Message.
	Fix func(method string, request proto.Message)
	// Absent returns an id of the same form as one that exists, which never existed itself:
	// for ids with a checksum. Default: the characters behind the last separator are others
	// of the same kind.
	Absent func(id string) string
	// Skip says of methods, as "/notes.v1.NotesService/ListNotes", why they are not attacked.
	Skip map[string]string

	// Only are the methods to attack, as in Skip; the others are called for what they make
	// and show, and listed as excused. Default: all.
	Only []string

	// Canary also looks at what the service writes elsewhere: logs, metrics, traces. The
	// secrets of both parties are planted in it. Default: a watch on the answers alone.
	Canary *canary.Watch

	// Timing is how often each look-up is timed with the victim's id and with one that
	// never existed. Default 0: not at all. Below 50 there is no verdict.
	Timing int
	// TimingRatio is the ratio of the medians from which on times tell too much; below it
	// they are reported only. Default 3.
	TimingRatio float64
	// MaxPerMethod bounds the attacks on one method; those left out are counted in the
	// report. Default 400.
	MaxPerMethod int
	// Deadline is the time for one unary call. Default 5 s.
	Deadline time.Duration
	// Quiet is how long a stream may send nothing before it counts as having said all.
	// Default 300 ms.
	Quiet time.Duration
	// Seed makes the values that the attacks choose. Default: a random one, which the
	// report names.
	Seed uint64
}

// Party calls the service as one tenant.
type Party struct {
	// Conn is the connection, with the credentials of a workload that may call for the tenant.
	Conn grpc.ClientConnInterface
	// In returns ctx with what makes a call the tenant's, usually a context in outgoing
	// metadata. It is asked before each call, because contexts are short and some are good
	// for one request. request is the first message of a stream, or nil where it is not
	// known yet. Default: ctx as it is, for connections that are a tenant's by themselves.
	In func(ctx context.Context, method string, request proto.Message) (context.Context, error)
	// Plant writes what no method of the service writes, with the secret in it, and
	// returns the ids of what it wrote. Optional; it is asked once, before the attacks.
	Plant func(ctx context.Context, secret string) (ids []string, err error)
}

// Intruder calls without right: with an expired context, with a captured context over a
// connection that may not present it. Each of its calls must be refused as UNAUTHENTICATED
// or PERMISSION_DENIED.
type Intruder struct {
	// Name says what is wrong with it, as "expired context".
	Name string
	Party
}

// withDefaults returns the target as it is attacked.
func (t Target) withDefaults() (Target, error) {
	if t.Victim.Conn == nil || t.Attacker.Conn == nil {
		return t, errors.New("apiattack: a target has a Victim.Conn and an Attacker.Conn")
	}
	if t.Attacker.In != nil {
		bare := Intruder{Name: "no context", Party: Party{Conn: t.Attacker.Conn}}
		t.Intruders = append([]Intruder{bare}, t.Intruders...)
	}
	if t.Canary == nil {
		t.Canary = canary.New()
	}
	t.TimingRatio = cmp.Or(t.TimingRatio, 3)
	t.MaxPerMethod = cmp.Or(t.MaxPerMethod, 400)
	t.Deadline = cmp.Or(t.Deadline, 5*time.Second)
	t.Quiet = cmp.Or(t.Quiet, 300*time.Millisecond)
	return t, nil
}
