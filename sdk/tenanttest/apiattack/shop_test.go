package apiattack_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// hole is one way to let tenants cross.
type hole string

// shop is a service in memory with at most one hole.
type shop struct {
	file    protoreflect.FileDescriptor
	hole    hole
	log     io.Writer
	metrics map[string]bool // guarded by mu

	mu      sync.Mutex
	rows    []*row            // guarded by mu, in the order in which they were made
	cache   map[string]*row   // guarded by mu
	lists   map[string]any    // guarded by mu
	answers map[string]string // guarded by mu: name by request id
	changed chan struct{}     // guarded by mu: closed at each change
	etags   int               // guarded by mu
}

type row struct {
	tenant, id, title, body, etag string
	labels                        map[string]string
	at                            time.Time
	moved                         bool
}

func notFound(id string) error {
	st, err := status.New(codes.NotFound, fmt.Sprintf("there is no item %q", id)).WithDetails(&errdetails.ErrorInfo{Reason: "NOT_FOUND", Domain: "shop"})
	return errors.Join(err, st.Err())
}

// find returns the tenant's row. The holes "… by id" let go of the tenant for one method.
func (s *shop) find(tenant, id string, open hole) (*row, error) {
	var foreign *row
	for _, r := range s.rows {
		if r.id != id {
			continue
		}
		if r.tenant == tenant || s.hole == open {
			return r, nil
		}
		foreign = r
	}
	if foreign != nil {
		switch s.hole {
		case "oracle by code":
			return nil, status.Error(codes.PermissionDenied, "not yours")
		case "oracle by message":
			return nil, status.Errorf(codes.NotFound, "there is no item %q of yours", id)
		case "oracle by detail":
			st, err := status.New(codes.NotFound, fmt.Sprintf("there is no item %q", id)).
				WithDetails(&errdetails.ErrorInfo{Reason: "FOREIGN", Domain: "shop"})
			return nil, errors.Join(err, st.Err())
		case "title in an error":
			return nil, status.Errorf(codes.NotFound, "there is no item %q of yours, there is %q", id, foreign.title)
		case "timing":
			for end := time.Now().Add(3 * time.Millisecond); time.Now().Before(end); { // busy, as a slow query
			}
		}
	}
	return nil, notFound(id)
}

func (s *shop) name(in protoreflect.Message, field string) string {
	return strings.TrimPrefix(in.Get(in.Descriptor().Fields().ByName(protoreflect.Name(field))).String(), "items/")
}

func (s *shop) message(name string) *dynamicpb.Message {
	return dynamicpb.NewMessage(s.file.Messages().ByName(protoreflect.Name(name)))
}

func setAny(m protoreflect.Message, values map[string]any) {
	for name, v := range values {
		m.Set(m.Descriptor().Fields().ByName(protoreflect.Name(name)), protoreflect.ValueOf(v))
	}
}

func (s *shop) item(r *row) proto.Message {
	m := s.message("Item")
	setAny(m, map[string]any{"name": "items/" + r.id, "title": r.title, "body": r.body, "etag": r.etag})
	labels := m.Mutable(m.Descriptor().Fields().ByName("labels")).Map()
	for k, v := range r.labels {
		labels.Set(protoreflect.ValueOfString(k).MapKey(), protoreflect.ValueOfString(v))
	}
	at := m.Mutable(m.Descriptor().Fields().ByName("create_time")).Message()
	timestamppb.New(r.at).ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		at.Set(at.Descriptor().Fields().ByNumber(fd.Number()), v)
		return true
	})
	return m
}

func (s *shop) items(of string, rows []*row) proto.Message {
	m := s.message(of)
	list := m.Mutable(m.Descriptor().Fields().ByName("items")).List()
	for _, r := range rows {
		list.Append(protoreflect.ValueOfMessage(s.item(r).ProtoReflect()))
	}
	return m
}

func paths(in protoreflect.Message, field string) []string {
	raw, err := proto.Marshal(in.Get(in.Descriptor().Fields().ByName(protoreflect.Name(field))).Message().Interface())
	mask := new(fieldmaskpb.FieldMask)
	if err != nil || proto.Unmarshal(raw, mask) != nil {
		return nil
	}
	return mask.GetPaths()
}

// fill writes a request's item into a row.
func (s *shop) fill(r *row, in protoreflect.Message) {
	item := in.Get(in.Descriptor().Fields().ByName("item")).Message()
	get := func(name string) protoreflect.Value {
		return item.Get(item.Descriptor().Fields().ByName(protoreflect.Name(name)))
	}
	r.title, r.body, r.labels = get("title").String(), get("body").String(), map[string]string{}
	get("labels").Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		r.labels[k.String()] = v.String()
		return true
	})
	s.etags++
	r.etag = fmt.Sprintf("etag-%d-%s", s.etags, uuid.NewString())
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *shop) create(tenant string, in protoreflect.Message) (proto.Message, error) {
	if s.hole == "cannot create" {
		return nil, status.Error(codes.FailedPrecondition, "closed today")
	}
	id, requestID := s.name(in, "item_id"), s.name(in, "request_id")
	key := tenant + requestID
	if s.hole == "shared request id" {
		key = requestID
	}
	if name := s.answers[key]; requestID != "" && name != "" {
		for _, r := range s.rows {
			if r.id == name {
				return s.item(r), nil
			}
		}
	}
	r := &row{tenant: tenant, id: id, at: time.Now()}
	s.fill(r, in)
	for _, other := range s.rows {
		switch {
		case other.id == id && (other.tenant == tenant || s.hole == "exists by id"),
			other.title == r.title && s.hole == "exists by title":
			return nil, status.Error(codes.AlreadyExists, "it exists")
		}
	}
	if requestID != "" {
		s.answers[key] = id
	}
	if s.hole == "metrics label" {
		s.metrics[r.title] = true
	}
	fmt.Fprintln(s.log, "made", id, "for", tenant)
	if s.hole == "log" {
		fmt.Fprintf(s.log, "made %x\n", r.body)
	}
	s.rows = append(s.rows, r)
	return s.item(r), nil
}

func (s *shop) list(tenant string, in protoreflect.Message) (proto.Message, error) {
	size := int(in.Get(in.Descriptor().Fields().ByName("page_size")).Int())
	token := in.Get(in.Descriptor().Fields().ByName("page_token")).String()
	if size == 0 {
		size = 500
	}
	key := fmt.Sprint(size, token)
	if known, ok := s.lists[key]; ok && s.hole == "list cache" {
		return known.(proto.Message), nil
	}
	of, after := tenant, ""
	if token != "" {
		raw, err := base64.URLEncoding.DecodeString(token)
		owner, last, ok := strings.Cut(string(raw), "|")
		if err != nil || !ok || owner != tenant && s.hole != "page token" {
			return nil, status.Error(codes.InvalidArgument, "bad page token")
		}
		of, after = owner, last
	}
	var page []*row
	next, found := "", after == ""
	for _, r := range slices.Backward(s.rows) {
		if r.tenant != of && s.hole != "list" && (s.hole != "write into another" || !r.moved) {
			continue
		}
		if found && len(page) == size {
			next = base64.URLEncoding.EncodeToString([]byte(of + "|" + page[size-1].id))
			break
		}
		if found {
			page = append(page, r)
		}
		found = found || r.id == after
	}
	m := s.items("ListItemsResponse", page)
	setAny(m.ProtoReflect(), map[string]any{"next_page_token": next})
	s.lists[key] = m
	return m, nil
}

func (s *shop) get(tenant string, in protoreflect.Message) (proto.Message, error) {
	id := s.name(in, "name")
	if r := s.cache[id]; r != nil && s.hole == "cache" {
		return s.item(r), nil
	}
	open := hole("get")
	if slices.Contains(paths(in, "read_mask"), "*") {
		open = "mask"
	}
	r, err := s.find(tenant, id, open)
	for _, path := range paths(in, "read_mask") {
		for _, other := range s.rows {
			if s.hole == "mask path" && other.id == path {
				return nil, status.Errorf(codes.InvalidArgument, "unknown path, did you mean %s?", other.title)
			}
		}
	}
	if err != nil {
		return nil, err
	}
	s.cache[id] = r
	return s.item(r), nil
}

func (s *shop) update(tenant string, in protoreflect.Message) (proto.Message, error) {
	item := in.Get(in.Descriptor().Fields().ByName("item")).Message()
	open := hole("update")
	if len(paths(in, "update_mask")) > 0 {
		open = "masked update"
	}
	r, err := s.find(tenant, s.name(item, "name"), open)
	if err != nil {
		return nil, err
	}
	if s.hole == "write into another" {
		r.moved = true
	}
	s.fill(r, in)
	return s.item(r), nil
}

func (s *shop) remove(tenant string, in protoreflect.Message) (proto.Message, error) {
	r, err := s.find(tenant, s.name(in, "name"), "delete")
	if err != nil {
		return nil, err
	}
	if etag := s.name(in, "etag"); etag != "" && etag != r.etag {
		for _, other := range s.rows {
			if other.etag == etag && s.hole == "oracle by etag" {
				return nil, status.Error(codes.Aborted, "the etag is of another item")
			}
		}
		return nil, status.Error(codes.Aborted, "the etag does not match")
	}
	s.rows = slices.DeleteFunc(s.rows, func(other *row) bool { return other == r })
	if s.hole == "silent delete" { // of what bears the first letters of the same title
		s.rows = slices.DeleteFunc(s.rows, func(other *row) bool { return other.tenant != tenant })
	}
	return &emptypb.Empty{}, nil
}

// unary serves one call. It holds mu.
func (s *shop) unary(tenant, method string, in protoreflect.Message) (proto.Message, error) {
	switch method {
	case "CreateItem":
		return s.create(tenant, in)
	case "GetItem":
		return s.get(tenant, in)
	case "ListItems":
		return s.list(tenant, in)
	case "UpdateItem":
		return s.update(tenant, in)
	case "DeleteItem":
		return s.remove(tenant, in)
	case "ArchiveItem":
		r, err := s.find(tenant, s.name(in, "name"), "archive")
		if err != nil {
			return nil, err
		}
		r.labels = maps.Clone(r.labels)
		r.labels["archived"] = "yes"
		return s.item(r), nil
	case "FindItem":
		if title := s.name(in, "title"); title != "" {
			for _, r := range s.rows {
				if r.title == title && (r.tenant == tenant || s.hole == "search") {
					return s.item(r), nil
				}
			}
			return nil, notFound(title)
		}
		r, err := s.find(tenant, s.name(in, "name"), "find")
		if err != nil {
			return nil, err
		}
		return s.item(r), nil
	case "BatchGetItems":
		names := in.Get(in.Descriptor().Fields().ByName("names")).List()
		var rows []*row
		open := hole("-")
		for i := range names.Len() {
			r, err := s.find(tenant, strings.TrimPrefix(names.Get(i).String(), "items/"), open)
			if err != nil {
				return nil, err
			}
			open = "batch" // the first one was the tenant's
			rows = append(rows, r)
		}
		return s.items("BatchGetItemsResponse", rows), nil
	}
	return nil, status.Error(codes.Unimplemented, method)
}

// who is the caller's tenant: metadata "tenant", which a real service would sign.
func (s *shop) who(ctx context.Context) (string, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	tenant := strings.Join(md.Get("tenant"), ",")
	bearer := strings.Join(md.Get("bearer"), ",")
	switch {
	case tenant == "" && s.hole != "no context":
		return "", status.Error(codes.Unauthenticated, "no tenant")
	case tenant == "":
		return "acme", nil
	case len(md.Get("expired")) > 0 && s.hole != "expired context":
		return "", status.Error(codes.Unauthenticated, "expired")
	case bearer == "thief" && s.hole != "stolen context":
		return "", status.Error(codes.PermissionDenied, "not yours to present")
	}
	return tenant, nil
}

// serve is the handler of all methods.
func (s *shop) serve(_ any, ss grpc.ServerStream) error {
	full, _ := grpc.MethodFromServerStream(ss)
	d := s.file.Services().ByName("Shop").Methods().ByName(protoreflect.Name(full[strings.LastIndexByte(full, '/')+1:]))
	if d == nil {
		return status.Error(codes.Unimplemented, full)
	}
	tenant, err := s.who(ss.Context())
	if err != nil {
		return err
	}
	if d.Name() == "WatchItems" {
		return s.watch(tenant, ss)
	}
	var titles []string
	for {
		in := dynamicpb.NewMessage(d.Input())
		err := ss.RecvMsg(in)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		title, err := s.answer(tenant, ss, d, in)
		if err != nil {
			return err
		}
		titles = append(titles, title)
	}
	if d.Name() != "TouchItems" {
		return nil
	}
	m := s.message("TouchItemsResponse")
	list := m.Mutable(m.Descriptor().Fields().ByName("titles")).List()
	for _, title := range titles {
		list.Append(protoreflect.ValueOfString(title))
	}
	return ss.SendMsg(m)
}

func (s *shop) answer(tenant string, ss grpc.ServerStream, d protoreflect.MethodDescriptor, in protoreflect.Message) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.IsStreamingClient() {
		open := map[protoreflect.Name]hole{"TouchItems": "client stream", "FollowItems": "bidi stream"}[d.Name()]
		r, err := s.find(tenant, s.name(in, "name"), open)
		if err == nil && d.IsStreamingServer() {
			err = ss.SendMsg(s.item(r))
		}
		if err != nil {
			return "", err
		}
		return r.title, nil
	}
	out, err := s.unary(tenant, string(d.Name()), in)
	if err != nil {
		for _, r := range s.rows {
			if s.hole == "trailer" && r.tenant != tenant {
				ss.SetTrailer(metadata.Pairs("near", r.title))
			}
		}
		return "", err
	}
	return "", ss.SendMsg(out)
}

func (s *shop) watch(tenant string, ss grpc.ServerStream) error {
	seen := map[*row]bool{}
	for {
		s.mu.Lock()
		changed := s.changed
		var fresh []proto.Message
		for _, r := range s.rows {
			if (r.tenant == tenant || s.hole == "watch") && !seen[r] {
				seen[r] = true
				fresh = append(fresh, s.item(r))
			}
		}
		s.mu.Unlock()
		for _, m := range fresh {
			if err := ss.SendMsg(m); err != nil {
				return err
			}
		}
		select {
		case <-ss.Context().Done():
			return nil
		case <-changed:
		}
	}
}

// GetServiceInfo implements reflection.ServiceInfoProvider.
func (*shop) GetServiceInfo() map[string]grpc.ServiceInfo {
	return map[string]grpc.ServiceInfo{"shop.v1.Shop": {}}
}

// FindFileByPath implements protodesc.Resolver.
func (s *shop) FindFileByPath(path string) (protoreflect.FileDescriptor, error) {
	if path == s.file.Path() {
		return s.file, nil
	}
	return protoregistry.GlobalFiles.FindFileByPath(path)
}

// FindDescriptorByName implements protodesc.Resolver.
func (s *shop) FindDescriptorByName(name protoreflect.FullName) (protoreflect.Descriptor, error) {
	if name == "shop.v1.Shop" {
		return s.file.Services().ByName("Shop"), nil
	}
	return protoregistry.GlobalFiles.FindDescriptorByName(name)
}

// register puts the shop and what describes it on a server.
func (s *shop) reflection() reflection.ServerOptions {
	return reflection.ServerOptions{Services: s, DescriptorResolver: s}
}
