package apiattack_test

import (
	"slices"
	"strings"
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
)

// shopFile describes a service that is not linked into the test: the generator knows it
// from the server alone.
func shopFile(t *testing.T) protoreflect.FileDescriptor {
	t.Helper()
	message := func(name string, fields ...*descriptorpb.FieldDescriptorProto) *descriptorpb.DescriptorProto {
		for i, f := range fields {
			f.Number = new(int32(i + 1))
		}
		m := &descriptorpb.DescriptorProto{Name: &name, Field: fields}
		for _, f := range fields {
			switch {
			case f.GetTypeName() == ".shop.v1.Item.LabelsEntry":
				m.NestedType = []*descriptorpb.DescriptorProto{{
					Name: new("LabelsEntry"), Options: &descriptorpb.MessageOptions{MapEntry: new(true)},
					Field: []*descriptorpb.FieldDescriptorProto{numbered(text("key"), 1), numbered(text("value"), 2)},
				}}
			case f.OneofIndex != nil && m.OneofDecl == nil:
				m.OneofDecl = []*descriptorpb.OneofDescriptorProto{{Name: new("key")}}
			}
		}
		return m
	}
	name := func() *descriptorpb.FieldDescriptorProto {
		return ruled(text("name"), &validate.StringRules{Pattern: new("^items/[0-9a-z-]{1,40}$")})
	}
	item := func() *descriptorpb.FieldDescriptorProto { return of("item", ".shop.v1.Item") }
	mask := func(name string) *descriptorpb.FieldDescriptorProto { return of(name, ".google.protobuf.FieldMask") }
	requestID := ruled(text("request_id"), &validate.StringRules{WellKnown: &validate.StringRules_Uuid{Uuid: true}})
	proto.GetExtension(requestID.GetOptions(), validate.E_Field).(*validate.FieldRules).Ignore = validate.Ignore_IGNORE_IF_ZERO_VALUE.Enum()
	size := text("page_size")
	size.Type = descriptorpb.FieldDescriptorProto_TYPE_INT32.Enum()
	inOneof := func(f *descriptorpb.FieldDescriptorProto) *descriptorpb.FieldDescriptorProto {
		f.OneofIndex = new(int32(0))
		return f
	}
	file := &descriptorpb.FileDescriptorProto{
		Name: new("shop/v1/shop.proto"), Package: new("shop.v1"), Syntax: new("proto3"),
		Dependency: []string{"google/protobuf/empty.proto", "google/protobuf/field_mask.proto", "google/protobuf/timestamp.proto", "buf/validate/validate.proto"},
		MessageType: []*descriptorpb.DescriptorProto{
			message("Item", text("name"),
				ruled(text("title"), &validate.StringRules{MinLen: new(uint64(1)), MaxLen: new(uint64(60))}), text("body"), text("etag"),
				many(of("labels", ".shop.v1.Item.LabelsEntry")), of("create_time", ".google.protobuf.Timestamp")),
			message("CreateItemRequest", item(),
				ruled(text("item_id"), &validate.StringRules{Pattern: new("^[a-z0-9-]{4,40}$")}), requestID),
			message("GetItemRequest", name(), mask("read_mask")),
			message("ListItemsRequest", size, text("page_token")),
			message("ListItemsResponse", many(of("items", ".shop.v1.Item")), text("next_page_token")),
			message("UpdateItemRequest", item(), mask("update_mask")),
			message("DeleteItemRequest", name(), text("etag")),
			message("ArchiveItemRequest", name()),
			message("FindItemRequest", inOneof(text("name")), inOneof(text("title"))),
			message("BatchGetItemsRequest", many(text("names"))),
			message("BatchGetItemsResponse", many(of("items", ".shop.v1.Item"))),
			message("WatchItemsRequest"),
			message("TouchItemsRequest", name()),
			message("TouchItemsResponse", many(text("titles"))),
		},
	}
	method := func(name, in, out string, streams ...string) *descriptorpb.MethodDescriptorProto {
		if !strings.HasPrefix(out, ".") {
			out = ".shop.v1." + out
		}
		return &descriptorpb.MethodDescriptorProto{
			Name: &name, InputType: new(".shop.v1." + in), OutputType: &out,
			ClientStreaming: new(slices.Contains(streams, "client")), ServerStreaming: new(slices.Contains(streams, "server")),
		}
	}
	file.Service = []*descriptorpb.ServiceDescriptorProto{{Name: new("Shop"), Method: []*descriptorpb.MethodDescriptorProto{
		method("CreateItem", "CreateItemRequest", "Item"),
		method("GetItem", "GetItemRequest", "Item"),
		method("ListItems", "ListItemsRequest", "ListItemsResponse"),
		method("UpdateItem", "UpdateItemRequest", "Item"),
		method("DeleteItem", "DeleteItemRequest", ".google.protobuf.Empty"),
		method("ArchiveItem", "ArchiveItemRequest", "Item"),
		method("FindItem", "FindItemRequest", "Item"),
		method("BatchGetItems", "BatchGetItemsRequest", "BatchGetItemsResponse"),
		method("WatchItems", "WatchItemsRequest", "Item", "server"),
		method("TouchItems", "TouchItemsRequest", "TouchItemsResponse", "client"),
		method("FollowItems", "TouchItemsRequest", "Item", "client", "server"),
	}}}
	built, err := protodesc.NewFile(file, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err, prototext.Format(file))
	}
	return built
}

func text(name string) *descriptorpb.FieldDescriptorProto {
	return &descriptorpb.FieldDescriptorProto{
		Name: &name, Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
	}
}

func of(name, typeName string) *descriptorpb.FieldDescriptorProto {
	f := text(name)
	f.Type, f.TypeName = descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), &typeName
	return f
}

func many(f *descriptorpb.FieldDescriptorProto) *descriptorpb.FieldDescriptorProto {
	f.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
	return f
}

func numbered(f *descriptorpb.FieldDescriptorProto, n int32) *descriptorpb.FieldDescriptorProto {
	f.Number = &n
	return f
}

func ruled(f *descriptorpb.FieldDescriptorProto, rules *validate.StringRules) *descriptorpb.FieldDescriptorProto {
	f.Options = new(descriptorpb.FieldOptions)
	proto.SetExtension(f.Options, validate.E_Field, &validate.FieldRules{Type: &validate.FieldRules_String_{String_: rules}})
	return f
}
