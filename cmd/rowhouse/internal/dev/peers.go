package dev

import (
	"errors"
	"io/fs"
	"maps"
	"slices"

	"github.com/rowhouse-platform/rowhouse/internal/operator"
	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
)

// keepPeers adds to ours the entries that the house's operator wrote into the file of an
// earlier start, for workloads that are not ours.
func keepPeers(path string, ids map[string]identity.ID, ours operator.PeersFile) (operator.PeersFile, error) {
	var earlier operator.PeersFile
	err := yamlfile.Load(path, &earlier)
	if errors.Is(err, fs.ErrNotExist) {
		return ours, nil
	}
	if err != nil {
		return ours, damaged(path, err)
	}
	known := slices.Collect(maps.Values(ids))
	for _, p := range earlier.Peers {
		if !slices.Contains(known, p.Identity) {
			ours.Peers = append(ours.Peers, p)
		}
	}
	return ours, nil
}
