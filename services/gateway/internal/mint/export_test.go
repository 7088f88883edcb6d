package mint

import "context"

// Ask renews the keys if something asked for it, as Run does.
func (k *Keeper) Ask(ctx context.Context) error {
	select {
	case <-k.wake:
		return k.Renew(ctx)
	default:
		return nil
	}
}
