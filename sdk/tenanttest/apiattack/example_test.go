package apiattack_test

import (
	"context"
	"fmt"
	"net"
	"sync"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	notesv1 "github.com/rowhouse-platform/rowhouse/gen/notes/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/tenanttest/apiattack"
)

// careless is a service as any team could have it: it takes the tenant from its callers, and
// forgot it in one place.
type careless struct {
	notesv1.UnimplementedNotesServiceServer

	mu    sync.Mutex
	notes []*notesv1.Note
	owner map[string]string // tenant by name
}

func tenantOf(ctx context.Context) (string, error) {
	if t := metadata.ValueFromIncomingContext(ctx, "tenant"); len(t) == 1 {
		return t[0], nil
	}
	return "", status.Error(codes.Unauthenticated, "who calls?")
}

// CreateNote implements notes.v1.NotesService.
func (c *careless) CreateNote(ctx context.Context, in *notesv1.CreateNoteRequest) (*notesv1.CreateNoteResponse, error) {
	t, err := tenantOf(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	note := &notesv1.Note{Name: "notes/" + uuid.NewString(), Title: in.GetNote().GetTitle(), Body: in.GetNote().GetBody()}
	c.notes, c.owner[note.GetName()] = append(c.notes, note), t
	return &notesv1.CreateNoteResponse{Note: note}, nil
}

// GetNote implements notes.v1.NotesService. Whose note it is, it does not ask.
func (c *careless) GetNote(ctx context.Context, in *notesv1.GetNoteRequest) (*notesv1.GetNoteResponse, error) {
	if _, err := tenantOf(ctx); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, note := range c.notes {
		if note.GetName() == in.GetName() {
			return &notesv1.GetNoteResponse{Note: note}, nil
		}
	}
	return nil, status.Error(codes.NotFound, "there is no such note")
}

// ListNotes implements notes.v1.NotesService.
func (c *careless) ListNotes(ctx context.Context, _ *notesv1.ListNotesRequest) (*notesv1.ListNotesResponse, error) {
	t, err := tenantOf(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	out := &notesv1.ListNotesResponse{}
	for _, note := range c.notes {
		if c.owner[note.GetName()] == t {
			out.Notes = append(out.Notes, note)
		}
	}
	return out, nil
}

// A service is attacked as its own tests start it. In a test, Run in the place of Attack fails
// the test for what is found, and for each method that was not tried. A service of Rowhouse
// gets its callers from tenanttest.Issuer: see attack_test.go of examples/notes.
func ExampleAttack() {
	ctx := context.Background()
	server := grpc.NewServer()
	notesv1.RegisterNotesServiceServer(server, &careless{owner: map[string]string{}})
	lis := bufconn.Listen(1 << 20)
	go func() { _ = server.Serve(lis) }()
	defer server.Stop()
	conn, err := grpc.NewClient("passthrough:notes", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = conn.Close() }()

	report, err := apiattack.Attack(ctx, apiattack.Target{
		Victim:   apiattack.Party{Conn: conn, In: as("tenant", "acme")},
		Attacker: apiattack.Party{Conn: conn, In: as("tenant", "globex")},
		Services: []string{"notes.v1.NotesService"},
		Skip: map[string]string{
			"/notes.v1.NotesService/UpdateNote": "not served", "/notes.v1.NotesService/DeleteNote": "not served",
			"/notes.v1.NotesService/WatchNotes": "not served",
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, m := range report.Methods {
		fmt.Println(m.Verdict, m.Name)
	}
	for _, f := range report.Findings() {
		fmt.Println(f.Attack, "gets through", f.Method)
	}
	// Output:
	// held /notes.v1.NotesService/CreateNote
	// untested /notes.v1.NotesService/DeleteNote
	// leaked /notes.v1.NotesService/GetNote
	// held /notes.v1.NotesService/ListNotes
	// untested /notes.v1.NotesService/UpdateNote
	// untested /notes.v1.NotesService/WatchNotes
	// same-request gets through /notes.v1.NotesService/GetNote
	// foreign-id gets through /notes.v1.NotesService/GetNote
}
