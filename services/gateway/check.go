package gateway

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/rowhouse-platform/rowhouse/internal/pg"
	"github.com/rowhouse-platform/rowhouse/internal/serve"
	"github.com/rowhouse-platform/rowhouse/sdk/keyfile"
)

// Check does all that a start does short of connecting and listening: it reads every file that c names.
func (c Config) Check(ctx context.Context) error {
	if err := c.Validate(); err != nil {
		return err
	}
	faults := []error{c.Process.Check(ctx)}
	look := func(key string, err error) {
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", key, err))
		}
	}
	look("database", pg.Config{DSNFile: string(c.Database)}.Validate())
	_, err := keyfile.Secret(string(c.KEK))
	look("kek", err)
	_, err = keyfile.Public(string(c.TrustRoots))
	look("trust_roots", err)
	for key, peer := range map[string]Peer{"tenancy": c.Tenancy, "config": c.Settings, "quota": c.Quota} {
		_, err = peer.feedKeys()
		look(key+".feed_keys", err)
	}
	look("state", c.State.CheckFolder())
	_, err = loadCertificates(c.Certificates)
	look("certificates", err)
	_, err = (&house{c: c, p: &serve.Process{Clock: time.Now}}).tokens()
	faults = append(faults, err)
	return errors.Join(faults...)
}
