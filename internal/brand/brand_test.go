package brand_test

import (
	"strings"
	"testing"

	"github.com/rowhouse-platform/rowhouse/internal/brand"
)

func TestAssetPaths(t *testing.T) {
	t.Parallel()
	hash := strings.Repeat("0a", 32)
	for path, want := range map[string]bool{
		"/.well-known/rowhouse/b/" + hash + ".png": true, "/.well-known/rowhouse/b/" + hash + ".woff2": true, "/.well-known/rowhouse/b/" + hash + ".html": false,
		"/.well-known/rowhouse/b/" + hash[1:] + ".png": false, "/.well-known/rowhouse/b/" + strings.ToUpper(hash) + ".png": false, "//.well-known/rowhouse/b/" + hash + ".png": false,
		"/.well-known/rowhouse/b/" + hash + ".png\n": false, "/.well-known/rowhouse/b/" + hash + ".png?": false, "/xrowhouse/b/" + hash + ".png": false,
	} {
		if brand.IsAssetPath(path) != want {
			t.Errorf("%q: %v", path, !want)
		}
	}
}

func TestPlaces(t *testing.T) {
	t.Parallel()
	for offset, want := range []string{"1:1: r: x", "1:2: r: x", "1:3: r: x", "2:1: r: x", "2:2: r: x", "2:2: r: x"} {
		if got := brand.At([]byte("ab\nc"), offset, "r", "x").Error(); got != want {
			t.Errorf("offset %d is %s, want %s", offset, got, want)
		}
	}
	if got := (&brand.Refusal{Rule: "size", Text: "x"}).Error(); got != "size: x" {
		t.Error(got)
	}
	if err := brand.CheckText([]byte("ok \t\r\n\fü日🏠"), 20); err != nil {
		t.Error(err)
	}
	if err := brand.CheckText([]byte("a\n\x01"), 3); err == nil || err.Error() != "2:1: character: U+0001" {
		t.Error(err)
	}
	if err := brand.CheckText([]byte("a\xff"), 3); err == nil || err.Error() != "1:2: encoding: not UTF-8" {
		t.Error(err)
	}
	if err := brand.CheckText(make([]byte, 4), 3); err == nil || err.Error() != "size: 4 bytes, allowed are 3" {
		t.Error(err)
	}
}
