// Package audit keeps hash chains of what was asked of a service and how it ended: one chain per tenant and one for
// the platform, in the service's own database.
//
// [Append] is called by internal/change inside the transaction of the call that it records; nothing else writes.
// [Verify] recomputes a chain, [NewServer] serves rowhouse.audit.v1. The package does not sign or ship chains
// elsewhere.
package audit

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	auditv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"
)

// Platform is the chain of calls that concern no single tenant.
const Platform = "platform"

const prefix = "rowhouse/audit/v1"

// Hash is a link of a chain.
type Hash = [sha256.Size]byte

// Genesis returns the hash that the first event of chain builds on.
func Genesis(chain string) Hash { return sha256.Sum256([]byte(prefix + chain)) }

// Next returns the hash of the chain after the event at position seq.
func Next(last Hash, seq int64, event []byte) Hash {
	leaf := sha256.Sum256(append([]byte{0}, event...))
	b := make([]byte, 0, 1+len(last)+8+len(leaf))
	b = append(b, 1)
	b = append(b, last[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(seq)) //nolint:gosec // positions are not negative
	b = append(b, leaf[:]...)
	return sha256.Sum256(b)
}

// Facts is what is known of a call before it ends.
type Facts struct {
	Time                             time.Time
	Service, Method, Principal, Peer string
	Request                          proto.Message
	RequestID, Reason, TraceID       string
	ValidateOnly                     bool
}

// Draft returns the event of a call, without its outcome and its place in a chain. The request leaves only its digest.
func Draft(f Facts) *auditv1.Event {
	e := &auditv1.Event{
		Time: timestamppb.New(f.Time), Service: f.Service, Method: f.Method, Principal: f.Principal, Peer: f.Peer,
		RequestId: f.RequestID, Reason: f.Reason, TraceId: f.TraceID,
		ValidateOnly: f.ValidateOnly,
	}
	if f.Request != nil {
		// A request that came over the wire can be encoded again.
		b, _ := proto.MarshalOptions{Deterministic: true}.Marshal(f.Request)
		sum := sha256.Sum256(b)
		e.RequestDigest = sum[:]
	}
	return e
}

// Append adds e to the end of chain. The transaction holds the chain's lock until it ends. e is not changed.
func Append(ctx context.Context, tx pgx.Tx, chain string, e *auditv1.Event) error {
	b, err := encode(chain, e)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `SELECT audit.append($1, $2)`, chain, b); err != nil {
		return fmt.Errorf("append to audit chain: %w", err)
	}
	return nil
}

// encode returns the bytes that are hashed and kept. They hold all but what the place in the chain says by itself.
func encode(chain string, e *auditv1.Event) ([]byte, error) {
	c, ok := proto.Clone(e).(*auditv1.Event)
	if !ok {
		return nil, errors.New("clone audit event")
	}
	c.Name, c.Seq, c.Hash, c.Chain = "", 0, nil, chain
	if chain != Platform {
		c.TenantUid = chain
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode audit event: %w", err)
	}
	return b, nil
}

// decode is the inverse of encode for the event stored at seq of chain.
func decode(chain string, seq int64, event, hash []byte) (*auditv1.Event, error) {
	e := new(auditv1.Event)
	if err := proto.Unmarshal(event, e); err != nil {
		return nil, fmt.Errorf("decode audit event %s/%d: %w", chain, seq, err)
	}
	e.Name, e.Seq, e.Hash = eventName(chain, seq), seq, hash
	return e, nil
}

func eventName(chain string, seq int64) string { return fmt.Sprintf("chains/%s/events/%d", chain, seq) }
