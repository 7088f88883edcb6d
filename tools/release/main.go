// Command release builds our container images without a container engine.
//
// An image is one static binary on nothing: no shell, no package, no user database. It also holds the CA certificates
// that the pinned Go module brings, our licence, and in NOTICE those of the code that is linked in. The same source gives the same digests on every machine: paths,
// times and the order of files leave no trace. Start at run.
//
//	release [-o dist] [-root ..] [-arch amd64,arm64] [-version v]
//
// For each image it writes an OCI layout of all architectures, IMAGE/, and a tarball of each, IMAGE-ARCH.tar, that
// docker load and podman load read; and it prints the digest that manifests should name.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
)

// image is what is built into one image.
type image struct {
	// name is the image's, and its binary's.
	name string
	// pkg is the main package.
	pkg string
}

// images lists what we ship: the four services in one image, and the example app.
func images() []image {
	return []image{{"rowhouse", "./cmd/rowhouse"}, {"notes", "./examples/notes/cmd/notes"}}
}

// options are the command line.
type options struct {
	// root is the checkout, out the folder that is written.
	root, out string
	arches    []string
	// version is what the binary says of itself and goes into a label; empty means none.
	version string
	images  []image
}

func main() {
	o := options{images: images()}
	flag.StringVar(&o.out, "o", "../dist", "the folder to write")
	flag.StringVar(&o.root, "root", "..", "the checkout")
	flag.StringVar(&o.version, "version", "", "the version, for the binaries and the images' label")
	arches := flag.String("arch", "amd64,arm64", "architectures, by comma")
	flag.Parse()
	o.arches = strings.Split(*arches, ",")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Stdout, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// run builds and writes all images and prints a line for each: name and digest.
func run(ctx context.Context, out io.Writer, o options) error {
	licence, err := os.ReadFile(filepath.Join(o.root, "LICENSE"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil { //nolint:gosec // images are for everyone
		return err
	}
	for _, i := range o.images {
		built := map[string][]file{}
		for _, arch := range o.arches {
			binary, err := compile(ctx, o, i, arch)
			if err != nil {
				return fmt.Errorf("%s for %s: %w", i.name, arch, err)
			}
			others, err := notice(ctx, o.root, binary)
			if err != nil {
				return fmt.Errorf("licences of what is in %s: %w", i.name, err)
			}
			built[arch] = []file{
				{i.name, 0o755, binary}, {"etc/ssl/certs/ca-certificates.crt", 0o644, authorities()},
				{"LICENSE", 0o644, licence}, {"NOTICE", 0o644, others},
			}
		}
		digest, err := pack(o, i, built)
		if err != nil {
			return fmt.Errorf("image %s: %w", i.name, err)
		}
		fmt.Fprintf(out, "%s@%s\n", i.name, digest)
	}
	return nil
}
