package config_test

import (
	"testing"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

func TestBrandExistsFromTheStart(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	resp, err := r.as("viewer").GetNamespace(t.Context(), &configv1.GetNamespaceRequest{Name: "namespaces/brand"})
	must(t, err)
	want, err := settings.Parse([]byte(settings.BrandSchema()))
	must(t, err)
	if resp.GetNamespace().GetSchema() != string(settings.Canonical(want)) || resp.GetNamespace().GetRevision() != 1 {
		t.Errorf("the namespace is %v", resp.GetNamespace())
	}
}
