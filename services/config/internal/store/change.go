package store

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// Change is a change as it is kept.
type Change struct {
	// Change is what is told of it, but for the edits.
	*configv1.Change

	Edits []*Edit
	// Attempt counts the tries at making it live at its time, over all its schedules. TryTime is until when nobody begins
	// another one; nil for at once.
	Attempt int64
	TryTime *time.Time
	version int64
}

// Edit is what a change does to one document.
type Edit struct {
	// Name is as it was given. NamespaceUID, Layer and LayerID are what it meant then, Layer "" the namespace itself.
	Name, NamespaceUID, Layer, LayerID string
	// Base is what it was made from, Content what it wants; nil is no document.
	BaseRevision  int64
	Base, Content *string
	// Revision is what it became, 0 for nothing yet.
	Revision int64
}

const changePrefix = "changes/"

const changeColumns = `uid::text, id, state, reason, authors, digest, not_before, refusal, closing_reason, create_time,
	update_time, version, scheduled_by, attempt, try_time, rollout, started_rollout`

func scanChange(row pgx.Row) (*Change, error) {
	c := &Change{Change: new(configv1.Change)}
	var id, state string
	var digest, refusal, plan []byte
	var due *time.Time
	var created, updated time.Time
	err := row.Scan(&c.Uid, &id, &state, &c.Reason, &c.Authors, &digest, &due, &refusal, &c.ClosingReason, &created, &updated,
		&c.version, &c.Scheduler, &c.Attempt, &c.TryTime, &plan, &c.StartedRollout)
	if err != nil {
		return nil, err
	}
	c.Name, c.Digest = changePrefix+id, hex.EncodeToString(digest)
	c.State = configv1.ChangeState(configv1.ChangeState_value["CHANGE_STATE_"+state])
	c.CreateTime, c.UpdateTime = timestamppb.New(created), timestamppb.New(updated)
	if due != nil {
		c.NotBefore = timestamppb.New(*due)
	}
	if len(refusal) > 0 {
		c.Refusal = new(status.Status)
		if err := proto.Unmarshal(refusal, c.GetRefusal()); err != nil {
			return nil, fmt.Errorf("a stored refusal: %w", err)
		}
	}
	if len(plan) > 0 {
		c.Rollout = new(configv1.ChangeRollout)
		if err := proto.Unmarshal(plan, c.GetRollout()); err != nil {
			return nil, fmt.Errorf("a stored rollout of a change: %w", err)
		}
	}
	c.stamp()
	return c, nil
}

// Version counts the changes of the change itself.
func (c *Change) Version() int64 { return c.version }

func (c *Change) stamp() { c.Etag = etag.Of(c.GetUid(), c.version) }

// ReadChange returns a change. A missing one is a fault RESOURCE_NOT_FOUND.
func ReadChange(ctx context.Context, q Querier, id string) (*Change, error) {
	return readChange(ctx, q, id, "")
}

// LockChange returns a change and keeps all others from deciding about it until the transaction ends.
func LockChange(ctx context.Context, q Querier, id string) (*Change, error) {
	return readChange(ctx, q, id, " FOR NO KEY UPDATE")
}

func readChange(ctx context.Context, q Querier, id, lock string) (*Change, error) {
	c, err := scanChange(q.QueryRow(ctx, `SELECT `+changeColumns+` FROM settings.change WHERE id = $1`+lock, id))
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, notFound(changePrefix + id)
	}
	if err == nil {
		err = c.complete(ctx, q)
	}
	if err != nil {
		return nil, fmt.Errorf("read a change: %w", err)
	}
	return c, nil
}

// complete reads the edits and approvals of a change.
func (c *Change) complete(ctx context.Context, q Querier) error {
	rows, err := q.Query(ctx, `SELECT name, namespace_uid::text, layer, layer_id, base_revision, base, content, revision
		FROM settings.change_edit WHERE change_uid = $1 ORDER BY position`, c.GetUid())
	if err != nil {
		return err
	}
	if c.Edits, err = pgx.CollectRows(rows, pgx.RowToAddrOfStructByPos[Edit]); err != nil {
		return err
	}
	c.Tell(c.Edits)
	return c.approvals(ctx, q)
}

// Tell has the change say what its edits do.
func (c *Change) Tell(edits []*Edit) {
	c.Edits, c.Change.Edits = edits, nil
	for _, e := range edits {
		told := &configv1.ChangeEdit{
			Name: e.Name, Form: configv1.ChangeEditForm_CHANGE_EDIT_FORM_DELETE, BaseRevision: e.BaseRevision, Revision: e.Revision,
		}
		if e.Content != nil {
			told.Form, told.Content = configv1.ChangeEditForm_CHANGE_EDIT_FORM_REPLACE, *e.Content
		}
		c.Change.Edits = append(c.Change.Edits, told)
	}
}

func (c *Change) approvals(ctx context.Context, q Querier) error {
	rows, err := q.Query(ctx, `SELECT approver, comment, approve_time FROM settings.change_approval
		WHERE change_uid = $1 AND digest = decode($2, 'hex') ORDER BY approve_time, approver`, c.GetUid(), c.GetDigest())
	if err != nil {
		return err
	}
	c.Approvals, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (*configv1.ChangeApproval, error) {
		a := new(configv1.ChangeApproval)
		var at time.Time
		err := row.Scan(&a.Approver, &a.Comment, &at)
		a.ApproveTime = timestamppb.New(at)
		return a, err
	})
	return err
}

// ListedChanges says which changes [ListChanges] reads; empty fields leave out none.
type ListedChanges struct {
	State, NamespaceUID string
	// Before and UID are of the last one of the page before; the zero value is the first page.
	Before time.Time
	UID    string
}

// ListChanges returns up to n changes, the newest first, with the names of their edits.
func ListChanges(ctx context.Context, q Querier, l ListedChanges, n int) ([]*configv1.Change, error) {
	var before *time.Time
	var uid *string
	if !l.Before.IsZero() {
		before, uid = &l.Before, &l.UID
	}
	rows, err := q.Query(ctx, `SELECT `+changeColumns+` FROM settings.change c
		WHERE ($1 = '' OR state = $1)
			AND ($2 = '' OR EXISTS (SELECT FROM settings.change_edit e WHERE e.change_uid = c.uid AND e.namespace_uid::text = $2))
			AND ($3::timestamptz IS NULL OR (create_time, uid) < ($3, $4::uuid))
		ORDER BY create_time DESC, uid DESC LIMIT $5`, l.State, l.NamespaceUID, before, uid, n)
	if err != nil {
		return nil, fmt.Errorf("list changes: %w", err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*Change, error) { return scanChange(row) })
	if err != nil {
		return nil, fmt.Errorf("list changes: %w", err)
	}
	byUID, uids := make(map[string]*Change, len(found)), make([]string, 0, len(found))
	out := make([]*configv1.Change, 0, len(found))
	for _, c := range found {
		byUID[c.GetUid()], uids, out = c, append(uids, c.GetUid()), append(out, c.Change)
	}
	rows, err = q.Query(ctx, `SELECT change_uid::text, name, content IS NULL, base_revision, revision FROM settings.change_edit
		WHERE change_uid = ANY ($1::uuid[]) ORDER BY change_uid, position`, uids)
	if err != nil {
		return nil, fmt.Errorf("list changes: %w", err)
	}
	var of string
	var e configv1.ChangeEdit
	var gone bool
	_, err = pgx.ForEachRow(rows, []any{&of, &e.Name, &gone, &e.BaseRevision, &e.Revision}, func() error {
		one := &configv1.ChangeEdit{Name: e.GetName(), BaseRevision: e.GetBaseRevision(), Revision: e.GetRevision()}
		one.Form = configv1.ChangeEditForm_CHANGE_EDIT_FORM_REPLACE
		if gone {
			one.Form = configv1.ChangeEditForm_CHANGE_EDIT_FORM_DELETE
		}
		c := byUID[of]
		c.Change.Edits = append(c.Change.Edits, one)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list changes: %w", err)
	}
	return out, nil
}

// InsertChange makes a change. One that exists, whatever became of it, is a fault RESOURCE_EXISTS.
func InsertChange(ctx context.Context, q Querier, id string, c *Change) error {
	c.version = 1
	plan, err := c.plan()
	if err != nil {
		return err
	}
	_, err = q.Exec(ctx, `INSERT INTO settings.change (uid, id, state, reason, authors, digest, create_time, update_time, version, rollout)
		VALUES ($1, $2, $3, $4, $5, decode($6, 'hex'), $7, $8, $9, $10)`,
		c.GetUid(), id, stateText(c), c.GetReason(), c.GetAuthors(), c.GetDigest(),
		c.GetCreateTime().AsTime(), c.GetUpdateTime().AsTime(), c.version, plan)
	if pg.Code(err) == pg.CodeUniqueViolation {
		return fault.New(fault.AlreadyExists, fault.ReasonResourceExists, "changes/%s exists; ids are never free again", id)
	}
	if err != nil {
		return fmt.Errorf("insert a change: %w", err)
	}
	c.stamp()
	return c.insertEdits(ctx, q)
}

func (c *Change) insertEdits(ctx context.Context, q Querier) error {
	for i, e := range c.Edits {
		_, err := q.Exec(ctx, `INSERT INTO settings.change_edit
				(change_uid, position, name, namespace_uid, layer, layer_id, base_revision, base, content)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
			c.GetUid(), i, e.Name, e.NamespaceUID, e.Layer, e.LayerID, e.BaseRevision, e.Base, e.Content)
		if err != nil {
			return fmt.Errorf("insert an edit: %w", err)
		}
	}
	return nil
}

// plan is the rollout of a change as it is kept, empty for none.
func (c *Change) plan() ([]byte, error) {
	if c.GetRollout() == nil {
		return []byte{}, nil
	}
	b, err := proto.Marshal(c.GetRollout())
	if err != nil {
		return nil, fmt.Errorf("write a change: %w", err)
	}
	return b, nil
}

func stateText(c *Change) string {
	const prefix = len("CHANGE_STATE_")
	return c.GetState().String()[prefix:]
}

// UpdateChange writes all of a change but its edits and approvals.
func UpdateChange(ctx context.Context, q Querier, c *Change) error {
	var refusal []byte
	if c.GetRefusal() != nil {
		var err error
		if refusal, err = proto.Marshal(c.GetRefusal()); err != nil {
			return fmt.Errorf("write a change: %w", err)
		}
	}
	var due *time.Time
	if c.GetNotBefore() != nil {
		at := c.GetNotBefore().AsTime()
		due = &at
	}
	plan, err := c.plan()
	if err != nil {
		return err
	}
	c.version++
	_, err = q.Exec(ctx, `UPDATE settings.change SET state = $2, reason = $3, authors = $4, digest = decode($5, 'hex'), not_before = $6,
			refusal = coalesce($7, ''::bytea), closing_reason = $8, update_time = $9, version = $10,
			scheduled_by = $11, attempt = $12, try_time = $13, rollout = $14, started_rollout = $15
		WHERE uid = $1`,
		c.GetUid(), stateText(c), c.GetReason(), c.GetAuthors(), c.GetDigest(), due, refusal, c.GetClosingReason(),
		c.GetUpdateTime().AsTime(), c.version, c.GetScheduler(), c.Attempt, c.TryTime, plan, c.GetStartedRollout())
	if err != nil {
		return fmt.Errorf("write a change: %w", err)
	}
	c.stamp()
	return nil
}

// RewriteChange is UpdateChange for one whose edits are others now; its approvals are gone.
func RewriteChange(ctx context.Context, q Querier, c *Change) error {
	for _, table := range []string{"settings.change_edit", "settings.change_approval"} {
		if _, err := q.Exec(ctx, `DELETE FROM `+table+` WHERE change_uid = $1`, c.GetUid()); err != nil {
			return fmt.Errorf("write a change: %w", err)
		}
	}
	if err := UpdateChange(ctx, q, c); err != nil {
		return err
	}
	return c.insertEdits(ctx, q)
}

// AddApproval adds an approval of what a change is.
func AddApproval(ctx context.Context, q Querier, c *Change, a *configv1.ChangeApproval) error {
	_, err := q.Exec(ctx, `INSERT INTO settings.change_approval (change_uid, approver, digest, comment, approve_time)
		VALUES ($1, $2, decode($3, 'hex'), $4, $5)`,
		c.GetUid(), a.GetApprover(), c.GetDigest(), a.GetComment(), a.GetApproveTime().AsTime())
	if err != nil {
		return fmt.Errorf("write an approval: %w", err)
	}
	c.Approvals = append(c.Approvals, a)
	return nil
}

// SetEditRevision says what the edit at a position became.
func SetEditRevision(ctx context.Context, q Querier, c *Change, position int, revision int64) error {
	_, err := q.Exec(ctx, `UPDATE settings.change_edit SET revision = $3 WHERE change_uid = $1 AND position = $2`,
		c.GetUid(), position, revision)
	if err != nil {
		return fmt.Errorf("write an edit: %w", err)
	}
	c.Edits[position].Revision, c.Change.Edits[position].Revision = revision, revision
	return nil
}
