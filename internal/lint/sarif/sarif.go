// Package sarif writes findings in SARIF 2.1.0, which code hosts show beside the code. Start
// at [Write].
package sarif

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/rowhouse-platform/rowhouse/internal/lint"
	"github.com/rowhouse-platform/rowhouse/internal/version"
)

// The parts of the format that are used. Names are those of the standard.
type (
	document struct {
		Schema  string `json:"$schema"`
		Version string `json:"version"`
		Runs    []run  `json:"runs"`
	}
	run struct {
		Tool    tool     `json:"tool"`
		Results []result `json:"results"`
	}
	tool struct {
		Driver driver `json:"driver"`
	}
	driver struct {
		Name    string `json:"name"`
		Version string `json:"version"`
		Rules   []rule `json:"rules"`
	}
	rule struct {
		ID               string  `json:"id"`
		ShortDescription message `json:"shortDescription"`
		FullDescription  message `json:"fullDescription"`
	}
	message struct {
		Text string `json:"text"`
	}
	result struct {
		RuleID    string     `json:"ruleId"`
		RuleIndex int        `json:"ruleIndex"`
		Level     string     `json:"level"`
		Message   message    `json:"message"`
		Locations []location `json:"locations"`
	}
	location struct {
		PhysicalLocation physical `json:"physicalLocation"`
	}
	physical struct {
		ArtifactLocation artifact `json:"artifactLocation"`
		Region           region   `json:"region"`
	}
	artifact struct {
		URI string `json:"uri"`
	}
	region struct {
		StartLine   int `json:"startLine"`
		StartColumn int `json:"startColumn,omitempty"`
	}
)

// Write writes one run with all rules and the findings.
func Write(w io.Writer, findings []lint.Finding) error {
	r := run{Tool: tool{driver{Name: "rowlint", Version: version.String()}}, Results: []result{}}
	index := map[string]int{}
	for i, known := range lint.Rules() {
		index[known.ID] = i
		r.Tool.Driver.Rules = append(r.Tool.Driver.Rules, rule{known.ID, message{known.Title}, message{known.Title + ": " + known.Why + "."}})
	}
	for _, f := range findings {
		r.Results = append(r.Results, result{
			RuleID: f.Rule, RuleIndex: index[f.Rule], Level: "error", Message: message{f.Text()},
			Locations: []location{{physical{artifact{uri(f.File)}, region{max(f.Line, 1), f.Column}}}},
		})
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(document{"https://json.schemastore.org/sarif-2.1.0.json", "2.1.0", []run{r}}); err != nil {
		return fmt.Errorf("write SARIF: %w", err)
	}
	return nil
}

// uri returns a file's URI reference: relative names stay relative to the repository.
func uri(file string) string {
	u := url.URL{Path: filepath.ToSlash(file)}
	if filepath.IsAbs(file) {
		u.Scheme = "file"
	}
	return strings.TrimPrefix(u.String(), "./")
}
