// Package feed follows a Rowhouse watch stream: a snapshot, then deltas, then a signed bookmark each second. It keeps
// the last good state on disk, so that a process starts with the control plane gone.
//
// [Start] loads what the disk has and follows the stream in a goroutine that [Feed.Close] ends and waits for. What the
// values mean is the caller's: [Config].Check judges one entry, [Config].Apply takes a whole revision. [Digest] and
// [Sign] are what the serving side shares with the following side.
package feed
