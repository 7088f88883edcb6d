package mint

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

const (
	// renewEvery is how old a certificate gets before it is renewed.
	renewEvery = 12 * time.Hour
	// maxWaits is after how many waits in vain a certified key is given up.
	maxWaits = 3
	// margin is how long before its end a certificate is not used any more to start with.
	margin      = time.Minute
	firstRetry  = 200 * time.Millisecond
	lastRetry   = 30 * time.Second
	proofPrefix = "rowhouse-certify/v1\x00"
)

// Certifier certifies keys; tenancy's ContextService is one.
type Certifier interface {
	CertifyKey(ctx context.Context, in *tenancyv1.CertifyKeyRequest) (*tenancyv1.CertifyKeyResponse, error)
}

// KeeperConfig makes a [Keeper]. All fields but Settled and Log are required.
type KeeperConfig struct {
	// Minter gets the keys.
	Minter *Minter
	// Certifier certifies them.
	Certifier Certifier
	// Roots are the public keys that certificates are checked against.
	Roots []ed25519.PublicKey
	// Settled waits until verifiers can be expected to know a key that was just
	// certified; until then the minter goes on with the one before. Nil does not wait.
	Settled func(ctx context.Context, id tenant.KeyID) error
	// SPIFFEID is the gateway's own identity, which the proof covers.
	SPIFFEID string
	// Path is the sealed file; KEK its key-encryption key, 32 bytes.
	Path   string
	KEK    []byte
	Clock  func() time.Time
	Random io.Reader
	Log    *slog.Logger
}

// Keeper gets the minter's keys: from disk at start, from tenancy when they are
// older than 12 h. Certificates live 48 h, so a gateway mints for at least 36 h
// after the control plane was lost, through restarts.
type Keeper struct {
	c     KeeperConfig
	vault *vault
	renew time.Time
	wake  chan struct{}
	// pending is a certified key that waits for verifiers to know it, for the waits-th time.
	pending *stored
	waits   int

	mu sync.Mutex
	// missed are keys of cells that tenancy did not give us when it was asked for them.
	missed map[sealName]bool
	// wanted are those that a question under way is about.
	wanted map[sealName]bool
}

// sealName names a cell's MAC key.
type sealName struct {
	cell string
	kid  uint8
}

// stored is what the vault holds.
type stored struct {
	Private     []byte
	Certificate []byte
	Seals       []storedSeal
	Renew       time.Time
}

type storedSeal struct {
	Cell     string
	KID      uint8
	Key      []byte
	NotAfter time.Time
}

// NewKeeper opens the sealed file and puts still valid keys to use. A file that
// cannot be opened is an error: it is not replaced behind the operator's back.
func NewKeeper(c KeeperConfig) (*Keeper, error) {
	v, err := openVault(c.Path, c.KEK, c.Random)
	if err != nil {
		return nil, err
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	k := &Keeper{c: c, vault: v, wake: make(chan struct{}, 1), missed: map[sealName]bool{}, wanted: map[sealName]bool{}}
	var s stored
	switch err := v.load(&s); {
	case errors.Is(err, fs.ErrNotExist):
		return k, nil
	case err != nil:
		return nil, err
	}
	if err := k.adopt(s); err != nil {
		c.Log.Warn("the keys on disk are not used", "error", err)
		return k, nil
	}
	k.renew = s.Renew
	return k, nil
}

// Run renews the keys until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	wait := firstRetry
	for {
		pause := k.renew.Sub(k.c.Clock())
		if pause <= 0 {
			if err := k.Renew(ctx); err != nil {
				k.c.Log.WarnContext(ctx, "the signing key was not renewed", "error", err, "retry", wait)
				pause, wait = wait, min(2*wait, lastRetry)
			} else {
				pause, wait = k.renew.Sub(k.c.Clock()), firstRetry
			}
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		case <-k.wake:
			timer.Stop()
			k.renew = k.c.Clock()
		}
	}
}

// Want tells that a cell now seals with this key. If the gateway does not have it,
// it asks tenancy at once; until then another one that PostgreSQL accepts stands in. It
// asks for each key once: a cell that its certificate does not name stays without.
func (k *Keeper) Want(cell string, kid uint8) {
	keys := k.c.Minter.Keys()
	if keys == nil {
		return // the first certificate brings all seal keys
	}
	name := sealName{cell, kid}
	k.mu.Lock()
	defer k.mu.Unlock()
	if keys.has(name) || k.missed[name] {
		return
	}
	k.wanted[name] = true
	k.Replace()
}

// Renew makes a new key, has it certified, stores it and, once verifiers know it,
// puts it to use. A key that they did not hear of in time is waited for again.
func (k *Keeper) Renew(ctx context.Context) error {
	if k.pending == nil {
		s, err := k.certify(ctx)
		if err != nil {
			return err
		}
		k.pending = &s
	}
	s := *k.pending
	if err := k.settle(ctx, s); err != nil {
		if k.waits++; k.waits >= maxWaits && ctx.Err() == nil {
			k.pending, k.waits = nil, 0
		}
		return err
	}
	k.pending, k.waits = nil, 0
	if err := k.adopt(s); err != nil {
		return err
	}
	k.renew = s.Renew
	k.asked()
	return nil
}

// settle waits until verifiers know a certified key.
func (k *Keeper) settle(ctx context.Context, s stored) error {
	if k.c.Settled == nil {
		return nil
	}
	signer, err := tenant.NewSigner(s.Private)
	if err != nil {
		return fmt.Errorf("the signing key: %w", err)
	}
	return k.c.Settled(ctx, signer.KeyID())
}

// Replace asks for another key at once: the one in use is not accepted any more.
func (k *Keeper) Replace() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// asked notes which of the wanted keys did not come.
func (k *Keeper) asked() {
	keys := k.c.Minter.Keys()
	k.mu.Lock()
	defer k.mu.Unlock()
	for name := range k.wanted {
		if !keys.has(name) {
			k.missed[name] = true
		}
	}
	clear(k.wanted)
}

// certify makes a key, has it certified and stores it.
func (k *Keeper) certify(ctx context.Context) (stored, error) {
	public, private, err := ed25519.GenerateKey(k.c.Random)
	if err != nil {
		return stored{}, fmt.Errorf("make a signing key: %w", err)
	}
	answer, err := k.c.Certifier.CertifyKey(ctx, &tenancyv1.CertifyKeyRequest{
		PublicKey: public, Proof: ed25519.Sign(private, []byte(proofPrefix+k.c.SPIFFEID)),
	})
	if err != nil {
		return stored{}, fmt.Errorf("certify the signing key: %w", err)
	}
	s := stored{Private: private, Certificate: answer.GetCertificate(), Renew: k.c.Clock().Add(renewEvery)}
	if t := answer.GetRenewTime(); t.IsValid() && t.AsTime().Before(s.Renew) {
		s.Renew = t.AsTime()
	}
	for _, key := range answer.GetSealKeys() {
		s.Seals = append(s.Seals, storedSeal{
			Cell: key.GetCell(), Key: key.GetKey(), NotAfter: key.GetNotAfter().AsTime(),
			KID: uint8(key.GetKid()), //nolint:gosec // a kid is one byte
		})
	}
	return s, k.vault.save(s)
}

// adopt checks stored keys and gives them to the minter.
func (k *Keeper) adopt(s stored) error {
	cert, err := tenant.ParseKeyCertificate(k.c.Roots, s.Certificate)
	if err != nil {
		return fmt.Errorf("the key's certificate: %w", err)
	}
	if !k.c.Clock().Add(margin).Before(cert.NotAfter) {
		return errors.New("the key's certificate has expired")
	}
	signer, err := tenant.NewSigner(s.Private)
	if err != nil {
		return fmt.Errorf("the signing key: %w", err)
	}
	if signer.KeyID() != tenant.KeyIDOf(cert.PublicKey) || cert.SPIFFE.String() != k.c.SPIFFEID {
		return errors.New("the certificate is for another key or another gateway")
	}
	keys := &Keys{Signer: signer, Certificate: cert, Encoded: s.Certificate, Seals: make(map[string][]SealKey)}
	for _, seal := range s.Seals {
		if len(seal.Key) != len(tenant.SealKey{}) {
			return errors.New("a seal key has the wrong size")
		}
		keys.Seals[seal.Cell] = append(keys.Seals[seal.Cell], SealKey{KID: seal.KID, Key: tenant.SealKey(seal.Key), NotAfter: seal.NotAfter})
	}
	k.c.Minter.Use(keys)
	return nil
}
