package notes

import (
	"context"

	"google.golang.org/grpc"

	notesv1 "github.com/rowhouse-platform/rowhouse/gen/notes/v1"
)

// importService is the gRPC API of imports.
type importService struct {
	notesv1.UnimplementedImportServiceServer
	imports *Imports
}

// RegisterImports registers the gRPC API of imports.
func RegisterImports(s *grpc.Server, m *Imports) {
	notesv1.RegisterImportServiceServer(s, &importService{imports: m})
}

// AddImportRows implements notes.v1.ImportService.
func (s *importService) AddImportRows(ctx context.Context, in *notesv1.AddImportRowsRequest) (*notesv1.AddImportRowsResponse, error) {
	return &notesv1.AddImportRowsResponse{}, s.imports.Add(ctx, in.GetName(), in.GetNumber(), in.GetRows())
}

// StartImport implements notes.v1.ImportService.
func (s *importService) StartImport(ctx context.Context, in *notesv1.StartImportRequest) (*notesv1.StartImportResponse, error) {
	m, err := s.imports.Start(ctx, in.GetName())
	return &notesv1.StartImportResponse{Import: m}, err
}

// GetImport implements notes.v1.ImportService.
func (s *importService) GetImport(ctx context.Context, in *notesv1.GetImportRequest) (*notesv1.GetImportResponse, error) {
	m, err := s.imports.Get(ctx, in.GetName())
	return &notesv1.GetImportResponse{Import: m}, err
}

// ListImports implements notes.v1.ImportService.
func (s *importService) ListImports(ctx context.Context, in *notesv1.ListImportsRequest) (*notesv1.ListImportsResponse, error) {
	all, err := s.imports.List(ctx, in.GetPageSize())
	return &notesv1.ListImportsResponse{Imports: all}, err
}

// CancelImport implements notes.v1.ImportService.
func (s *importService) CancelImport(ctx context.Context, in *notesv1.CancelImportRequest) (*notesv1.CancelImportResponse, error) {
	m, err := s.imports.Cancel(ctx, in.GetName())
	return &notesv1.CancelImportResponse{Import: m}, err
}

// RetryImport implements notes.v1.ImportService.
func (s *importService) RetryImport(ctx context.Context, in *notesv1.RetryImportRequest) (*notesv1.RetryImportResponse, error) {
	m, err := s.imports.Retry(ctx, in.GetName())
	return &notesv1.RetryImportResponse{Import: m}, err
}
