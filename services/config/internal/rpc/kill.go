package rpc

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
)

// KillSetting implements rowhouse.config.v1.DocumentService.
func (s *documentService) KillSetting(ctx context.Context, req *configv1.KillSettingRequest) (*configv1.KillSettingResponse, error) {
	return change.DoUrgently(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.KillSettingResponse, error) {
		w, namespace, err := s.openSettingKills(ctx, tx, req.GetName())
		if err != nil {
			return nil, err
		}
		if err := s.there(w.place.Owner); err != nil {
			return nil, err
		}
		of, _ := w.object[namespace].(sdk.Object)
		layer := w.place.Owner.String()
		if was, ok := of[req.GetPointer()]; ok {
			return &configv1.KillSettingResponse{Kill: settingKilled(sdk.ReadKill(req.GetPointer(), layer, was))}, nil
		}
		if err := killable(ctx, tx, namespace, req.GetPointer()); err != nil {
			return nil, err
		}
		if of == nil {
			of = sdk.Object{}
			w.object[namespace] = of
		}
		entry := sdk.KillEntry(req.GetReason(), tx.Call().Principal.Name, tx.Now())
		of[req.GetPointer()] = entry
		err = s.writeKills(ctx, tx, w, req.GetReason())
		return &configv1.KillSettingResponse{Kill: settingKilled(sdk.ReadKill(req.GetPointer(), layer, entry))}, err
	})
}

// LiftSetting implements rowhouse.config.v1.DocumentService.
func (s *documentService) LiftSetting(ctx context.Context, req *configv1.LiftSettingRequest) (*configv1.LiftSettingResponse, error) {
	return change.DoUrgently(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*configv1.LiftSettingResponse, error) {
		w, namespace, err := s.openSettingKills(ctx, tx, req.GetName())
		if err != nil {
			return nil, err
		}
		of, _ := w.object[namespace].(sdk.Object)
		if _, ok := of[req.GetPointer()]; !ok {
			return nil, fault.New(fault.NotFound, fault.ReasonResourceNotFound, "%q was not killed in %s", req.GetPointer(), req.GetName())
		}
		if delete(of, req.GetPointer()); len(of) == 0 {
			delete(w.object, namespace)
		}
		return &configv1.LiftSettingResponse{}, s.writeKills(ctx, tx, w, req.GetReason())
	})
}

// openSettingKills is openKills for the name of a document, with the document's namespace.
func (s *documentService) openSettingKills(ctx context.Context, tx *change.Tx, name string) (*write, string, error) {
	o, namespace, err := settings.ParseName(name)
	if err != nil {
		return nil, "", badField("name", "is not the name of a document")
	}
	tx.Audit(name)
	w, err := s.openKills(ctx, tx, o.String(), sdk.KillsNamespace)
	return w, namespace, err
}

// openKills locks the kills of a layer, which stand in a namespace of their own: a kill waits for no check of a large write.
func (s *documentService) openKills(ctx context.Context, tx *change.Tx, owner, kills string) (*write, error) {
	p, _, err := s.named(ctx, tx, "parent", owner+"/config/"+kills, store.LockNamespace)
	if err != nil {
		return nil, err
	}
	w := &write{place: p}
	w.document, err = store.ReadDocument(ctx, tx, p)
	if fault.KindOf(err) == fault.NotFound {
		w.document, err = &configv1.Document{Name: p.String(), Content: "{}"}, nil
	}
	if err != nil {
		return nil, err
	}
	w.object, err = sdk.Parse([]byte(w.document.GetContent()))
	return w, err
}

// writeKills writes and publishes the kills of a layer.
func (s *documentService) writeKills(ctx context.Context, tx *change.Tx, w *write, reason string) error {
	var err error
	if w.object, w.document.Content, err = settings.Content(string(sdk.Canonical(w.object))); err != nil {
		return malformedField("key", err)
	}
	tx.Audit(w.place.String(), "content")
	if tx.Call().ValidateOnly {
		return nil
	}
	return w.commit(ctx, tx, reason)
}

// killable refuses to kill what has no safe value. The kills are locked, so that no other schema takes it away meanwhile.
func killable(ctx context.Context, q store.Querier, namespace, pointer string) error {
	n, err := store.ReadNamespace(ctx, q, namespace)
	if err != nil {
		return err
	}
	schema, err := sdk.Parse([]byte(n.GetSchema()))
	if err != nil {
		return fmt.Errorf("the stored schema of %s: %w", namespace, err)
	}
	if _, ok := sdk.NewSchema(schema).Safe(pointer); !ok {
		return refuse(fault.FailedPrecondition, notKillable, "the schema of namespaces/%s has no \"x-kill\" for %s", namespace, pointer).
			WithField(fault.FieldViolation{Field: "pointer", Description: "has no safe value in the schema", Reason: notKillable})
	}
	return nil
}

// keepsKills refuses a schema that has no safe value for what is killed in a namespace.
func keepsKills(ctx context.Context, q store.Querier, namespace, text string) error {
	n, err := store.LockNamespace(ctx, q, sdk.KillsNamespace)
	if fault.KindOf(err) == fault.NotFound {
		return nil // the built-in namespaces are being made
	}
	if err != nil {
		return err
	}
	object, err := sdk.Parse([]byte(text))
	if err != nil {
		return err
	}
	schema := sdk.NewSchema(object)
	return store.EachText(ctx, q, n.GetUid(), store.Scope{}, func(kind settings.Kind, ids []string, text string) error {
		kills, err := sdk.Parse([]byte(text))
		if err != nil {
			return err
		}
		of, _ := kills[namespace].(sdk.Object)
		for pointer := range of {
			if _, ok := schema.Safe(pointer); !ok {
				return refuse(fault.FailedPrecondition, notKillable, "%s is killed at the layer of %d owners (%s); lift it first",
					pointer, len(ids), kind)
			}
		}
		return nil
	})
}

// killsOf reads what is killed in a namespace for a reader. Most schemas let nothing be killed, which costs no query.
func killsOf(
	ctx context.Context, q store.Querier, n *configv1.Namespace, schema *sdk.Schema, r store.Reader, tenantID tenant.ID,
) ([]sdk.Kill, error) {
	if !schema.Killable() || n.GetName() == "namespaces/"+sdk.KillsNamespace {
		return nil, nil
	}
	kills, err := store.ReadNamespace(ctx, q, sdk.KillsNamespace)
	if err != nil {
		return nil, err
	}
	stack, _, err := stackOf(ctx, q, kills, r, tenantID)
	if err != nil {
		return nil, err
	}
	return sdk.KillsOf(stack.Effective(), strings.TrimPrefix(n.GetName(), "namespaces/")), nil
}

// settingKilled is a kill on the wire.
func settingKilled(k sdk.Kill) *configv1.SettingKill {
	out := &configv1.SettingKill{Layer: k.Layer, Pointer: k.Pointer, Reason: k.Reason, Author: k.Author}
	if !k.Time.IsZero() {
		out.KillTime = timestamppb.New(k.Time)
	}
	return out
}
