// Package feedserver serves a service's change log as watch streams: a snapshot or a resumed position, then deltas in
// commit order, and a signed bookmark each second. One poller per process keeps the state of the feeds in memory and
// feeds all watchers from it; the database is asked once per change, however many watch.
//
// [Server.Run] is the poller, [Server.Watch] serves one stream. sdk/feed is the other end.
package feedserver
