package settings

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/sdk/tenantgrpc"
)

const (
	defaultSecretAge   = 5 * time.Minute
	defaultSecretStale = time.Hour
	maxKeptSecrets     = 1024
)

// SecretsConfig is what [NewSecrets] needs. Config and Store are required.
type SecretsConfig struct {
	// Config is a connection to the config service that forwards tenant contexts, as [tenantgrpc.Client] makes it. This
	// process's line in peers.yaml must name the namespaces that are read among its "secrets".
	Config grpc.ClientConnInterface
	// Store knows which secrets settings refer to.
	Store *Store
	// MaxAge is how long a value is used before it is read again. Default 5 minutes.
	MaxAge time.Duration
	// MaxStale is how long one is used while config does not answer, from when it was read. Default an hour.
	MaxStale time.Duration
	// Clock is the time. Default time.Now.
	Clock func() time.Time
}

// Secrets reads the secrets that settings refer to. It keeps up to 1,024 values, in memory alone; a document that refers
// to another version is obeyed at once. It is safe for concurrent use.
type Secrets struct {
	cfg     SecretsConfig
	service configv1.SettingsServiceClient

	mu   sync.Mutex
	kept map[secretPlace]*keptSecret
}

// secretPlace is all that decides which value is meant. The layer belongs to it: a plan and a tenant may have secrets of
// one name.
type secretPlace struct {
	uid                       tenant.UID
	namespace, pointer, layer string
	ref                       Reference
}

// keptSecret is a value and when it was read. Who holds the turn reads it.
type keptSecret struct {
	turn  chan struct{}
	value Secret
	at    time.Time
}

// NewSecrets returns a reader.
func NewSecrets(cfg SecretsConfig) *Secrets {
	if cfg.MaxAge <= 0 {
		cfg.MaxAge = defaultSecretAge
	}
	if cfg.MaxStale <= 0 {
		cfg.MaxStale = defaultSecretStale
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	return &Secrets{cfg: cfg, service: configv1.NewSettingsServiceClient(cfg.Config), kept: make(map[secretPlace]*keptSecret)}
}

// SecretFor returns the secret that the settings of the tenant of ctx refer to at a JSON pointer of a namespace, such as
// "/payments/key". Errors are those of [For], and those of the config service: RESOURCE_NOT_FOUND where nothing is
// referred to, PERMISSION_MISSING, SECRET_DESTROYED, ETAG_MISMATCH where config refers to another version than this process
// knows of yet. A value is not asked for again while it is young, and while config does not answer, or is ahead, an older one
// goes on being used for a while.
func SecretFor(ctx context.Context, s *Secrets, namespace, pointer string) (Secret, error) {
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return Secret{}, err
	}
	all, err := Read(s.cfg.Store, s.cfg.Store.reader(tc), namespace, func(e Effective) (placedReferences, error) {
		return placedReferences{e.Object, e.Origins}, nil
	})
	if err != nil {
		return Secret{}, err
	}
	at := secretPlace{uid: tc.UID(), namespace: namespace, pointer: pointer}
	var ok bool
	if at.ref, at.layer, ok = all.at(pointer); !ok {
		return Secret{}, fault.New(fault.NotFound, fault.ReasonResourceNotFound, "no secret is referred to at %q", pointer)
	}
	return s.read(ctx, at)
}

// placedReferences is what holds, as [Secrets] looks into it.
type placedReferences struct {
	object  Object
	origins []Origin
}

func (p placedReferences) at(pointer string) (Reference, string, bool) {
	v, ok := At(p.object, pointer)
	ref, is := referenceOf(v)
	i, found := slices.BinarySearchFunc(p.origins, pointer, func(o Origin, pointer string) int {
		return strings.Compare(o.Pointer, pointer)
	})
	if !ok || !is || !found {
		return Reference{}, "", false
	}
	return ref, p.origins[i].Layer, true
}

// read returns what is kept, or asks. One of those who want the same value asks, and the others wait for it.
func (s *Secrets) read(ctx context.Context, at secretPlace) (Secret, error) {
	k := s.place(at)
	select {
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		return Secret{}, ctx.Err()
	}
	age := s.cfg.Clock().Sub(k.at)
	if !k.value.IsZero() && age < s.cfg.MaxAge {
		return k.value, nil
	}
	resp, err := s.service.ReadSecret(ctx, &configv1.ReadSecretRequest{
		Namespace: at.namespace, Pointer: at.pointer, Version: at.ref.Version,
	})
	if err != nil {
		err = tenantgrpc.FromStatus(err)
		waits := away(err) || fault.KindOf(err) == fault.Aborted // this process's settings are a moment behind, or ahead
		if waits && !k.value.IsZero() && age < s.cfg.MaxStale {
			return k.value, nil
		}
		if !waits {
			k.value = Secret{} // destroyed, or not for us any more
		}
		return Secret{}, fmt.Errorf("read a secret of %s: %w", at.namespace, err)
	}
	k.value, k.at = NewSecret(resp.GetValue()), s.cfg.Clock()
	return k.value, nil
}

// away says whether an error is that nobody answers, and not an answer.
func away(err error) bool {
	kind := fault.KindOf(err)
	return kind == fault.Unavailable || kind == fault.DeadlineExceeded || kind == fault.ResourceExhausted
}

// place finds where a value is kept, or makes room for it.
func (s *Secrets) place(at secretPlace) *keptSecret {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.kept[at]; k != nil {
		return k
	}
	for len(s.kept) >= maxKeptSecrets {
		for other := range s.kept { // in no order, which will do: what is used is read again
			delete(s.kept, other)
			break
		}
	}
	k := &keptSecret{turn: make(chan struct{}, 1)}
	s.kept[at] = k
	return k
}
