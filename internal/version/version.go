// Package version tells which build this is.
package version

import "runtime/debug"

// stamp is the version that the linker was told:
// -ldflags '-X github.com/rowhouse-platform/rowhouse/internal/version.stamp=v1.2.3'.
//
//nolint:gochecknoglobals // the linker sets it; nobody else does
var stamp string

// String returns the version that this binary was built as, such as "v1.2.3" or what git
// describe says of the checkout. Without one it is the module's version and, where Go
// knows it, the commit; "(devel)" for a plain go build.
func String() string {
	if stamp != "" {
		return stamp
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(unknown)"
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return info.Main.Version + " " + s.Value
		}
	}
	return info.Main.Version
}
