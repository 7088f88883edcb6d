package tenantgrpc

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/rowhouse-platform/rowhouse/sdk/readtoken"
)

// ReadTokenKey is the metadata that carries the token of a caller's last commit, in requests
// and, when it changed, in the trailers of answers; see package readtoken.
const ReadTokenKey = "rowhouse-read-token"

// ServeReadTokens lets callers see their own commits in reads from replicas, whichever process
// serves their unary calls: it takes the token that came with the call and answers with that
// of the last commit. Of callers without [ForwardReadTokens] nobody knows what they have
// committed: their reads go to the primary.
func ServeReadTokens() grpc.ServerOption {
	return grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		values := metadata.ValueFromIncomingContext(ctx, ReadTokenKey)
		if len(values) == 0 {
			return handle(ctx, req)
		}
		came := oneReadToken(values)
		ctx = readtoken.NewContext(ctx, came)
		answer, err := handle(ctx, req)
		if token, _ := readtoken.FromContext(ctx); token != came {
			_ = grpc.SetTrailer(ctx, metadata.Pairs(ReadTokenKey, token)) // it fails outside of a call only
		}
		return answer, err
	})
}

// ForwardReadTokens sends the token that the calling context keeps with its unary calls, also
// an empty one, and keeps that of the answer, beside those of parallel calls. Where nobody keeps one nothing is sent.
func ForwardReadTokens() grpc.DialOption {
	return grpc.WithChainUnaryInterceptor(func(
		ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
	) error {
		token, kept := readtoken.FromContext(ctx)
		if !kept {
			return invoke(ctx, method, req, reply, conn, opts...)
		}
		ctx = metadata.AppendToOutgoingContext(ctx, ReadTokenKey, token)
		var trailer metadata.MD
		err := invoke(ctx, method, req, reply, conn, append(opts, grpc.Trailer(&trailer))...)
		if values := trailer.Get(ReadTokenKey); len(values) > 0 {
			readtoken.Note(ctx, token, oneReadToken(values))
		}
		return err
	})
}

// oneReadToken returns the token that came, or in place of nonsense one that nobody opens.
func oneReadToken(values []string) string {
	if len(values) > 1 || len(values[0]) > readtoken.MaxLen {
		return readtoken.Unknown
	}
	return values[0]
}
