package rpc

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	sdk "github.com/rowhouse-platform/rowhouse/sdk/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/governance"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/settings"
	"github.com/rowhouse-platform/rowhouse/services/config/internal/store"
)

const (
	namespacePrefix = "namespaces/"
	// maxChange bounds what the edits of a change start from and what they want, together.
	maxChange = 1 << 20
)

// compile finds out what edits mean now: of which documents they are, what they start from and what they want.
func (s *changeService) compile(ctx context.Context, tx *change.Tx, given []*configv1.ChangeEdit) ([]*store.Edit, error) {
	if len(given) == 0 {
		return nil, badField("change.edits", "are missing")
	}
	edits := make([]*store.Edit, 0, len(given))
	known, size := make(map[[3]string]bool), 0
	for i, g := range given {
		field := fmt.Sprintf("change.edits[%d]", i)
		e, err := s.compileOne(ctx, tx, field, g)
		if err != nil {
			return nil, err
		}
		place := [3]string{e.NamespaceUID, e.Layer, e.LayerID}
		if known[place] {
			return nil, badField(field+".name", "stands in the change already")
		}
		known[place] = true
		if size += len(text(e.Base)) + len(text(e.Content)); size > maxChange {
			return nil, badField("change.edits", "hold more than 1 MiB with what they start from")
		}
		if (e.Base == nil) == (e.Content == nil) && text(e.Base) == text(e.Content) {
			return nil, badField(field, "changes nothing")
		}
		edits = append(edits, e)
	}
	return edits, nil
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func (s *changeService) compileOne(ctx context.Context, tx *change.Tx, field string, g *configv1.ChangeEdit) (*store.Edit, error) {
	e, err := s.start(ctx, tx, field, g)
	if err != nil {
		return nil, err
	}
	base := "{}"
	if e.Base != nil {
		base = *e.Base
	}
	var wanted string
	switch g.GetForm() {
	case configv1.ChangeEditForm_CHANGE_EDIT_FORM_DELETE:
		switch {
		case g.GetContent() != "":
			return nil, badField(field+".content", "is set, while the document is to be removed")
		case e.Base == nil:
			return nil, fault.New(fault.NotFound, fault.ReasonResourceNotFound, "%s does not exist", g.GetName())
		}
		return e, nil
	case configv1.ChangeEditForm_CHANGE_EDIT_FORM_MERGE_PATCH:
		_, wanted, err = settings.Patched(base, g.GetContent())
	case configv1.ChangeEditForm_CHANGE_EDIT_FORM_JSON_PATCH:
		_, wanted, err = settings.JSONPatched(base, g.GetContent())
	default:
		_, wanted, err = settings.Content(g.GetContent())
	}
	if err != nil {
		return nil, malformedField(field+".content", err)
	}
	e.Content = &wanted
	return e, nil
}

// start is an edit that does not want anything yet.
func (s *changeService) start(ctx context.Context, tx *change.Tx, field string, g *configv1.ChangeEdit) (*store.Edit, error) {
	if id, ok := strings.CutPrefix(g.GetName(), namespacePrefix); ok {
		n, err := store.ReadNamespace(ctx, tx, id)
		if err != nil {
			return nil, err
		}
		o, err := namespaceObject(n)
		if err != nil {
			return nil, err
		}
		switch {
		case g.GetForm() == configv1.ChangeEditForm_CHANGE_EDIT_FORM_DELETE:
			return nil, badField(field+".form", "is not possible for a namespace")
		case g.GetBaseRevision() != 0 && g.GetBaseRevision() != n.GetRevision():
			return nil, etag.Check("then", "now")
		}
		base := string(sdk.Canonical(o))
		return &store.Edit{Name: g.GetName(), NamespaceUID: n.GetUid(), BaseRevision: n.GetRevision(), Base: &base}, nil
	}
	p, _, err := s.documents.named(ctx, tx, field+".name", g.GetName(), store.ReadNamespace)
	if err != nil {
		return nil, err
	}
	if err := writable(p); err != nil {
		return nil, err
	}
	e := &store.Edit{
		Name: g.GetName(), NamespaceUID: p.NamespaceUID, Layer: string(p.Owner.Kind), LayerID: p.ID, BaseRevision: g.GetBaseRevision(),
	}
	var content string
	if e.BaseRevision > 0 {
		content, err = store.RevisionContent(ctx, tx, p, e.BaseRevision)
	} else {
		var d *configv1.Document
		if d, err = store.ReadDocument(ctx, tx, p); fault.KindOf(err) == fault.NotFound {
			err = nil
		}
		content, e.BaseRevision = d.GetContent(), d.GetRevision()
	}
	if content != "" {
		e.Base = &content
	}
	return e, err
}

// namespaceObject is a namespace as a document that edits are about.
func namespaceObject(n *configv1.Namespace) (sdk.Object, error) {
	schema, err := sdk.Parse([]byte(n.GetSchema()))
	if err != nil {
		return nil, fmt.Errorf("the stored schema: %w", err)
	}
	r, err := ruleOf(n)
	if err != nil {
		return nil, err
	}
	o := sdk.Object{"schema": schema}
	if approval := r.Object(); approval != nil {
		o["approval"] = approval
	}
	return o, nil
}

// ruleOf is who must approve what in a namespace.
func ruleOf(n *configv1.Namespace) (governance.Rule, error) {
	r, err := governance.NewRule(n.GetApproval().GetLayers(), int(n.GetApproval().GetCount()))
	if err != nil {
		return r, fmt.Errorf("the stored approval rule of %s: %w", n.GetName(), err)
	}
	return r, nil
}

// approvalOf is the inverse of [ruleOf].
func approvalOf(r governance.Rule) *configv1.NamespaceApproval {
	if r.Count == 0 {
		return nil
	}
	return &configv1.NamespaceApproval{Layers: r.Layers, Count: int32(r.Count)} //nolint:gosec // at most 3
}

// digestOf is what approvals are bound to: all that decides what the change does.
func digestOf(c *store.Change) string {
	h := sha256.New()
	put := func(parts ...string) {
		for _, p := range parts {
			h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p))))
			h.Write([]byte(p))
		}
	}
	presence := func(s *string) {
		if s == nil {
			put("none")
			return
		}
		put("some", *s)
	}
	put("rowhouse change 1", c.GetUid(), c.GetReason())
	for _, e := range c.Edits {
		put(e.Name, e.NamespaceUID, e.Layer, e.LayerID, strconv.FormatInt(e.BaseRevision, 10))
		presence(e.Base)
		presence(e.Content)
	}
	if r := c.GetRollout(); r != nil {
		g := r.GetGuards()
		put("rollout", fmt.Sprint(r.GetSteps()), r.GetBake().AsDuration().String(), fmt.Sprint(g.GetMaxErrorPermille(), g.GetMaxP99Percent(),
			g.GetMinRequests(), g.GetRequireRequests()))
		put(r.GetCanaries()...)
	}
	return hex.EncodeToString(h.Sum(nil))
}
