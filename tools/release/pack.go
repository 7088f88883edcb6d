package main

import (
	"archive/tar"
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// user is who runs in the image: nobody that the host knows.
const user = "65532:65532"

// file is a file of an image; its path has no leading slash.
type file struct {
	path string
	mode int64
	text []byte
}

// pack writes an image's OCI layout and tarballs, of the files for each architecture, and returns the digest of the index over its architectures.
func pack(o options, i image, files map[string][]file) (string, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range slices.Sorted(maps.Keys(files)) {
		built, err := build(o, i, arch, files[arch])
		if err != nil {
			return "", err
		}
		platform := &v1.Platform{OS: "linux", Architecture: arch}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: built, Descriptor: v1.Descriptor{Platform: platform}})
		tag, err := name.NewTag("localhost/"+i.name+":"+arch, name.StrictValidation)
		if err != nil {
			return "", err
		}
		if err := tarball.WriteToFile(filepath.Join(o.out, i.name+"-"+arch+".tar"), tag, built); err != nil {
			return "", fmt.Errorf("tarball: %w", err)
		}
	}
	dir := filepath.Join(o.out, i.name)
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if _, err := layout.Write(dir, index); err != nil {
		return "", fmt.Errorf("OCI layout: %w", err)
	}
	digest, err := index.Digest()
	return digest.String(), err
}

// build makes the image of one architecture.
func build(o options, i image, arch string, files []file) (v1.Image, error) {
	text, err := archive(files)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil },
		tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, fmt.Errorf("layer: %w", err)
	}
	base := mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1)
	built, err := mutate.AppendLayers(base, layer)
	if err != nil {
		return nil, fmt.Errorf("add the layer: %w", err)
	}
	config, err := built.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", arch
	config.Config = v1.Config{User: user, Entrypoint: []string{"/" + i.name}, WorkingDir: "/", Labels: map[string]string{
		"org.opencontainers.image.title": i.name, "org.opencontainers.image.licenses": "Apache-2.0",
	}}
	if o.version != "" {
		config.Config.Labels["org.opencontainers.image.version"] = o.version
	}
	return mutate.ConfigFile(built, config)
}

// archive makes a tar that depends on nothing but names, modes and content: sorted, of nobody, of no time. Folders
// come before what is in them.
func archive(files []file) ([]byte, error) {
	entries := map[string]*tar.Header{}
	texts := map[string][]byte{}
	for _, f := range files {
		for dir := filepath.Dir(f.path); dir != "."; dir = filepath.Dir(dir) {
			entries[dir+"/"] = &tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}
		}
		entries[f.path] = &tar.Header{Typeflag: tar.TypeReg, Name: f.path, Mode: f.mode, Size: int64(len(f.text))}
		texts[f.path] = f.text
	}
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, path := range slices.Sorted(maps.Keys(entries)) {
		header := entries[path]
		header.Format, header.ModTime = tar.FormatUSTAR, time.Unix(0, 0)
		if err := w.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("tar %s: %w", path, err)
		}
		if _, err := w.Write(texts[path]); err != nil {
			return nil, fmt.Errorf("tar %s: %w", path, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// authorities returns the CA certificates in PEM, in the order of their names. Those that may vouch only for some
// names or times are left out, because a PEM file cannot say so.
func authorities() []byte {
	var blocks []string
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			blocks = append(blocks, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate})))
		}
	}
	slices.Sort(blocks)
	return []byte(strings.Join(blocks, ""))
}
