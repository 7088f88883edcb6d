// Package client connects operators to installations. An installation is a named
// context in a file: where its services are, whom they must be, and where the
// operator's token lies. Start at [Load] and [Context.Dial].
package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/rowhouse-platform/rowhouse/internal/yamlfile"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
)

// EnvFile names the environment variable with the path of the contexts file, and
// EnvContext the one with the context to use.
const (
	EnvFile    = "ROWHOUSE_CONTEXTS"
	EnvContext = "ROWHOUSE_CONTEXT"
)

// File is a contexts file.
type File struct {
	// Current is the context that is used when none is named.
	Current string `yaml:"current"`
	// Contexts are the installations.
	Contexts []Context `yaml:"contexts"`
}

// Context is one installation.
type Context struct {
	// Name is what the operator calls it.
	Name string `yaml:"name"`
	// Roots is a PEM file with the roots that vouch for its services.
	Roots yamlfile.Path `yaml:"roots"`
	// TokenFile holds the operator's token. The token itself is in no file of this kind.
	TokenFile yamlfile.Path `yaml:"token_file"`
	// Services are tenancy, config, quota and gateway.
	Services map[string]Service `yaml:"services"`
}

// Service is where a service is.
type Service struct {
	// Address is a gRPC target.
	Address string `yaml:"address"`
	// Identity is the SPIFFE URI that it must show.
	Identity identity.ID `yaml:"identity"`
}

// ErrNoContext says that there is no contexts file, or no such context in it.
var ErrNoContext = errors.New("no context")

// DefaultFile is where contexts are kept unless the environment says otherwise.
func DefaultFile() string {
	if path := os.Getenv(EnvFile); path != "" {
		return path
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "rowhouse-contexts.yaml"
	}
	return filepath.Join(dir, "rowhouse", "contexts.yaml")
}

// Read reads a contexts file.
func Read(path string) (File, error) {
	var f File
	err := yamlfile.Load(path, &f)
	if errors.Is(err, fs.ErrNotExist) {
		return f, fmt.Errorf("%w: %s does not exist; set %s or pass --contexts", ErrNoContext, path, EnvFile)
	}
	return f, err
}

// Load returns the named context of a file, or its current one for an empty name.
func Load(path, name string) (Context, error) {
	f, err := Read(path)
	if err != nil {
		return Context{}, err
	}
	if name == "" {
		name = os.Getenv(EnvContext)
	}
	if name == "" {
		name = f.Current
	}
	var names []string
	for _, c := range f.Contexts {
		if c.Name == name {
			return c, nil
		}
		names = append(names, c.Name)
	}
	if name == "" {
		return Context{}, fmt.Errorf("%w: %s names no current one; choose with: rowhouse contexts use", ErrNoContext, path)
	}
	return Context{}, fmt.Errorf("%w: %q is not in %s, which has: %s", ErrNoContext, name, path, strings.Join(names, ", "))
}

// Write replaces a contexts file, as a whole and readable by its owner only. Paths in f must be absolute.
func Write(path string, f File) error {
	b, err := yaml.Marshal(f)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	temp, err := os.CreateTemp(dir, ".contexts-") // 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp.Name()) }() // gone when all went well
	_, err = temp.Write(b)
	if err = errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(temp.Name(), path)
}

// retries are what a client may do when a service cannot be reached: every call of an operator either changes nothing
// or carries a request id, so a second try is safe.
const retries = `{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 3, "initialBackoff": "0.1s",
	"maxBackoff": "1s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`

// Dial opens a connection to a service, with the operator's token on every call. It
// does not wait for the connection. The caller closes it.
func (c Context) Dial(service string) (*grpc.ClientConn, error) {
	s, ok := c.Services[service]
	if !ok {
		return nil, fmt.Errorf("the context %q does not say where %s is", c.Name, service)
	}
	roots, err := c.Roots.Read()
	if err != nil {
		return nil, fmt.Errorf("roots: %w", err)
	}
	config, err := identity.AnonymousClientTLS(roots, s.Identity, time.Now)
	if err != nil {
		return nil, fmt.Errorf("roots: %w", err)
	}
	return grpc.NewClient(s.Address, grpc.WithDefaultServiceConfig(retries), grpc.WithDisableServiceConfig(),
		grpc.WithTransportCredentials(credentials.NewTLS(config)), grpc.WithPerRPCCredentials(bearer{c.TokenFile}))
}

// bearer reads the token for each call, so that a new one is used at once.
type bearer struct{ file yamlfile.Path }

// GetRequestMetadata returns the header with the token.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	if b.file == "" {
		return map[string]string{}, nil
	}
	token, err := b.file.Read()
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	return map[string]string{"authorization": "Bearer " + strings.TrimSpace(string(token))}, nil
}

// RequireTransportSecurity keeps the token off plain connections.
func (bearer) RequireTransportSecurity() bool { return true }
