package rpc

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/page"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/flags"
	"github.com/rowhouse-platform/rowhouse/sdk/flags/flagset"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
)

// flagService serves FlagService.
type flagService struct {
	configv1.UnimplementedFlagServiceServer
	*documentService
}

// held is what holds for a tenant: its flags before kills, and the kills.
type held struct {
	who         flags.Who
	flags, kill sdk.Effective
}

// ListFlags implements rowhouse.config.v1.FlagService.
func (s *flagService) ListFlags(ctx context.Context, req *configv1.ListFlagsRequest) (*configv1.ListFlagsResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.ListFlagsResponse, error) {
		h, err := s.held(ctx, tx, req.GetParent())
		if err != nil {
			return nil, err
		}
		p, err := tx.Page(ctx, page.Query{Parent: req.GetParent(), Size: req.GetPageSize(), Token: req.GetPageToken()})
		if err != nil {
			return nil, err
		}
		defined, _ := flags.Killed(h.flags.Object, h.kill.Object)["flags"].(sdk.Object)
		owners, after := flags.Owners(h.flags), last(p)
		var found []*configv1.Flag
		for _, key := range slices.Sorted(maps.Keys(defined)) {
			if key > after && len(found) < p.Limit() {
				found = append(found, h.flag(key, defined[key], owners[key]))
			}
		}
		found, next, err := page.Cut(p, found, func(f *configv1.Flag) []string { return []string{f.GetKey()} })
		return &configv1.ListFlagsResponse{Flags: found, NextPageToken: next}, err
	})
}

// held reads what holds for a tenant.
func (s *flagService) held(ctx context.Context, tx *change.Tx, parent string) (held, error) {
	var h held
	for namespace, into := range map[string]*sdk.Effective{sdk.FlagsNamespace: &h.flags, sdk.FlagKillsNamespace: &h.kill} {
		p, n, err := s.named(ctx, tx, "parent", parent+"/config/"+namespace, store.ReadNamespace)
		if err != nil {
			return h, err
		}
		stack, _, err := stackOf(ctx, tx, n, readerOf(p), p.Tenant.ID)
		if err != nil {
			return h, err
		}
		*into = stack.Effective()
		t := p.Tenant
		h.who = flags.Who{UID: t.UID, ID: t.ID, Plan: t.Plan, Region: t.Region, Environment: p.Owner.Environment}
	}
	tx.Audit(parent)
	return h, nil
}

// flag is one flag on the wire.
func (h held) flag(key string, definition any, owner string) *configv1.Flag {
	f := &configv1.Flag{Key: key, Layer: owner, Definition: string(sdk.Canonical(definition)), Kill: h.killOf(key)}
	if members, ok := definition.(sdk.Object); ok {
		f.State, _ = members["state"].(string)
		f.DefaultVariant, _ = members["defaultVariant"].(string)
	}
	return f
}

// killOf is what switches a flag off, nil if nothing does.
func (h held) killOf(key string) *configv1.FlagKill {
	kill, ok := h.kill.Object[key].(sdk.Object)
	if !ok {
		return nil
	}
	at := slices.IndexFunc(h.kill.Origins, func(o sdk.Origin) bool { return o.Pointer == sdk.Pointer(key) })
	if at < 0 {
		return killed("", key, kill)
	}
	return killed(h.kill.Origins[at].Layer, key, kill)
}

// killed is a kill on the wire.
func killed(layer, key string, members sdk.Object) *configv1.FlagKill {
	k := &configv1.FlagKill{Layer: layer, Key: key}
	k.Reason, _ = members["reason"].(string)
	k.Author, _ = members["by"].(string)
	if text, ok := members["at"].(string); ok {
		if at, err := time.Parse(time.RFC3339, text); err == nil {
			k.KillTime = timestamppb.New(at)
		}
	}
	return k
}

// ExplainFlag implements rowhouse.config.v1.FlagService.
func (s *flagService) ExplainFlag(ctx context.Context, req *configv1.ExplainFlagRequest) (*configv1.ExplainFlagResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.ExplainFlagResponse, error) {
		h, err := s.held(ctx, tx, req.GetParent())
		if err != nil {
			return nil, err
		}
		document := flags.Killed(h.flags.Object, h.kill.Object)
		defined, _ := document["flags"].(sdk.Object)
		definition, ok := defined[req.GetKey()]
		if !ok {
			return nil, noFlag(req.GetKey(), req.GetParent())
		}
		data, err := h.context(req.GetContext())
		if err != nil {
			return nil, err
		}
		conditions, err := settings.Conditions()
		if err != nil {
			return nil, err
		}
		set, err := flagset.Compile(document, s.Clock, flagset.WithConditions(conditions))
		if err != nil {
			return nil, fmt.Errorf("the stored flags: %w", err)
		}
		out := &configv1.ExplainFlagResponse{
			Flag: h.flag(req.GetKey(), definition, flags.Owners(h.flags)[req.GetKey()]), Provenance: h.provenance(req.GetKey()),
		}
		answer(out, set.Evaluate(req.GetKey(), data))
		out.ErrorDetails = set.Why(req.GetKey(), data)
		return out, nil
	})
}

func noFlag(key, parent string) error {
	return fault.New(fault.NotFound, fault.ReasonResourceNotFound, "there is no flag %q at %s", key, parent)
}

// context reads the evaluation context of a request.
func (h held) context(text string) (*flagset.Context, error) {
	var attributes sdk.Object
	if text != "" {
		var err error
		if attributes, err = sdk.Parse([]byte(text)); err != nil {
			return nil, badField("context", "is not acceptable: "+strings.TrimPrefix(err.Error(), "settings: "))
		}
	}
	data, err := flagset.NewContext(h.who.Identity(), attributes)
	if err != nil {
		return nil, badField("context", "is not acceptable: "+strings.TrimPrefix(err.Error(), "flagset: "))
	}
	return data, nil
}

// answer puts the result of an evaluation on the wire.
func answer(out *configv1.ExplainFlagResponse, r flagset.Result) {
	out.Variant, out.Reason, out.ErrorCode = r.Variant(), r.Reason().String(), r.Code().String()
	out.Metadata = string(sdk.Canonical(r.Metadata()))
	if r.HasValue() {
		out.Value = string(sdk.Canonical(r.Value()))
	}
}

// provenance tells where a flag's parts come from; a kill hides the state of all layers.
func (h held) provenance(key string) (out []*configv1.Provenance) {
	at := sdk.Pointer("flags", key)
	state := &configv1.Provenance{Pointer: at + "/state"}
	for _, o := range h.flags.Origins {
		if o.Pointer != at && !strings.HasPrefix(o.Pointer, at+"/") {
			continue
		}
		p := &configv1.Provenance{Pointer: o.Pointer, Layer: o.Layer, Revision: o.Revision, Shadowed: o.Shadowed,
			Rollout: rolloutName(sdk.FlagsNamespace, o.Rollout)}
		if o.Pointer == state.GetPointer() {
			state = p
		}
		out = append(out, p)
	}
	for _, o := range h.kill.Origins {
		if o.Pointer == sdk.Pointer(key) {
			state.Shadowed = append([]string{state.GetLayer()}, state.GetShadowed()...)
			state.Layer, state.Revision = o.Layer+"/kill", o.Revision
		}
	}
	return out
}

// KillFlag implements rowhouse.config.v1.FlagService.
func (s *flagService) KillFlag(ctx context.Context, req *configv1.KillFlagRequest) (*configv1.KillFlagResponse, error) {
	return change.DoUrgently(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.KillFlagResponse, error) {
		w, err := s.openKills(ctx, tx, req.GetParent(), sdk.FlagKillsNamespace)
		if err != nil {
			return nil, err
		}
		if err := s.there(w.place.Owner); err != nil {
			return nil, err
		}
		if was, ok := w.object[req.GetKey()].(sdk.Object); ok {
			return &configv1.KillFlagResponse{Kill: killed(req.GetParent(), req.GetKey(), was)}, nil
		}
		if err := s.exists(ctx, tx, req.GetParent(), req.GetKey()); err != nil {
			return nil, err
		}
		kill := sdk.Object{
			"reason": req.GetReason(), "by": tx.Call().Principal.Name, "at": tx.Now().UTC().Format(time.RFC3339),
		}
		w.object[req.GetKey()] = kill
		err = s.writeKills(ctx, tx, w, req.GetReason())
		return &configv1.KillFlagResponse{Kill: killed(req.GetParent(), req.GetKey(), kill)}, err
	})
}

// LiftFlag implements rowhouse.config.v1.FlagService.
func (s *flagService) LiftFlag(ctx context.Context, req *configv1.LiftFlagRequest) (*configv1.LiftFlagResponse, error) {
	return change.DoUrgently(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.LiftFlagResponse, error) {
		w, err := s.openKills(ctx, tx, req.GetParent(), sdk.FlagKillsNamespace)
		if err != nil {
			return nil, err
		}
		if _, ok := w.object[req.GetKey()]; !ok {
			return nil, fault.New(fault.NotFound, fault.ReasonResourceNotFound, "%q was not killed at %s", req.GetKey(), req.GetParent())
		}
		delete(w.object, req.GetKey())
		return &configv1.LiftFlagResponse{}, s.writeKills(ctx, tx, w, req.GetReason())
	})
}

// exists refuses to kill what is not there: a slip of the pen would be taken for a kill.
func (s *flagService) exists(ctx context.Context, tx *change.Tx, parent, key string) error {
	p, n, err := s.named(ctx, tx, "parent", parent+"/config/"+sdk.FlagsNamespace, store.ReadNamespace)
	if err != nil {
		return err
	}
	reader := readerOf(p)
	switch p.Owner.Kind {
	case settings.Plan:
		reader.Plan = p.Owner.Name
	case settings.Region:
		reader.Region = p.Owner.Name
	}
	stack, _, err := stackOf(ctx, tx, n, reader, p.Tenant.ID)
	if err != nil {
		return err
	}
	if defined, _ := stack.Effective().Object["flags"].(sdk.Object); defined[key] == nil {
		return noFlag(key, parent)
	}
	return nil
}
