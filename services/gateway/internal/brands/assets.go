package brands

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// Bounds of what is kept of assets.
const (
	maxMemory = 64 << 20
	maxDisk   = 512 << 20
	// fetchWithin bounds a question to config.
	fetchWithin = 5 * time.Second
)

// Assets holds content by its hash: in memory what was asked for lately, on disk more, so that a gateway that starts while
// config is away serves on. It is safe for concurrent use.
type Assets struct {
	dir   string
	fetch Fetch
	log   *slog.Logger
	once  singleflight.Group

	mu     sync.Mutex
	memory map[settings.Asset][]byte
	order  []settings.Asset // of memory, the one that came first at its start
	size   int
	disk   int64
}

// OpenAssets keeps content in a folder of its own.
func OpenAssets(dir string, fetch Fetch, log *slog.Logger) (*Assets, error) {
	const private = 0o700
	if err := os.MkdirAll(dir, private); err != nil {
		return nil, fmt.Errorf("folder of assets: %w", err)
	}
	a := &Assets{dir: dir, fetch: fetch, log: log, memory: make(map[settings.Asset][]byte)}
	files, err := a.files()
	for _, f := range files {
		a.disk += f.Size()
	}
	return a, err
}

// Read returns an asset's content. It does not ask whose it is: callers serve only what a tenant's brand names. Errors are
// faults: RESOURCE_NOT_FOUND, and DEPENDENCY_UNAVAILABLE while config does not answer.
func (a *Assets) Read(ctx context.Context, asset settings.Asset) ([]byte, error) {
	a.mu.Lock()
	content, ok := a.memory[asset]
	a.mu.Unlock()
	if ok {
		return content, nil
	}
	// Whoever waits for it shares one question, which goes on when the first of them leaves.
	got := a.once.DoChan(string(asset), func() (any, error) { return a.load(context.WithoutCancel(ctx), asset) })
	select {
	case r := <-got:
		content, _ = r.Val.([]byte)
		return content, r.Err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// load finds content on disk, or with config.
func (a *Assets) load(ctx context.Context, asset settings.Asset) ([]byte, error) {
	path := filepath.Join(a.dir, string(asset))
	if content, err := os.ReadFile(path); err == nil && sound(asset, content) {
		a.remember(asset, content)
		return content, nil
	}
	sha, err := hex.DecodeString(string(asset)[:2*sha256.Size])
	if err != nil {
		return nil, fmt.Errorf("the name of an asset: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, fetchWithin)
	defer cancel()
	content, err := a.fetch(ctx, sha)
	switch {
	case fault.KindOf(err) == fault.NotFound:
		return nil, nothing()
	case err != nil:
		return nil, fault.New(fault.Unavailable, fault.ReasonDependency, "this file is not here yet").WithRetry(time.Second).WithCause(err)
	case !sound(asset, content):
		return nil, fault.New(fault.Unavailable, fault.ReasonDependency, "this file is not here yet").
			WithCause(errors.New("config sent content of another hash"))
	}
	a.remember(asset, content)
	if err := a.keep(path, content); err != nil { // a full disk keeps nobody from being served
		a.log.WarnContext(ctx, "an asset is not kept on disk", "asset", asset, "error", err)
	}
	return content, nil
}

// sound reports whether content has the hash that its name says.
func sound(asset settings.Asset, content []byte) bool {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:]) == string(asset)[:2*sha256.Size]
}

// remember keeps content in memory, and forgets what came first.
func (a *Assets) remember(asset settings.Asset, content []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.memory[asset]; ok {
		return
	}
	a.memory[asset], a.order, a.size = content, append(a.order, asset), a.size+len(content)
	for a.size > maxMemory {
		oldest := a.order[0]
		a.order, a.size = a.order[1:], a.size-len(a.memory[oldest])
		delete(a.memory, oldest)
	}
}

// keep writes content to disk whole or not at all, and removes what was written first once there is too much.
func (a *Assets) keep(path string, content []byte) error {
	f, err := os.CreateTemp(a.dir, "new-")
	if err != nil {
		return err
	}
	_, err = bytes.NewReader(content).WriteTo(f)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.disk += int64(len(content)); a.disk <= maxDisk {
		return nil
	}
	files, err := a.files()
	if err != nil {
		return err
	}
	slices.SortFunc(files, func(f, g os.FileInfo) int { return cmp.Compare(f.ModTime().UnixNano(), g.ModTime().UnixNano()) })
	a.disk = 0
	for _, f := range files {
		a.disk += f.Size()
	}
	for _, f := range files {
		if a.disk <= maxDisk/2 {
			break
		}
		if err := os.Remove(filepath.Join(a.dir, f.Name())); err != nil {
			return err
		}
		a.disk -= f.Size()
	}
	return nil
}

func (a *Assets) files() ([]os.FileInfo, error) {
	entries, err := os.ReadDir(a.dir)
	if err != nil {
		return nil, fmt.Errorf("folder of assets: %w", err)
	}
	files := make([]os.FileInfo, 0, len(entries))
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			files = append(files, info)
		}
	}
	return files, nil
}
