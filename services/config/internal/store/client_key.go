package store

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// ClientKeyID is the id of the key with this digest.
func ClientKeyID(digest []byte) string {
	const bytes = 8
	return "k" + hex.EncodeToString(digest[:bytes])
}

// kinds are the kinds of client keys as the table has them.
func kinds() map[configv1.ClientKeyKind]string {
	return map[configv1.ClientKeyKind]string{
		configv1.ClientKeyKind_CLIENT_KEY_KIND_BROWSER: "browser", configv1.ClientKeyKind_CLIENT_KEY_KIND_SERVER: "server",
	}
}

// InsertClientKey makes a key of a tenant. One that exists, whosever it is, is a fault RESOURCE_EXISTS.
func InsertClientKey(ctx context.Context, q Querier, tenantUID string, k *configv1.ClientKey) error {
	var expires *time.Time
	if k.GetExpireTime() != nil {
		expires = new(k.GetExpireTime().AsTime())
	}
	origins := k.GetOrigins()
	if origins == nil {
		origins = []string{}
	}
	_, err := q.Exec(ctx, `INSERT INTO settings.client_key
			(sha256, tenant_uid, id, kind, environment, origins, author, create_time, expire_time)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		k.GetKeySha256(), tenantUID, ClientKeyID(k.GetKeySha256()), kinds()[k.GetKind()], k.GetEnvironment(), origins,
		k.GetAuthor(), k.GetCreateTime().AsTime(), expires)
	if pg.Code(err) == pg.CodeUniqueViolation {
		return fault.New(fault.AlreadyExists, fault.ReasonResourceExists, "a client key with this digest exists")
	}
	if err != nil {
		return fmt.Errorf("insert a client key: %w", err)
	}
	return nil
}

// CountClientKeys returns how many keys a tenant has.
func CountClientKeys(ctx context.Context, q Querier, tenantUID string) (n int, err error) {
	if err := q.QueryRow(ctx, `SELECT count(*) FROM settings.client_key WHERE tenant_uid = $1`, tenantUID).Scan(&n); err != nil {
		return 0, fmt.Errorf("count client keys: %w", err)
	}
	return n, nil
}

// ListClientKeys returns up to n keys of a tenant whose ids come after the given one, without digests. Their names end
// with their ids and begin with parent.
func ListClientKeys(ctx context.Context, q Querier, parent, tenantUID, after string, n int) ([]*configv1.ClientKey, error) {
	rows, err := q.Query(ctx, `SELECT id, kind, environment, origins, author, create_time, expire_time FROM settings.client_key
		WHERE tenant_uid = $1 AND id > $2 ORDER BY id LIMIT $3`, tenantUID, after, n)
	if err != nil {
		return nil, fmt.Errorf("list client keys: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (*configv1.ClientKey, error) {
		k := new(configv1.ClientKey)
		var id, kind string
		var created time.Time
		var expires *time.Time
		if err := row.Scan(&id, &kind, &k.Environment, &k.Origins, &k.Author, &created, &expires); err != nil {
			return nil, err
		}
		for number, name := range kinds() {
			if name == kind {
				k.Kind = number
			}
		}
		k.Name, k.CreateTime = parent+"/clientKeys/"+id, timestamppb.New(created)
		if expires != nil {
			k.ExpireTime = timestamppb.New(*expires)
		}
		return k, nil
	})
}

// DeleteClientKey removes a tenant's key and returns its digest, nil if there is none.
func DeleteClientKey(ctx context.Context, q Querier, tenantUID, id string) (digest []byte, err error) {
	err = q.QueryRow(ctx, `DELETE FROM settings.client_key WHERE tenant_uid = $1 AND id = $2 RETURNING sha256`, tenantUID, id).Scan(&digest)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("delete a client key: %w", err)
	}
	return digest, nil
}
