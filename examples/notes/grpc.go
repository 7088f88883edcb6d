package notes

import (
	"context"
	"time"

	"google.golang.org/grpc"

	notesv1 "github.com/rowhouse-platform/rowhouse/gen/notes/v1"
)

// service is the gRPC API.
type service struct {
	notesv1.UnimplementedNotesServiceServer
	notes *Notes
}

// Register registers the gRPC API.
func Register(s *grpc.Server, n *Notes) { notesv1.RegisterNotesServiceServer(s, &service{notes: n}) }

// ListNotes implements notes.v1.NotesService.
func (s *service) ListNotes(ctx context.Context, in *notesv1.ListNotesRequest) (*notesv1.ListNotesResponse, error) {
	notes, err := s.notes.List(ctx, in.GetPageSize(), in.GetQuery())
	return &notesv1.ListNotesResponse{Notes: notes}, err
}

// GetNote implements notes.v1.NotesService.
func (s *service) GetNote(ctx context.Context, in *notesv1.GetNoteRequest) (*notesv1.GetNoteResponse, error) {
	note, err := s.notes.Get(ctx, in.GetName())
	return &notesv1.GetNoteResponse{Note: note}, err
}

// CreateNote implements notes.v1.NotesService.
func (s *service) CreateNote(ctx context.Context, in *notesv1.CreateNoteRequest) (*notesv1.CreateNoteResponse, error) {
	note, err := s.notes.Create(ctx, in.GetRequestId(), in.GetNote().GetTitle(), in.GetNote().GetBody())
	return &notesv1.CreateNoteResponse{Note: note}, err
}

// UpdateNote implements notes.v1.NotesService.
func (s *service) UpdateNote(ctx context.Context, in *notesv1.UpdateNoteRequest) (*notesv1.UpdateNoteResponse, error) {
	note, err := s.notes.Update(ctx, in.GetNote().GetName(), in.GetNote().GetTitle(), in.GetNote().GetBody())
	return &notesv1.UpdateNoteResponse{Note: note}, err
}

// DeleteNote implements notes.v1.NotesService.
func (s *service) DeleteNote(ctx context.Context, in *notesv1.DeleteNoteRequest) (*notesv1.DeleteNoteResponse, error) {
	return &notesv1.DeleteNoteResponse{}, s.notes.Delete(ctx, in.GetName())
}

// watchEvery is how often a watch looks for new notes.
const watchEvery = 250 * time.Millisecond

// WatchNotes implements notes.v1.NotesService.
func (s *service) WatchNotes(_ *notesv1.WatchNotesRequest, stream grpc.ServerStreamingServer[notesv1.WatchNotesResponse]) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	var seen Cursor
	for {
		notes, next, err := s.notes.After(stream.Context(), seen)
		if err != nil {
			return err
		}
		for _, note := range notes {
			if err := stream.Send(&notesv1.WatchNotesResponse{Note: note}); err != nil {
				return err
			}
		}
		if seen = next; len(notes) > 0 {
			continue // there may be more than one answer holds
		}
		select {
		case <-stream.Context().Done():
			return context.Cause(stream.Context())
		case <-tick.C:
		}
	}
}
