package dev

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	notesv1 "github.com/rowhouse-platform/rowhouse/gen/notes/v1"
)

// protoset is the file that describes the example app's API to tools like grpcurl.
func (l Layout) protoset() string { return l.path(appName, appName+".protoset") }

// describeApp writes the description of the example app's API, so that what we say to
// try works from every folder and without our sources.
func (l Layout) describeApp() error {
	set := new(descriptorpb.FileDescriptorSet)
	added := map[string]bool{}
	var add func(file protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		if added[file.Path()] {
			return
		}
		added[file.Path()] = true
		for i := range file.Imports().Len() {
			add(file.Imports().Get(i))
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(file))
	}
	add(notesv1.File_notes_v1_notes_service_proto)
	add(notesv1.File_notes_v1_import_service_proto)
	b, err := proto.Marshal(set)
	if err != nil {
		return fmt.Errorf("describe the example app: %w", err)
	}
	return writeSecret(l.protoset(), string(b))
}

// banner says what to open and what to try. Every line can be pasted into a shell, in
// any folder.
func (h *house) banner() {
	port := func(base string, n, usual int) string {
		if n == usual {
			return base
		}
		return fmt.Sprintf("%s:%d", base, n)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\nready in %.1f s. Open in a browser:\n\n", time.Since(h.began).Seconds())
	for _, t := range samples() {
		fmt.Fprintf(&b, "  %s/   %s, plan %s, %s\n", port("http://"+t.host(), h.p.HTTP, 80), t.display, t.plan, t.home())
	}
	fmt.Fprintf(&b, `
Try (each tenant sees its own notes, whatever it asks for):

  curl -s http://notes.acme.localhost:%[1]d/notes
  curl -s http://%[3]s:%[1]d/t/globex/notes
  curl -s --cacert %[4]s https://notes.initech.localhost:%[2]d/notes

With grpcurl, if you have it:

  grpcurl -plaintext -authority notes.acme.localhost -protoset %[9]s 127.0.0.1:%[1]d notes.v1.NotesService/ListNotes

Operate it (the context was written for you):

  export ROWHOUSE_CONTEXTS=%[5]s
  %[8]s tenants list
  %[8]s placements get initech
  %[8]s tenants suspend acme --cause billing --reason "an unpaid bill" --confirm acme
  %[8]s tenants resume acme --cause billing
  %[8]s audit list platform

State: %[6]s   Logs: %[7]s   Stop: Ctrl-C
`, h.p.HTTP, h.p.HTTPS, platform, quoted(h.l.Roots()), quoted(h.l.path("contexts.yaml")), h.l.Dir, h.l.path("log"),
		ourName(h.self), quoted(h.l.protoset()))
	fmt.Fprint(h.o.Out, b.String())
}

// ourName is how a shell finds our own binary: by its name alone where it is on the PATH.
func ourName(self string) string {
	found, err := exec.LookPath("rowhouse")
	if err != nil {
		return quoted(self)
	}
	a, errA := os.Stat(found)
	b, errB := os.Stat(self)
	if errA != nil || errB != nil || !os.SameFile(a, b) {
		return quoted(self)
	}
	return "rowhouse"
}

// quoted makes a path one word of a shell.
func quoted(path string) string {
	if regexp.MustCompile(`^[\w@%+=:,./-]+$`).MatchString(path) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
