package sqlattack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantdb/cell"
)

// told is all that an error tells an attacker.
func told(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		text += fmt.Sprint(" ", pg.Detail, pg.Hint, pg.Where, pg.InternalQuery, pg.ConstraintName)
	}
	return text
}

// reason is the SQLSTATE of a refusal, or a word where the SDK refused.
func reason(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code
	}
	for word, is := range map[string]error{
		"verb": tenantdb.ErrVerb, "unsafe": cell.ErrUnsafe, "moved": tenantdb.ErrMoved, "fenced": tenantdb.ErrFenced,
		"suspended": tenantdb.ErrSuspended, "changed": tenantdb.ErrTenantChanged,
	} {
		if errors.Is(err, is) {
			return word
		}
	}
	return "error"
}

// session is a connection of the attacker's, with all that it was ever told.
type session struct {
	name  string // of its login, where it was borrowed
	conn  *pgx.Conn
	heard strings.Builder
}

// connect opens a session.
func connect(ctx context.Context, config *pgx.ConnConfig) (*session, error) {
	s := &session{}
	config = config.Copy()
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { fmt.Fprintf(&s.heard, "%s %s ", n.Message, n.Detail) }
	config.OnNotification = func(_ *pgconn.PgConn, n *pgconn.Notification) { fmt.Fprintf(&s.heard, "%s ", n.Payload) }
	var err error
	if s.conn, err = pgx.ConnectConfig(ctx, config); err != nil {
		fmt.Fprintf(&s.heard, "%s ", told(err))
		return s, err
	}
	return s, nil
}

// borrow takes the session of a login, or opens one.
func (a *arena) borrow(ctx context.Context, login *pgx.ConnConfig) (*session, error) {
	name := login.User + "@" + login.Database
	if s := a.idle[name]; s != nil {
		delete(a.idle, name)
		s.heard.Reset()
		return s, nil
	}
	s, err := connect(ctx, login)
	if err == nil {
		s.name = name
	}
	return s, err
}

// giveBack makes the session as new; one that cannot be is closed.
func (a *arena) giveBack(ctx context.Context, s *session) {
	_ = s.send(ctx, "ROLLBACK")
	if s.send(ctx, "RESET SESSION AUTHORIZATION") != nil || s.send(ctx, "DISCARD ALL") != nil || a.idle[s.name] != nil {
		s.close(context.WithoutCancel(ctx))
		return
	}
	a.idle[s.name] = s
}

func (s *session) close(ctx context.Context) {
	if s.conn != nil {
		_ = s.conn.Close(ctx)
	}
}

// send sends any text, as somebody with a password can: several statements, COPY.
func (s *session) send(ctx context.Context, sql string) error {
	var err error
	if strings.HasPrefix(sql, "COPY") && strings.HasSuffix(sql, "STDOUT") {
		var copied bytes.Buffer
		_, err = s.conn.PgConn().CopyTo(ctx, &copied, sql)
		s.heard.Write(copied.Bytes())
	} else {
		err = s.hear(s.conn.PgConn().Exec(ctx, sql))
	}
	fmt.Fprintf(&s.heard, "%s ", told(err))
	return err
}

// sendOne sends one statement as drivers do: prepared, and kept for the next time.
func (s *session) sendOne(ctx context.Context, sql string) error {
	rows, _ := s.conn.Query(ctx, sql) // the error is that of rows, too
	for rows.Next() {
		for _, v := range rows.RawValues() {
			fmt.Fprintf(&s.heard, "%s ", v)
		}
	}
	fmt.Fprintf(&s.heard, "%s %s ", rows.CommandTag(), told(rows.Err()))
	return rows.Err()
}

func (s *session) hear(results *pgconn.MultiResultReader) error {
	all, err := results.ReadAll()
	for _, r := range all {
		s.note(r)
	}
	return err
}

func (s *session) note(r *pgconn.Result) {
	for _, row := range r.Rows {
		for _, v := range row {
			fmt.Fprintf(&s.heard, "%s ", v)
		}
	}
	fmt.Fprintf(&s.heard, "%s ", r.CommandTag)
}
