package dev

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/rowhouse-platform/rowhouse/cmd/rowhouse/internal/client"
	configv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/config/v1"
	quotav1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/quota/v1"
	tenancyv1 "github.com/rowhouse-platform/rowhouse/gen/rowhouse/tenancy/v1"
	"github.com/rowhouse-platform/rowhouse/sdk/settings"
)

// contextName is the name of the house in the contexts file.
const contextName = "dev"

// secondName is the second operator, and the context of the same house as she sees it.
const secondName = "ada"

// sample is one tenant to try with.
type sample struct {
	id, display, plan string
	brand             string
	notes             []string
}

func (s sample) host() string { return appName + "." + s.id + "." + zone }

// home says where the tenant's rows are: in what its plan gives to those who ask for nothing.
func (s sample) home() string {
	return map[string]string{
		"free": "in tables that tenants share", "business": "in a schema of its own", "enterprise": "in a database of its own",
	}[s.plan]
}

// samples differ in plan, isolation model, brand and rows.
func samples() []sample {
	return []sample{
		{
			"acme", "Acme Rockets", "business", brand("Acme Rockets", "#b91c1c", "#fca5a5"),
			[]string{"Order more dynamite", "Call the coyote back"},
		},
		{
			"globex", "Globex", "free", brand("Globex", "#1d4ed8", "#93c5fd"),
			[]string{"World domination, step 1"},
		},
		{
			"initech", "Initech", "enterprise", brand("Initech", "#15803d", "#86efac"),
			[]string{"TPS reports need cover sheets", "Ask Milton about the stapler", "Saturday?"},
		},
	}
}

func brand(name, light, dark string) string {
	b, _ := json.Marshal(map[string]any{ //nolint:errchkjson // strings always marshal
		"name":  name,
		"light": map[string]string{"primary": light},
		"dark":  map[string]string{"primary": dark},
	})
	return string(b)
}

// rates are each plan's requests per second.
func rates() map[string]int64 {
	return map[string]int64{"free": 50, "business": 200, "enterprise": 1000}
}

// models are each plan's isolation models, its default last.
func models() map[string][]tenancyv1.IsolationModel {
	const shared, schema, database = tenancyv1.IsolationModel_ISOLATION_MODEL_SHARED,
		tenancyv1.IsolationModel_ISOLATION_MODEL_SCHEMA, tenancyv1.IsolationModel_ISOLATION_MODEL_DATABASE
	return map[string][]tenancyv1.IsolationModel{
		"free": {shared}, "business": {shared, schema}, "enterprise": {shared, schema, database},
	}
}

// seededName is the file that says that the sample tenants were made.
const seededName = "seeded"

// seeder makes what is missing.
type seeder struct {
	h                      *house
	tenancy, config, quota *grpc.ClientConn
}

// seed writes the contexts file and makes the sample tenants.
func (h *house) seed(ctx context.Context) error {
	if err := h.writeContext(); err != nil {
		return err
	}
	c, err := client.Load(h.l.path("contexts.yaml"), contextName)
	if err != nil {
		return err
	}
	s := &seeder{h: h}
	for name, conn := range map[string]**grpc.ClientConn{"tenancy": &s.tenancy, "config": &s.config, "quota": &s.quota} {
		if *conn, err = c.Dial(name); err != nil {
			return err
		}
		defer func() { _ = (*conn).Close() }()
	}
	if err := errors.Join(s.platform(ctx), s.namespace(ctx), s.limits(ctx)); err != nil {
		return err
	}
	return s.once(ctx)
}

// once makes the sample tenants, until it has succeeded once in this state folder. From
// then on they are their operator's, who may have suspended or deleted them.
func (s *seeder) once(ctx context.Context) error {
	marker := s.h.l.path(seededName)
	if _, err := os.Stat(marker); err == nil {
		return s.greet(ctx)
	}
	for _, step := range []func(context.Context) error{s.tenants, s.brands, s.flags, s.notes} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if err := os.WriteFile(marker, nil, secretMode); err != nil {
		return fmt.Errorf("remember the sample tenants: %w", err)
	}
	return nil
}

// writeContext writes the file by which the command line finds this house.
func (h *house) writeContext() error {
	c := client.Context{
		Name: contextName, Roots: h.l.file("ca", "roots.pem"), TokenFile: h.l.file("operator", "token"),
		Services: map[string]client.Service{},
	}
	for _, s := range services() {
		if s == appName {
			continue
		}
		id, err := serviceID(s)
		if err != nil {
			return err
		}
		c.Services[s] = client.Service{Address: loopback(h.p.GRPC[s]), Identity: id}
	}
	second := c
	second.Name, second.TokenFile = secondName, h.l.file("operator", secondName+".token")
	return writeYAML(h.l.path("contexts.yaml"), client.File{Current: contextName, Contexts: []client.Context{c, second}})
}

// present lets "it is there already" pass.
func present(err error, what string) error {
	if err == nil || status.Code(err) == codes.AlreadyExists {
		return nil
	}
	return fmt.Errorf("make %s: %w", what, err)
}

// platform makes plans, the cell and the app.
func (s *seeder) platform(ctx context.Context) error {
	for id, allowed := range models() {
		_, err := tenancyv1.NewPlanServiceClient(s.tenancy).CreatePlan(ctx, &tenancyv1.CreatePlanRequest{
			PlanId: id, Plan: &tenancyv1.Plan{DisplayName: id, AllowedModels: allowed, DefaultModel: allowed[len(allowed)-1]},
		})
		if err := present(err, "plan "+id); err != nil {
			return err
		}
	}
	_, err := tenancyv1.NewCellServiceClient(s.tenancy).CreateCell(ctx, &tenancyv1.CreateCellRequest{
		CellId: cellName, Cell: &tenancyv1.Cell{
			Region: region, CredentialsRef: "secret://file/" + cellName, Models: models()["enterprise"],
		},
	})
	if err := present(err, "the cell"); err != nil {
		return err
	}
	id, err := serviceID(appName)
	if err != nil {
		return err
	}
	upstream := &tenancyv1.AppUpstream{
		Cell: "cells/" + cellName, GrpcAddress: loopback(s.h.p.GRPC[appName]), HttpAddress: loopback(s.h.p.AppHTTP), SpiffeId: id.String(),
	}
	app := &tenancyv1.App{
		DisplayName: "Notes", GrpcServices: []string{"notes.v1.NotesService", "notes.v1.ImportService"}, SharedHosts: []string{platform},
		Upstreams: []*tenancyv1.AppUpstream{upstream},
	}
	apps := tenancyv1.NewAppServiceClient(s.tenancy)
	_, err = apps.CreateApp(ctx, &tenancyv1.CreateAppRequest{AppId: appName, App: app})
	if status.Code(err) == codes.AlreadyExists { // ports may differ from the last start
		app.Name = "apps/" + appName
		_, err = apps.UpdateApp(ctx, &tenancyv1.UpdateAppRequest{App: app})
	}
	if err := present(err, "the app"); err != nil {
		return err
	}
	if err := s.jobs(ctx); err != nil {
		return err
	}
	return s.migrations(ctx)
}

// jobs declares the app's kinds of jobs, unless somebody has.
func (s *seeder) jobs(ctx context.Context) error {
	const name = "apps/" + appName + "/jobPolicies/import"
	policies := tenancyv1.NewJobPolicyServiceClient(s.tenancy)
	_, err := policies.GetJobPolicy(ctx, &tenancyv1.GetJobPolicyRequest{Name: name})
	if status.Code(err) == codes.NotFound {
		_, err = policies.UpdateJobPolicy(ctx, &tenancyv1.UpdateJobPolicyRequest{
			JobPolicy: &tenancyv1.JobPolicy{Name: name}, AllowMissing: true,
		})
	}
	if err != nil {
		return fmt.Errorf("declare the app's jobs: %w", err)
	}
	return nil
}

// migrations registers the app's with tenancy, which runs them for tenants with a home of their own.
func (s *seeder) migrations(ctx context.Context) error {
	dir := s.h.l.path(appName, "migrations")
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("migrations of the app: %w", err)
	}
	if out, err := exec.CommandContext(ctx, s.h.app, "migrations", "--dir", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("migrations of the app: %w\n%s", err, out)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.sql"))
	if err != nil {
		return err
	}
	req := &tenancyv1.RegisterMigrationsRequest{Parent: "apps/" + appName}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("migrations of the app: %w", err)
		}
		req.Migrations = append(req.Migrations, &tenancyv1.MigrationSource{
			MigrationId: strings.TrimSuffix(filepath.Base(path), ".sql"), Statements: string(text),
		})
	}
	if _, err = tenancyv1.NewMigrationServiceClient(s.tenancy).RegisterMigrations(ctx, req); err != nil {
		return fmt.Errorf("register the app's migrations: %w", err)
	}
	return nil
}

// appSchema is what the example app lets operators set.
const appSchema = `{"type":"object","additionalProperties":false,"properties":{
	"page_size":{"type":"integer","minimum":1,"maximum":1000,"default":50}}}`

// namespace makes the place of the app's settings.
func (s *seeder) namespace(ctx context.Context) error {
	_, err := configv1.NewNamespaceServiceClient(s.config).CreateNamespace(ctx, &configv1.CreateNamespaceRequest{
		NamespaceId: appName, Namespace: &configv1.Namespace{Schema: appSchema},
	})
	return present(err, "the namespace "+appName)
}

// limits sets each plan's rate of requests.
func (s *seeder) limits(ctx context.Context) error {
	service := quotav1.NewLimitServiceClient(s.quota)
	for plan, rate := range rates() {
		name := "plans/" + plan + "/limits/requests"
		if _, err := service.GetLimit(ctx, &quotav1.GetLimitRequest{Name: name}); err == nil {
			continue // an operator may have changed it
		}
		_, err := service.UpdateLimit(ctx, &quotav1.UpdateLimitRequest{
			Limit: &quotav1.Limit{Name: name, Tokens: rate, Period: durationpb.New(time.Second), Burst: 2 * rate}, AllowMissing: true,
		})
		if err := present(err, name); err != nil {
			return err
		}
	}
	return nil
}

func (s *seeder) tenants(ctx context.Context) error {
	var begun []string
	for _, t := range samples() {
		created, err := tenancyv1.NewTenantServiceClient(s.tenancy).CreateTenant(ctx, &tenancyv1.CreateTenantRequest{
			TenantId: t.id, Tenant: &tenancyv1.Tenant{DisplayName: t.display, Plan: "plans/" + t.plan},
		})
		if err := present(err, "tenant "+t.id); err != nil {
			return err
		}
		if o := created.GetOperation(); o != nil && !o.GetDone() {
			begun = append(begun, o.GetName())
		}
		_, err = tenancyv1.NewDomainServiceClient(s.tenancy).CreateDomain(ctx, &tenancyv1.CreateDomainRequest{
			Parent: "tenants/" + t.id, DomainId: t.host(), Domain: &tenancyv1.Domain{App: "apps/" + appName},
		})
		if err := present(err, "domain "+t.host()); err != nil {
			return err
		}
	}
	for _, name := range begun {
		o, err := longrunningpb.NewOperationsClient(s.tenancy).WaitOperation(ctx, &longrunningpb.WaitOperationRequest{
			Name: name, Timeout: durationpb.New(settleWithin),
		})
		if err != nil {
			return fmt.Errorf("wait for a tenant: %w", err)
		}
		if failed := o.GetError(); failed != nil {
			return fmt.Errorf("make a tenant: %s", failed.GetMessage())
		}
	}
	return nil
}

func (s *seeder) brands(ctx context.Context) error {
	service := configv1.NewDocumentServiceClient(s.config)
	for _, t := range samples() {
		name := "tenants/" + t.id + "/config/brand"
		err := s.h.eventually(ctx, func() error { // config follows tenancy: the tenant may be a moment away
			if _, err := service.GetDocument(ctx, &configv1.GetDocumentRequest{Name: name}); err == nil {
				return nil
			}
			_, err := service.UpdateDocument(ctx, &configv1.UpdateDocumentRequest{
				Document: &configv1.Document{Name: name, Content: t.brand}, AllowMissing: true, Reason: "sample",
			})
			return err
		})
		if err := present(err, name); err != nil {
			return err
		}
	}
	return nil
}

// sampleFlags is the flag that the example app asks for: on for the plans that pay.
const sampleFlags = `{"flags":{"note-count":{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off",
	"targeting":{"if":[{"in":[{"var":"plan"},["business","enterprise"]]},"on"]}}}}`

// flags makes the flags of the platform.
func (s *seeder) flags(ctx context.Context) error {
	service, name := configv1.NewDocumentServiceClient(s.config), "platform/config/"+settings.FlagsNamespace
	if _, err := service.GetDocument(ctx, &configv1.GetDocumentRequest{Name: name}); status.Code(err) != codes.NotFound {
		return present(err, name)
	}
	_, err := service.UpdateDocument(ctx, &configv1.UpdateDocumentRequest{
		Document: &configv1.Document{Name: name, Content: sampleFlags}, AllowMissing: true, Reason: "sample",
	})
	return present(err, name)
}

// notes writes each tenant's rows the way its users would: through its own domain.
func (s *seeder) notes(ctx context.Context) error {
	for _, t := range samples() {
		err := s.h.eventually(ctx, func() error {
			var list struct {
				Notes []json.RawMessage `json:"notes"`
			}
			if err := s.h.call(ctx, t, http.MethodGet, nil, &list); err != nil || len(list.Notes) > 0 {
				return err
			}
			for _, title := range t.notes {
				if err := s.h.call(ctx, t, http.MethodPost, map[string]string{"title": title}, nil); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("write notes of %s: %w", t.id, err)
		}
	}
	return nil
}

// greet waits until the front door answers for each sample, be it that there is no such
// tenant any more. A tenant that gets no answer yet is no reason not to start.
func (s *seeder) greet(ctx context.Context) error {
	for _, t := range samples() {
		_ = s.h.eventually(ctx, func() error {
			err := s.h.call(ctx, t, http.MethodGet, nil, nil)
			if refused, ok := errors.AsType[*answerError](err); ok && refused.final() {
				return nil
			}
			return err
		})
	}
	return ctx.Err()
}

// answerError is an answer of the front door other than a good one.
type answerError struct {
	code int
	text string
}

// Error implements error.
func (e *answerError) Error() string { return e.text }

// final says whether waiting changes nothing: not while the processes learn of each other.
func (e *answerError) final() bool {
	return e.code < http.StatusInternalServerError && e.code != http.StatusUnauthorized
}

// call calls the app's HTTP API as a user of the tenant.
func (h *house) call(ctx context.Context, t sample, method string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+loopback(h.p.HTTP)+"/notes", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Host = t.host()
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode >= http.StatusMultipleChoices {
		return &answerError{res.StatusCode, fmt.Sprintf("%s: %s", res.Status, b)}
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

const (
	settleWithin = 15 * time.Second
	settleEvery  = 50 * time.Millisecond
)

// eventually repeats what feeds have to reach first.
func (h *house) eventually(ctx context.Context, fn func() error) error {
	ctx, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	for {
		err := fn()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}
