package dev

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/rowhouse-platform/rowhouse/internal/operator"
	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	"github.com/rowhouse-platform/rowhouse/services/config"
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

// keepEgress takes over what the house's operator wrote into config's file of an earlier start: where webhooks and hooks may be.
func keepEgress(path string, ours config.Config) (config.Config, error) {
	var earlier struct {
		Egress config.Egress `yaml:"egress"`
		Hooks  config.Hooks  `yaml:"hooks"`
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return ours, nil
	}
	if err == nil {
		err = yaml.Unmarshal(b, &earlier) // the rest of the file is ours, and of another version perhaps
	}
	if err != nil {
		return ours, damaged(path, err)
	}
	ours.Egress, ours.Hooks = earlier.Egress, earlier.Hooks
	return ours, nil
}
