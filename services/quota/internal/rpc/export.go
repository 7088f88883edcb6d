package rpc

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/protobuf/proto"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/store"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/usage"
)

// canonical is a query as text, the same for every page of it.
func canonical(q *quotav1.UsageQuery) (string, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(q)
	return string(b), err
}

// export writes a tenant's usage as a file. Each piece is a transaction of its own, so that a slow reader holds nothing.
type export struct {
	pool   *pgxpool.Pool
	uid    tenant.UID
	query  *quotav1.UsageQuery
	format quotav1.UsageFormat
	send   func(chunk []byte) error
}

func (e export) run(ctx context.Context) error {
	const piece = 1000
	var q usage.Question
	var after []string
	for first := true; ; first = false {
		var rows []usage.Row
		err := pg.Tx(ctx, e.pool, pg.TxOptions{ReadOnly: true}, func(ctx context.Context, tx pgx.Tx) (err error) {
			if first {
				var now time.Time
				if err := tx.QueryRow(ctx, `SELECT now()`).Scan(&now); err != nil {
					return err
				}
				if q, err = questionOf(ctx, tx, e.query, now); err != nil {
					return err
				}
			}
			if err := store.AsTenant(ctx, tx, e.uid); err != nil {
				return err
			}
			rows, err = usage.Query(ctx, tx, e.uid, q, after, piece)
			return err
		})
		if err != nil {
			return err
		}
		chunk, err := e.write(q, rows, first)
		if err != nil {
			return err
		}
		for len(chunk) > 0 {
			n := cut(chunk)
			if err := e.send(chunk[:n]); err != nil {
				return err
			}
			chunk = chunk[n:]
		}
		if len(rows) < piece {
			return nil
		}
		after = rows[len(rows)-1].Key()
	}
}

// cut is where a piece of at most 1 MiB ends, behind a whole line.
func cut(chunk []byte) int {
	const most = 1 << 20
	if len(chunk) <= most {
		return len(chunk)
	}
	return bytes.LastIndexByte(chunk[:most], '\n') + 1 // lines are much shorter
}

func (e export) write(q usage.Question, rows []usage.Row, first bool) ([]byte, error) {
	if e.format == quotav1.UsageFormat_USAGE_FORMAT_NDJSON {
		return ndjson(rows)
	}
	return commas(q, rows, first)
}

// exported is one line.
type exported struct {
	Start      string            `json:"start_time"`
	Original   string            `json:"original_time,omitempty"`
	Dimensions map[string]string `json:"dimensions"`
	Value      int64             `json:"value"`
	Events     int64             `json:"events"`
}

// linesOf are a row's lines: its own, if anything was counted, and its adjustments'.
func linesOf(r usage.Row) []exported {
	start := r.Start.Format(time.RFC3339)
	var lines []exported
	if r.Events > 0 {
		lines = append(lines, exported{start, "", r.Dimensions, r.Value, r.Events})
	}
	for _, a := range r.Adjustments {
		lines = append(lines, exported{start, a.Original.Format(time.RFC3339), r.Dimensions, a.Value, a.Events})
	}
	return lines
}

func ndjson(rows []usage.Row) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	for _, r := range rows {
		for _, line := range linesOf(r) {
			if err := enc.Encode(line); err != nil {
				return nil, fmt.Errorf("write usage: %w", err)
			}
		}
	}
	return out.Bytes(), nil
}

func commas(q usage.Question, rows []usage.Row, first bool) ([]byte, error) {
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	if first {
		head := append([]string{"start_time", "original_time"}, q.GroupBy...)
		if err := w.Write(append(head, "value", "events")); err != nil {
			return nil, fmt.Errorf("write usage: %w", err)
		}
	}
	for _, r := range rows {
		for _, line := range linesOf(r) {
			record := []string{line.Start, line.Original}
			for _, name := range q.GroupBy {
				record = append(record, line.Dimensions[name])
			}
			record = append(record, strconv.FormatInt(line.Value, 10), strconv.FormatInt(line.Events, 10))
			if err := w.Write(record); err != nil {
				return nil, fmt.Errorf("write usage: %w", err)
			}
		}
	}
	w.Flush()
	return out.Bytes(), w.Error()
}
