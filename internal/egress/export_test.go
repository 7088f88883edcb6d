package egress

import "context"

// Control checks the address that a socket of c would connect to.
func Control(c *Client, ctx context.Context, address string) error { //nolint:revive // the client is what it is about
	return c.control(ctx, "tcp", address, nil)
}
