// Package providers holds OpenFeature's public providers, unmodified, against what we serve: through a start, a change, a
// restart of the server and a credential that is refused. See docs/guides/flags-protocols.md.
package providers
