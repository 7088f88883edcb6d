package config

import "github.com/rowhouse-platform/rowhouse/services/config/internal/rpc"

// WithPace has the service look for scheduled changes when a test says so, at the time that it says.
func (c Config) WithPace(p rpc.Pace) Config {
	c.pace = p
	return c
}
