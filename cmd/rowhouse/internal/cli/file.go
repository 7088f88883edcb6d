package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// maxFile bounds what is read from files and from the standard input; no request may be larger than 1 MiB.
const maxFile = 4 << 20

// readInput reads a file, or the standard input for "-".
func readInput(c *cobra.Command, path string) ([]byte, error) {
	from := c.InOrStdin()
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }() // only read
		from = f
	}
	b, err := io.ReadAll(io.LimitReader(from, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return b, err
}

// documentOf is what a file holds as JSON. A file whose name says JSON is read as nothing else: what YAML allows beyond,
// such as a comma behind the last member, is a mistake there.
func documentOf(path string, b []byte) ([]byte, error) {
	if !strings.HasSuffix(path, ".json") {
		return jsonOf(b)
	}
	var syntax *json.SyntaxError
	if err := json.Unmarshal(b, new(any)); errors.As(err, &syntax) {
		before := b[:min(max(int(syntax.Offset)-1, 0), len(b))]
		line, column := 1+bytes.Count(before, []byte("\n")), len(before)-bytes.LastIndexByte(before, '\n')
		return nil, fmt.Errorf("line %d, column %d: is no JSON: %w", line, column, err)
	}
	return b, nil
}

// jsonOf turns YAML, of which JSON is a part, into JSON.
func jsonOf(b []byte) ([]byte, error) {
	if json.Valid(b) {
		return b, nil
	}
	var v any
	if err := yaml.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("neither JSON nor YAML: %w", err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("YAML that JSON cannot hold: %w", err)
	}
	return out, nil
}

// readFile reads --file into the request's resource.
func (i *invocation) readFile(c *cobra.Command) error {
	fd := resourceField(i.call.method.Input())
	f := c.Flags().Lookup("file")
	if f == nil || f.Value.String() == "" || fd == nil || i.verb.ownFile {
		return nil
	}
	b, err := readInput(c, f.Value.String())
	if err != nil {
		return err
	}
	if b, err = documentOf(f.Value.String(), b); err != nil {
		return fmt.Errorf("%s: %w", f.Value.String(), err)
	}
	if err := protojson.Unmarshal(b, i.call.request.ProtoReflect().Mutable(fd).Message().Interface()); err != nil {
		return fmt.Errorf("%s: %s", f.Value.String(), plain(err))
	}
	return nil
}

// plain is protobuf's error without its deliberate variation.
func plain(err error) string {
	return strings.TrimSpace(strings.TrimPrefix(strings.ReplaceAll(err.Error(), "\u00a0", " "), "proto: "))
}

// maskFields names in an update what the flags and the file set, so that a zero is a value too.
func (i *invocation) maskFields(c *cobra.Command) error {
	mask := fieldAt(i.call.method.Input(), "update_mask")
	if mask == nil || !strings.HasPrefix(i.verb.rpc, "Update") {
		return nil
	}
	resource := resourceField(i.call.method.Input())
	prefix := string(resource.Name()) + "."
	var paths []string
	for _, f := range i.verb.flags {
		if path, ok := strings.CutPrefix(f.path, prefix); ok && i.values[f.path].isSet() {
			paths = append(paths, path)
		}
	}
	file := c.Flags().Lookup("file")
	if file.Value.String() != "" && !i.verb.ownFile {
		paths = append(paths, settable(i.call.request.ProtoReflect().Get(resource).Message())...)
	}
	if len(paths) == 0 {
		if i.verb.more != nil {
			return nil // the verb says itself what changes
		}
		return usagef("nothing to change: pass a flag or --file; see: %s --help", c.CommandPath())
	}
	slices.Sort(paths)
	set := &fieldmaskpb.FieldMask{Paths: slices.Compact(paths)}
	i.call.request.ProtoReflect().Set(mask, protoreflect.ValueOfMessage(set.ProtoReflect()))
	return nil
}

// settable are the populated fields of a resource that its users set.
func settable(m protoreflect.Message) []string {
	var paths []string
	m.Range(func(fd protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		behaviours, _ := proto.GetExtension(fd.Options(), annotations.E_FieldBehavior).([]annotations.FieldBehavior)
		if fd.Name() != "etag" && !slices.Contains(behaviours, annotations.FieldBehavior_OUTPUT_ONLY) &&
			!slices.Contains(behaviours, annotations.FieldBehavior_IDENTIFIER) {
			paths = append(paths, string(fd.Name()))
		}
		return true
	})
	return paths
}
