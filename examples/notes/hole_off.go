//go:build !injectable

package notes

import "net/http"

// hole adds nothing: only the test build with the tag "injectable" has a hole.
func (*site) hole(*http.ServeMux) {}
