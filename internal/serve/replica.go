package serve

import (
	"cmp"
	"os"
)

// Replica returns the configured name of this process among its replicas, or the host's name, which in a cluster is the
// pod's: replicas that share a configuration file still differ. It is empty when neither is known.
func Replica(configured string) string {
	host, _ := os.Hostname() // a host without a name has to be given one in the configuration
	return cmp.Or(configured, host)
}
