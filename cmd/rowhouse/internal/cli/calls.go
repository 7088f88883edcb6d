package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// callCommand reaches every RPC that we know of.
func (a *app) callCommand() *cobra.Command {
	var data, service string
	c := &cobra.Command{
		Use:   "call <Service/Method>",
		Short: "Call any RPC with a JSON request",
		Long: `Call any RPC with a JSON request, and print its JSON response; a stream prints one response after the other.
A change gets a request_id when the data has none. Without an argument: list the RPCs.`,
		Example: `  rowhouse call TenantService/GetTenant --data '{"name": "tenants/acme"}'
  rowhouse call rowhouse.tenancy.v1.CellService/UpdateCell --data @cell.json
  rowhouse call AuditService/ListEvents --service quota --data '{"parent": "chains/platform"}'`,
		Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return methodNames(), cobra.ShellCompDirectiveNoFileComp
		},
	}
	c.Flags().StringVarP(&data, "data", "d", "{}", "the request as JSON or YAML; @file, or @- for the standard input")
	c.Flags().StringVar(&service, "service", "", "the service that answers, where several could: "+strings.Join(backends(), ", "))
	c.Flags().String("confirm", "", "the id once more, for what deletes, suspends or revokes")
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			_, err := fmt.Fprintln(c.OutOrStdout(), strings.Join(methodNames(), "\n"))
			return err
		}
		m, err := findMethod(args[0])
		if err != nil {
			return err
		}
		r := newCall(m)
		if service != "" {
			r.service = service
		}
		if err := readData(c, data, r.request); err != nil {
			return usageError(err)
		}
		if err := errors.Join(a.checkFormat(), confirmed(c, r)); err != nil {
			return err
		}
		return a.call(c, r)
	}
	return c
}

// methodNames are the names of all RPCs, short.
func methodNames() []string {
	var names []string
	for _, m := range methods() {
		names = append(names, shortName(m))
	}
	return names
}

// findMethod finds a method by its short or full name.
func findMethod(name string) (protoreflect.MethodDescriptor, error) {
	name = strings.TrimPrefix(name, "/")
	for _, m := range methods() {
		if name == shortName(m) || "/"+name == methodPath(m) || name == string(m.FullName()) {
			return m, nil
		}
	}
	return nil, usagef("there is no RPC %s%s; list them with: rowhouse call", name, didYouMean(name, methodNames(), ""))
}

func readData(c *cobra.Command, data string, into proto.Message) error {
	b := []byte(data)
	if path, ok := strings.CutPrefix(data, "@"); ok {
		var err error
		if b, err = readInput(c, path); err != nil {
			return err
		}
	}
	b, err := jsonOf(b)
	if err != nil {
		return fmt.Errorf("--data: %w", err)
	}
	if err := protojson.Unmarshal(b, into); err != nil {
		return fmt.Errorf("--data: %s", plain(err))
	}
	return nil
}

// call calls and prints the response, or each response of a stream.
func (a *app) call(c *cobra.Command, r call) error {
	p := a.printer(c, "")
	if p.format == formatTable || p.format == formatTSV {
		p.format = formatJSON
	}
	if !r.method.IsStreamingServer() {
		response, err := a.do(c.Context(), c, r)
		if err != nil {
			return err
		}
		return errors.Join(p.row(response), p.close())
	}
	return a.stream(c.Context(), c, r, func(m proto.Message) error { return errors.Join(p.row(m), p.close()) })
}

// stream calls a method that answers by a stream, until the stream or ctx ends.
func (a *app) stream(ctx context.Context, c *cobra.Command, r call, show func(proto.Message) error) error {
	conn, err := a.dial(r.service)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ctx, failed := a.identify(ctx, c, r)
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, methodPath(r.method))
	if err != nil {
		return failed(err)
	}
	if err := errors.Join(s.SendMsg(r.request), s.CloseSend()); err != nil && !errors.Is(err, io.EOF) {
		return failed(err)
	}
	for {
		response := message(r.method.Output())
		err := s.RecvMsg(response)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return failed(err)
		}
		if err := show(response); err != nil {
			return err
		}
	}
}
