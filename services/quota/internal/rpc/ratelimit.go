package rpc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	"github.com/rowhouse-platform/rowhouse/internal/change"
	"github.com/rowhouse-platform/rowhouse/internal/etag"
	"github.com/rowhouse-platform/rowhouse/internal/page"
	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/rls"
	"github.com/rowhouse-platform/rowhouse/services/quota/internal/rls/ruleset"
)

// rateLimitConfigService serves RateLimitConfigService.
type rateLimitConfigService struct {
	quotav1.UnimplementedRateLimitConfigServiceServer
	Config
}

const (
	// saltSize is how many bytes a domain's salt has.
	saltSize = 16
	// maxDomain is how many bytes the name of a domain has.
	maxDomain = 256
)

// ImportRateLimitConfig implements rowhouse.quota.v1.RateLimitConfigService.
func (s *rateLimitConfigService) ImportRateLimitConfig(
	ctx context.Context, req *quotav1.ImportRateLimitConfigRequest,
) (*quotav1.ImportRateLimitConfigResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.ImportRateLimitConfigResponse, error) {
		sets, err := parse(req.GetFiles())
		if err != nil {
			return nil, err
		}
		resp := &quotav1.ImportRateLimitConfigResponse{}
		var stored []rls.Stored
		var changed []string
		for i, set := range sets {
			one, wrote, err := s.put(ctx, tx, set, req.GetFiles()[i].GetContent())
			if err != nil {
				return nil, err
			}
			resp.Domains = append(resp.Domains, brief(one.Domain))
			if wrote {
				tx.Audit(one.Domain.GetName(), "file", "yaml")
				changed, stored = append(changed, set.Domain), append(stored, one)
			} else {
				tx.Audit(one.Domain.GetName())
			}
		}
		if len(changed) > 0 {
			publish(tx, changed, stored, resp.GetDomains())
		}
		return resp, nil
	})
}

// parse reads all files and tells all that is wrong with them.
func parse(files []*quotav1.RateLimitFile) ([]*ruleset.Set, error) {
	refusal := fault.New(fault.InvalidArgument, fault.ReasonInvalidField, "the files cannot be imported")
	sets := make([]*ruleset.Set, 0, len(files))
	from := map[string]string{}
	for i, f := range files {
		field := fmt.Sprintf("files[%d].content", i)
		set, err := ruleset.Parse(f.GetName(), []byte(f.GetContent()))
		if faults, ok := errors.AsType[ruleset.Errors](err); ok {
			for _, one := range faults {
				refusal = refusal.WithField(fault.FieldViolation{Field: field, Description: one.Error()})
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		switch other, twice := from[set.Domain]; {
		case twice:
			refusal = refusal.WithField(fault.FieldViolation{
				Field: field, Description: fmt.Sprintf("%s:%d: the domain %q is in %s already", f.GetName(), set.Line, set.Domain, other),
			})
		case len(set.Domain) > maxDomain || strings.ContainsFunc(set.Domain, func(r rune) bool { return r < ' ' || r == 0x7f }):
			refusal = refusal.WithField(fault.FieldViolation{
				Field:       field,
				Description: fmt.Sprintf("%s:%d: the domain has more than %d bytes or control characters", f.GetName(), set.Line, maxDomain),
			})
		}
		from[set.Domain] = f.GetName()
		sets = append(sets, set)
	}
	if len(refusal.Fields) > 0 {
		refusal.Message = refusal.Fields[0].Description
		return nil, refusal
	}
	return sets, nil
}

// put makes or changes a domain. It is false when nothing is to be changed.
func (s *rateLimitConfigService) put(ctx context.Context, tx *change.Tx, set *ruleset.Set, content string) (rls.Stored, bool, error) {
	one, err := rls.Lock(ctx, tx, set.Domain)
	missing := fault.KindOf(err) == fault.NotFound
	if err != nil && !missing {
		return one, false, err
	}
	d := one.Domain
	if !missing && d.GetYaml() == content && d.GetFile() == set.File {
		return one, false, nil
	}
	d.File, d.Yaml, d.Limits = set.File, content, int32(len(set.Rules)) //nolint:gosec // bounded
	d.UpdateTime = timestamppb.New(tx.Now())
	if !missing {
		return one, true, rls.Change(ctx, tx, set.Domain, d)
	}
	uid, err := tenant.NewUID(s.Clock(), rand.Reader)
	if err != nil {
		return one, false, err
	}
	one.Salt = make([]byte, saltSize)
	if _, err := rand.Read(one.Salt); err != nil {
		return one, false, fmt.Errorf("make a salt: %w", err)
	}
	d.Name, d.Uid, d.CreateTime, d.Etag = rls.Collection+set.Domain, uid.String(), d.GetUpdateTime(), etag.Of(uid.String(), 0)
	return one, true, rls.Insert(ctx, tx, set.Domain, one)
}

// publish has the domains get the change's revision, and publishes them with that.
func publish(tx *change.Tx, domains []string, stored []rls.Stored, answered []*quotav1.RateLimitDomain) {
	tx.OnRevision(func(ctx context.Context, revision int64) error {
		if err := rls.Stamp(ctx, tx, domains, revision); err != nil {
			return err
		}
		stamped := map[string]bool{}
		for i, one := range stored {
			one.Domain.Revision, one.Domain.Etag = revision, etag.Of(one.Domain.GetUid(), revision)
			stamped[one.Domain.GetName()] = true
			if err := tx.Publish(rls.FeedName, domains[i], one.Entry()); err != nil {
				return err
			}
		}
		for _, d := range answered {
			if stamped[d.GetName()] {
				d.Revision, d.Etag = revision, etag.Of(d.GetUid(), revision)
			}
		}
		return nil
	})
}

// brief is the domain without its file.
func brief(d *quotav1.RateLimitDomain) *quotav1.RateLimitDomain {
	return &quotav1.RateLimitDomain{
		Name: d.GetName(), Uid: d.GetUid(), File: d.GetFile(), Limits: d.GetLimits(), CreateTime: d.GetCreateTime(),
		UpdateTime: d.GetUpdateTime(), Revision: d.GetRevision(), Etag: d.GetEtag(),
	}
}

// GetRateLimitDomain implements rowhouse.quota.v1.RateLimitConfigService.
func (s *rateLimitConfigService) GetRateLimitDomain(
	ctx context.Context, req *quotav1.GetRateLimitDomainRequest,
) (*quotav1.GetRateLimitDomainResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.GetRateLimitDomainResponse, error) {
		tx.Audit(req.GetName())
		one, err := rls.Read(ctx, tx, strings.TrimPrefix(req.GetName(), rls.Collection))
		if err != nil {
			return nil, err
		}
		return &quotav1.GetRateLimitDomainResponse{Domain: one.Domain}, nil
	})
}

// ListRateLimitDomains implements rowhouse.quota.v1.RateLimitConfigService.
func (s *rateLimitConfigService) ListRateLimitDomains(
	ctx context.Context, req *quotav1.ListRateLimitDomainsRequest,
) (*quotav1.ListRateLimitDomainsResponse, error) {
	return change.View(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.ListRateLimitDomainsResponse, error) {
		tx.Audit(req.GetParent())
		p, err := tx.Page(ctx, page.Query{Parent: req.GetParent(), Size: req.GetPageSize(), Token: req.GetPageToken()})
		if err != nil {
			return nil, err
		}
		after := ""
		if len(p.After) == 1 {
			after = p.After[0]
		}
		found, err := rls.List(ctx, tx, after, p.Limit())
		if err != nil {
			return nil, err
		}
		found, next, err := page.Cut(p, found, func(d *quotav1.RateLimitDomain) []string {
			return []string{strings.TrimPrefix(d.GetName(), rls.Collection)}
		})
		return &quotav1.ListRateLimitDomainsResponse{Domains: found, NextPageToken: next}, err
	})
}

// DeleteRateLimitDomain implements rowhouse.quota.v1.RateLimitConfigService.
func (s *rateLimitConfigService) DeleteRateLimitDomain(
	ctx context.Context, req *quotav1.DeleteRateLimitDomainRequest,
) (*quotav1.DeleteRateLimitDomainResponse, error) {
	return change.Do(ctx, s.Kernel, func(ctx context.Context, tx *change.Tx) (*quotav1.DeleteRateLimitDomainResponse, error) {
		tx.Audit(req.GetName())
		domain := strings.TrimPrefix(req.GetName(), rls.Collection)
		one, err := rls.Lock(ctx, tx, domain)
		if fault.KindOf(err) == fault.NotFound && req.GetAllowMissing() {
			return &quotav1.DeleteRateLimitDomainResponse{}, nil
		}
		if err != nil {
			return nil, err
		}
		if err := etag.Check(req.GetEtag(), one.Domain.GetEtag()); err != nil {
			return nil, err
		}
		if err := rls.Delete(ctx, tx, domain); err != nil {
			return nil, err
		}
		return &quotav1.DeleteRateLimitDomainResponse{}, tx.Publish(rls.FeedName, domain, nil)
	})
}
