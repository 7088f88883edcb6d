package rpc

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/identity"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
)

// reading is the permission to read secrets: workloads have it for the namespaces that peers.yaml gives them.
const reading = "config.secrets.read"

// ReadSecret implements rowhouse.config.v1.SettingsService. Whose secret it is follows from what holds for the tenant of
// the verified context: a request can name a place, and no secret.
func (s *settingsService) ReadSecret(ctx context.Context, req *configv1.ReadSecretRequest) (*configv1.ReadSecretResponse, error) {
	tc, err := tenant.FromContext(ctx)
	if err != nil {
		return nil, err
	}
	id, ok := identity.FromPeer(ctx)
	allowed := ok && s.ReadsSecrets != nil && s.ReadsSecrets(id, req.GetNamespace())
	var read secretRead
	var failed error
	if allowed {
		failed = s.atOnce(ctx, func(ctx context.Context, q store.Querier) (err error) {
			read, err = s.readSecret(ctx, q, tc, req)
			return err
		})
	}
	return change.View(ctx, s.Kernel, func(_ context.Context, tx *change.Tx) (*configv1.ReadSecretResponse, error) {
		tx.Audit("namespaces/" + req.GetNamespace() + req.GetPointer())
		if !allowed {
			return nil, fault.New(fault.PermissionDenied, fault.ReasonPermissionMissing,
				"the caller may not read the secrets of namespaces/%s", req.GetNamespace()).WithMetadata("permission", reading)
		}
		if read.name != "" {
			tx.Audit(read.name)
		}
		return read.answer, failed
	})
}

// secretRead is a secret that was read, and its name for the record, which it has also when its value cannot be opened.
type secretRead struct {
	name   string
	answer *configv1.ReadSecretResponse
}

func (s *settingsService) readSecret(
	ctx context.Context, q store.Querier, tc tenant.Context, req *configv1.ReadSecretRequest,
) (read secretRead, err error) {
	n, err := store.ReadNamespace(ctx, q, req.GetNamespace())
	if err != nil {
		return read, err
	}
	r := s.reader(ctx, tc)
	stack, _, err := stackOf(ctx, q, n, r, tc.ID())
	if err != nil {
		return read, err
	}
	ref, layer, err := refersTo(stack, req.GetPointer())
	if err != nil {
		return read, err
	}
	if req.GetVersion() > 0 && req.GetVersion() != ref.Version {
		return read, fault.New(fault.Aborted, fault.ReasonEtagMismatch,
			"version %d is referred to at %q, and not version %d: read the settings again", ref.Version, req.GetPointer(), req.GetVersion())
	}
	p, err := s.placeOf(layer, r, n)
	if err != nil {
		return read, err
	}
	read.name = p.SecretName(ref.Name) + "/versions/" + strconv.Itoa(int(ref.Version))
	value, err := s.value(ctx, q, p, ref.Name, ref.Version)
	if fault.KindOf(err) == fault.NotFound {
		err = noSecret(req.GetPointer()) // not the name of a layer that is not the tenant's
	}
	read.answer = &configv1.ReadSecretResponse{Value: value, Version: ref.Version}
	return read, err
}

func noSecret(pointer string) error {
	return fault.New(fault.NotFound, fault.ReasonResourceNotFound, "no secret is referred to at %q", pointer)
}

// refersTo is the reference that holds at a place, and the layer that it is written in.
func refersTo(stack sdk.Stack, pointer string) (sdk.Reference, string, error) {
	e := stack.Effective()
	ref, ok := stack.Schema.ReferenceAt(e.Object, pointer)
	i := slices.IndexFunc(e.Origins, func(o sdk.Origin) bool { return o.Pointer == pointer })
	if !ok || i < 0 {
		return ref, "", noSecret(pointer)
	}
	return ref, e.Origins[i].Layer, nil
}

// placeOf is the place of the secrets of one of a reader's layers, which has the name that stackOf gives it.
func (s *settingsService) placeOf(layer string, r store.Reader, n *configv1.Namespace) (store.Place, error) {
	namespace, err := settings.ParseNamespace(n.GetName())
	if err != nil {
		return store.Place{}, err
	}
	o := settings.Owner{Kind: settings.Tenant}
	uid := r.Tenant
	if layer == sdk.LayerParent {
		uid = r.Parent
	} else if o, err = settings.ParseOwner(layer); err != nil {
		return store.Place{}, fmt.Errorf("the layer %q has no secrets: %w", layer, err)
	}
	if !o.OfTenant() {
		return store.Place{Owner: o, ID: o.Name, Namespace: namespace, NamespaceUID: n.GetUid()}, nil
	}
	state, ok := s.Trust.Tenant(uid)
	if !ok {
		return store.Place{}, fault.New(fault.NotFound, fault.ReasonResourceNotFound, "the tenant does not exist")
	}
	o.Name = state.ID.String()
	p := placeAt(o, state)
	p.Namespace, p.NamespaceUID = namespace, n.GetUid()
	return p, nil
}

// judgeReferences refuses new references to what cannot be read. What a document refers to already stops nobody.
func (w *write) judgeReferences(ctx context.Context, tx *change.Tx) error {
	found := settings.Change{Before: w.before, Owner: w.place.Owner, Layer: &sdk.Layer{Object: w.object}}.References()
	if len(found) == 0 {
		return nil
	}
	var pointers, names []string
	var versions []int32
	for _, pointer := range slices.Sorted(maps.Keys(found)) { // the first is told of
		ref := found[pointer]
		pointers, names, versions = append(pointers, pointer), append(names, ref.Name), append(versions, ref.Version)
	}
	missing, err := store.MissingSecret(ctx, tx, w.place, names, versions)
	if err != nil || missing < 0 {
		return err
	}
	what := fmt.Sprintf("refers to version %d of the secret %q, which %s does not have", versions[missing], names[missing], w.place)
	return refuse(fault.FailedPrecondition, secretUnknown, "the document %s", what).
		WithField(fault.FieldViolation{Field: "document.content" + pointers[missing], Description: what, Reason: secretUnknown})
}

// explained is the JSON of an effective value without the names of its secrets.
func explained(schema *sdk.Schema, content string) (string, error) {
	o, err := sdk.Parse([]byte(content))
	if err != nil {
		return "", fmt.Errorf("explain: %w", err)
	}
	return string(sdk.Canonical(schema.Explained(o))), nil
}
