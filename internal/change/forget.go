package change

import (
	"context"
	"fmt"
)

// ForgetTenant empties what is kept of the calls that concerned a tenant to recognise and answer repeats of them, but for
// those of the call's own method. A repeat of such a call is refused with REQUEST_ID_REUSED: it must not be done anew.
func (t *Tx) ForgetTenant(ctx context.Context, uid string) error {
	_, err := t.Exec(ctx, `UPDATE kernel.request_log SET request = '', response = ''
		WHERE response IS NOT NULL AND create_time >= now() - interval '24 hours' AND method <> $2
			AND ($1 = ANY (chains) OR starts_with(caller, $1 || '/'))`, uid, t.call.Method)
	if err != nil {
		return fmt.Errorf("forget the answers of a tenant: %w", err)
	}
	return nil
}
