package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

func importFlags(c *cobra.Command) {
	c.Flags().StringP("file", "f", "", "the flags as JSON or YAML; - for the standard input")
	c.Flags().Bool("replace", false, "take away what the layer has and the file does not")
	_ = c.MarkFlagRequired("file") // defined above
}

// flagImport is what one import does to a layer's flags, by their keys.
type flagImport struct {
	Document string   `json:"document"`
	Added    []string `json:"added"`
	Changed  []string `json:"changed"`
	Removed  []string `json:"removed"`
}

// read makes the request's content of a file of flagd's and of what the layer has, whose etag it sends: what it says of
// the difference is so, or nothing is written.
func (f *flagImport) read(a *app, c *cobra.Command, r *call) error {
	request, ok := r.request.(*configv1.UpdateDocumentRequest)
	if !ok {
		return errors.New("flags import sends another request")
	}
	path, _ := c.Flags().GetString("file") // both are defined by importFlags
	replace, _ := c.Flags().GetBool("replace")
	next, err := flagdFile(c, path)
	if err != nil {
		return usagef("%s: %w", path, err)
	}
	document := request.GetDocument()
	before, err := a.documentNow(c, document)
	if err != nil {
		return err
	}
	if !replace {
		next = withFlags(before, next)
	}
	f.compare(document.GetName(), before, next)
	document.Content = string(settings.Canonical(next))
	if document.GetEtag() == "" && !request.GetValidateOnly() {
		return a.stillMissing(c, request)
	}
	return nil
}

// stillMissing sets the etag of a document that did not exist, which only an answer has: what somebody makes meanwhile
// is not replaced.
func (a *app) stillMissing(c *cobra.Command, request *configv1.UpdateDocumentRequest) error {
	try := proto.CloneOf(request)
	try.ValidateOnly, try.RequestId = true, ""
	m, err := findMethod("DocumentService/UpdateDocument")
	if err != nil {
		return err
	}
	r := newCall(m)
	r.request = try
	answer, err := a.do(c.Context(), c, r)
	if err != nil {
		return err
	}
	response, ok := answer.(*configv1.UpdateDocumentResponse)
	if !ok || response.GetDocument().GetRevision() > 0 {
		return fmt.Errorf("%s was made meanwhile; import again", request.GetDocument().GetName())
	}
	request.Document.Etag = response.GetDocument().GetEtag()
	return nil
}

// flagdFile reads a file. A list of flags becomes an object by their keys, which is what layers are merged by.
func flagdFile(c *cobra.Command, path string) (settings.Object, error) {
	b, err := readInput(c, path)
	if err == nil {
		b, err = documentOf(path, b)
	}
	var compact bytes.Buffer // bounds are about what is said
	if err == nil {
		err = json.Compact(&compact, b)
	}
	if err != nil {
		return nil, err
	}
	if _, err := settings.Parse(compact.Bytes()); err != nil { // a decoder would take the last of two members
		return nil, errors.New(strings.TrimPrefix(err.Error(), settings.ErrDocument.Error()+": "))
	}
	if b, err = flagsByKey(compact.Bytes()); err != nil {
		return nil, err
	}
	return settings.Parse(b)
}

// documentNow reads the content of a document, and sets the etag of what it read unless the caller has said one. What
// does not exist is empty.
func (a *app) documentNow(c *cobra.Command, document *configv1.Document) (settings.Object, error) {
	m, err := findMethod("DocumentService/GetDocument")
	if err != nil {
		return nil, err
	}
	r := newCall(m)
	r.request = &configv1.GetDocumentRequest{Name: document.GetName()}
	response, err := a.do(c.Context(), c, r)
	if err != nil && code(err) == codes.NotFound {
		return settings.Object{}, nil
	}
	if err != nil {
		return nil, err
	}
	found, ok := response.(*configv1.GetDocumentResponse)
	if !ok || found.GetDocument().GetContent() == "" {
		return settings.Object{}, nil
	}
	if document.GetEtag() == "" {
		document.Etag = found.GetDocument().GetEtag()
	}
	return settings.Parse([]byte(found.GetDocument().GetContent()))
}

// withFlags puts what a file has over what there is: flags, shared rules and metadata by their names, each as a whole.
func withFlags(before, file settings.Object) settings.Object {
	out := maps.Clone(before)
	for name, value := range file {
		members, ok := value.(settings.Object)
		there, exists := out[name].(settings.Object)
		if ok && exists {
			there = maps.Clone(there)
			maps.Copy(there, members)
			value = there
		}
		out[name] = value
	}
	return out
}

// compare finds out which flags differ.
func (f *flagImport) compare(document string, before, after settings.Object) {
	*f = flagImport{Document: document, Added: []string{}, Changed: []string{}, Removed: []string{}}
	old, _ := before["flags"].(settings.Object)
	now, _ := after["flags"].(settings.Object)
	for _, key := range slices.Sorted(maps.Keys(now)) {
		was, exists := old[key]
		switch {
		case !exists:
			f.Added = append(f.Added, key)
		case !bytes.Equal(settings.Canonical(was), settings.Canonical(now[key])):
			f.Changed = append(f.Changed, key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(old)) {
		if _, exists := now[key]; !exists {
			f.Removed = append(f.Removed, key)
		}
	}
}

// show tells people the numbers and which flags are gone, and everybody each flag that differs.
func (f *flagImport) show(a *app, c *cobra.Command, i *invocation) error {
	gone := ""
	if len(f.Removed) > 0 {
		gone = ": " + strings.Join(f.Removed, ", ")
	}
	a.note(c.ErrOrStderr(), fmt.Sprintf("%d added, %d changed, %d removed%s", len(f.Added), len(f.Changed), len(f.Removed), gone))
	switch format := a.formatFor(c); format {
	case formatJSON, formatYAML:
		b, err := json.MarshalIndent(f, "", "  ")
		if err == nil && format == formatYAML {
			b, err = yamlOf(b)
		}
		if err == nil {
			_, err = fmt.Fprintln(c.OutOrStdout(), strings.TrimRight(string(b), "\n"))
		}
		return err
	case formatTable, formatTSV:
		p := a.printer(c, "FLAG=name CHANGE=etag")
		var rows [][]string
		for _, part := range []struct {
			word string
			keys []string
		}{{"added", f.Added}, {"changed", f.Changed}, {"removed", f.Removed}} {
			for _, key := range part.keys {
				row := []string{printable(key), part.word}
				if format == formatTSV {
					p.tsv(row...)
				}
				rows = append(rows, row)
			}
		}
		p.table(rows)
		return p.close()
	default:
		response := i.response.(*configv1.UpdateDocumentResponse) //nolint:forcetypeassert // the verb's RPC
		return i.write(a, c, response.GetDocument())
	}
}
