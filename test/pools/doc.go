// Package pools reaches many dedicated databases with few connections, and counts them at
// the server. It has tests only.
package pools
