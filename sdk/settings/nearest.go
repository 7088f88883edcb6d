package settings

import "github.com/rowhouse-platform/rowhouse/sdk/nearest"

// Nearest is [nearest.Name].
func Nearest(name string, known []string) string { return nearest.Name(name, known) }
