package mask_test

import (
	"slices"
	"testing"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"google.golang.org/protobuf/encoding/prototext"

	"github.com/rowhouse-platform/rowhouse/internal/mask"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
)

// thing returns the type that the tests change:
//
//	message Thing {
//	  string name = 1 [IDENTIFIER];  string title = 2;  int32 size = 3;  string born = 4 [IMMUTABLE];
//	  string state = 5 [OUTPUT_ONLY];  repeated string tags = 6;  Home home = 7;  Fixed fixed = 8 [IMMUTABLE];
//	  Thing child = 9;  string etag = 10;  Plain plain = 11;
//	}
//	message Home { string street = 1;  string region = 2 [OUTPUT_ONLY];  string cell = 3 [IMMUTABLE]; }
//	message Fixed { string a = 1; }
//	message Plain { string a = 1;  string b = 2; }
func thing(t *testing.T) protoreflect.MessageDescriptor {
	t.Helper()
	file := &descriptorpb.FileDescriptorProto{
		Name: new("thing.proto"), Package: new("t"), Syntax: new("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{
			message("Thing",
				field("name", 1, "", annotations.FieldBehavior_IDENTIFIER), field("title", 2, ""),
				field("size", 3, ""), field("born", 4, "", annotations.FieldBehavior_IMMUTABLE),
				field("state", 5, "", annotations.FieldBehavior_OUTPUT_ONLY), list(field("tags", 6, "")),
				field("home", 7, ".t.Home"), field("fixed", 8, ".t.Fixed", annotations.FieldBehavior_IMMUTABLE),
				field("child", 9, ".t.Thing"), field("etag", 10, ""), field("plain", 11, ".t.Plain")),
			message("Home", field("street", 1, ""), field("region", 2, "", annotations.FieldBehavior_OUTPUT_ONLY),
				field("cell", 3, "", annotations.FieldBehavior_IMMUTABLE)),
			message("Fixed", field("a", 1, "")),
			message("Plain", field("a", 1, ""), field("b", 2, "")),
		},
	}
	fd, err := protodesc.NewFile(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	return fd.Messages().ByName("Thing")
}

func message(name string, fields ...*descriptorpb.FieldDescriptorProto) *descriptorpb.DescriptorProto {
	return &descriptorpb.DescriptorProto{Name: &name, Field: fields}
}

func field(name string, number int32, typeName string, behaviors ...annotations.FieldBehavior) *descriptorpb.FieldDescriptorProto {
	f := &descriptorpb.FieldDescriptorProto{
		Name: &name, Number: &number, Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(),
		Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(), Options: &descriptorpb.FieldOptions{},
	}
	if typeName != "" {
		f.Type, f.TypeName = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), &typeName
	}
	proto.SetExtension(f.Options, annotations.E_FieldBehavior, behaviors)
	return f
}

func list(f *descriptorpb.FieldDescriptorProto) *descriptorpb.FieldDescriptorProto {
	f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
	return f
}

func TestApply(t *testing.T) {
	t.Parallel()
	const old = `name:"n" title:"old" born:"b" state:"s" tags:"x" tags:"y" etag:"1"
		home:{street:"st" region:"r" cell:"c"} fixed:{a:"f"} plain:{a:"pa" b:"pb"}`
	tests := []struct {
		name    string
		mask    []string
		update  string
		want    string // "" for old
		changed []string
		reason  string
	}{
		{name: "absent mask is populated fields", update: `title:"new"`, changed: []string{"title"},
			want: `name:"n" title:"new" born:"b" state:"s" tags:"x" tags:"y" etag:"1"
			home:{street:"st" region:"r" cell:"c"} fixed:{a:"f"} plain:{a:"pa" b:"pb"}`},
		{name: "same values change nothing", update: old},
		{name: "output only is passed over", mask: []string{"state", "name", "etag", "home.region"},
			update: `name:"other" state:"x" etag:"2" home:{region:"z"}`},
		{name: "output only is passed over without a mask", update: `state:"x" home:{region:"z" street:"st" cell:"c"}`},
		{name: "path clears", mask: []string{"title", "tags"}, changed: []string{"tags", "title"},
			want: `name:"n" born:"b" state:"s" etag:"1" home:{street:"st" region:"r" cell:"c"} fixed:{a:"f"}
			plain:{a:"pa" b:"pb"}`},
		{name: "nested path", mask: []string{"home.street"}, update: `home:{street:"new" cell:"zzz"}`,
			changed: []string{"home.street"},
			want: `name:"n" title:"old" born:"b" state:"s" tags:"x" tags:"y" etag:"1"
			home:{street:"new" region:"r" cell:"c"} fixed:{a:"f"} plain:{a:"pa" b:"pb"}`},
		{name: "a whole message is replaced", mask: []string{"plain"}, update: `plain:{b:"q"}`, changed: []string{"plain"},
			want: `name:"n" title:"old" born:"b" state:"s" tags:"x" tags:"y" etag:"1"
			home:{street:"st" region:"r" cell:"c"} fixed:{a:"f"} plain:{b:"q"}`},
		{name: "a whole message keeps its output only fields", mask: []string{"home"}, update: `home:{street:"q" region:"z"}`,
			changed: []string{"home.street"},
			want: `name:"n" title:"old" born:"b" state:"s" tags:"x" tags:"y" etag:"1"
			home:{street:"q" region:"r" cell:"c"} fixed:{a:"f"} plain:{a:"pa" b:"pb"}`},
		{name: "star replaces all that may change", mask: []string{"*"}, update: `title:"t" state:"z"`,
			changed: []string{"home.street", "plain", "tags", "title"},
			want:    `name:"n" title:"t" born:"b" state:"s" etag:"1" home:{region:"r" cell:"c"} fixed:{a:"f"}`},
		{name: "new nested message", mask: []string{"child.title"}, update: `child:{title:"c"}`,
			changed: []string{"child.title"},
			want: `name:"n" title:"old" born:"b" state:"s" tags:"x" tags:"y" etag:"1" child:{title:"c"}
			home:{street:"st" region:"r" cell:"c"} fixed:{a:"f"} plain:{a:"pa" b:"pb"}`},
		{name: "empty on both sides", mask: []string{"child.title"}},
		{name: "immutable, same", mask: []string{"born", "fixed.a", "home.cell"},
			update: `born:"b" fixed:{a:"f"} home:{cell:"c"}`},
		{name: "immutable", mask: []string{"born"}, update: `born:"x"`, reason: fault.ReasonImmutableField},
		{name: "immutable, cleared", mask: []string{"born"}, reason: fault.ReasonImmutableField},
		{name: "immutable without a mask", update: `title:"t" born:"x"`, reason: fault.ReasonImmutableField},
		{name: "immutable below", mask: []string{"home.cell"}, update: `home:{cell:"x"}`, reason: fault.ReasonImmutableField},
		{name: "below immutable", mask: []string{"fixed.a"}, update: `fixed:{a:"x"}`, reason: fault.ReasonImmutableField},
		{name: "immutable in a whole", mask: []string{"home"}, update: `home:{cell:"x"}`, reason: fault.ReasonImmutableField},
		{name: "unknown", mask: []string{"title", "nope"}, update: `title:"t"`, reason: fault.ReasonFieldMaskInvalid},
		{name: "unknown below", mask: []string{"home.nope"}, reason: fault.ReasonFieldMaskInvalid},
		{name: "into a scalar", mask: []string{"title.x"}, reason: fault.ReasonFieldMaskInvalid},
		{name: "into a list", mask: []string{"tags.0"}, reason: fault.ReasonFieldMaskInvalid},
		{name: "below output only", mask: []string{"state.x"}, reason: fault.ReasonFieldMaskInvalid},
		{name: "empty path", mask: []string{""}, reason: fault.ReasonFieldMaskInvalid},
		{name: "star and more", mask: []string{"*", "title"}, reason: fault.ReasonFieldMaskInvalid},
	}
	md := thing(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			resource, update, want := parse(t, md, old), parse(t, md, tt.update), parse(t, md, tt.want)
			if tt.want == "" {
				want = parse(t, md, old)
			}
			changed, err := mask.Apply(resource, update, &fieldmaskpb.FieldMask{Paths: tt.mask})
			if fault.ReasonOf(err) != tt.reason || !slices.Equal(changed, tt.changed) {
				t.Errorf("changed %q, %v; want %q, %q", changed, err, tt.changed, tt.reason)
			}
			if !proto.Equal(resource, want) {
				t.Errorf("got  %s\nwant %s", prototext.Format(resource), prototext.Format(want))
			}
		})
	}
}

func parse(t *testing.T, md protoreflect.MessageDescriptor, text string) proto.Message {
	t.Helper()
	m := dynamicpb.NewMessage(md)
	if err := prototext.Unmarshal([]byte(text), m); err != nil {
		t.Fatal(err)
	}
	return m
}
