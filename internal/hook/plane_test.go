package hook_test

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	apiv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/api/v1"
	_ "github.com/rowhouse-platform/rowhouse/gen/rowhouse/audit/v1"   // registers its descriptors
	_ "github.com/rowhouse-platform/rowhouse/gen/rowhouse/gateway/v1" // as above
	_ "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"   // as above
)

// Ask refuses a call whose request has no field skip_hooks, so the methods that have one are all before which hooks can be
// asked. They are few, on the admin plane, and none of them stops, takes back or takes away; but that a document is deleted
// publishes what the layers below it say.
func TestHooksAreNeverOnADataPath(t *testing.T) {
	t.Parallel()
	var asking []string
	methods := 0
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			for j := range f.Services().Get(i).Methods().Len() {
				m := f.Services().Get(i).Methods().Get(j)
				if !strings.HasPrefix(string(m.FullName()), "rowhouse.") {
					continue
				}
				methods++
				if m.Input().Fields().ByName("skip_hooks") == nil {
					continue
				}
				asking = append(asking, string(m.Name()))
				rule, _ := proto.GetExtension(m.Options(), apiv1.E_Rule).(*apiv1.MethodRule)
				if rule.GetPlane() != apiv1.Plane_PLANE_ADMIN || m.IsStreamingServer() || m.IsStreamingClient() {
					t.Errorf("%s is on %s", m.FullName(), rule.GetPlane())
				}
				for _, verb := range []string{"Suspend", "Delete", "Erase", "Purge", "Kill", "Rollback", "Halt", "Revoke", "Cancel", "Discard"} {
					if strings.Contains(string(m.Name()), verb) && m.Name() != "DeleteDocument" {
						t.Errorf("%s may be refused by a hook", m.FullName())
					}
				}
			}
		}
		return true
	})
	slices.Sort(asking)
	want := []string{
		"AdvanceRollout", "CreateDomain", "CreateRollout", "CreateTenant", "DeleteDocument", "PublishBrandDraft", "PublishChange",
		"UpdateDocument", "UpdateDomain", "UpdateTenant", "VerifyDomain",
	}
	if !slices.Equal(asking, want) || methods < 100 {
		t.Errorf("of %d methods %q may ask hooks, want %q", methods, asking, want)
	}
}
