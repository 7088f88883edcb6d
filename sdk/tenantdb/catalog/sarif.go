package catalog

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/url"
	"strings"
)

// The part of SARIF 2.1.0 (OASIS, 27 March 2020) that a report needs. Names are the standard's.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool       sarifTool     `json:"tool"`
		ColumnKind string        `json:"columnKind"`
		Results    []sarifResult `json:"results"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name           string      `json:"name"`
		InformationURI string      `json:"informationUri"`
		Rules          []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID                   string        `json:"id"`
		Name                 string        `json:"name"`
		ShortDescription     sarifText     `json:"shortDescription"`
		FullDescription      sarifText     `json:"fullDescription"`
		Help                 sarifText     `json:"help"`
		DefaultConfiguration sarifSeverity `json:"defaultConfiguration"`
	}
	sarifSeverity struct {
		Level Severity `json:"level"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifResult struct {
		RuleID              string             `json:"ruleId"`
		RuleIndex           int                `json:"ruleIndex"`
		Level               Severity           `json:"level"`
		Message             sarifText          `json:"message"`
		Locations           []sarifLocation    `json:"locations"`
		PartialFingerprints map[string]string  `json:"partialFingerprints"`
		Suppressions        []sarifSuppression `json:"suppressions,omitempty"`
	}
	sarifLocation struct {
		PhysicalLocation sarifPhysical  `json:"physicalLocation"`
		LogicalLocations []sarifLogical `json:"logicalLocations"`
	}
	sarifPhysical struct {
		ArtifactLocation sarifArtifact `json:"artifactLocation"`
		Region           sarifRegion   `json:"region"`
	}
	sarifArtifact struct {
		URI string `json:"uri"`
	}
	sarifRegion struct {
		StartLine int `json:"startLine"`
	}
	sarifLogical struct {
		FullyQualifiedName string `json:"fullyQualifiedName"`
		Kind               string `json:"kind"`
	}
	sarifSuppression struct {
		Kind          string `json:"kind"`
		Status        string `json:"status"`
		Justification string `json:"justification"`
	}
)

// WriteSARIF writes the report as a SARIF 2.1.0 log with one run. An object of a database is
// in no file; code hosts insist on one, so it is named as a path, postgresql/<database>/<object>,
// besides the logical location. Accepted findings are suppressed results.
func (r Report) WriteSARIF(w io.Writer) error {
	run := sarifRun{
		ColumnKind: "unicodeCodePoints",
		Tool: sarifTool{sarifDriver{
			Name: "rowhouse-catalog-audit", InformationURI: "https://github.com/rowhouse-platform/rowhouse/blob/main/docs/catalog-audit.md",
			Rules: []sarifRule{},
		}},
		Results: []sarifResult{},
	}
	index := map[string]int{}
	for i, rule := range r.Rules {
		index[rule.ID] = i
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{
			ID: rule.ID, Name: name(rule.Title), ShortDescription: sarifText{rule.Title + "."}, FullDescription: sarifText{rule.Description},
			Help: sarifText{rule.Description}, DefaultConfiguration: sarifSeverity{rule.Severity},
		})
	}
	for _, f := range r.Findings {
		run.Results = append(run.Results, r.result(f, index[f.Rule]))
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(sarifLog{
		Schema:  "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json",
		Version: "2.1.0", Runs: []sarifRun{run},
	})
}

func (r Report) result(f Finding, rule int) sarifResult {
	text := f.Object + ": " + f.Message + "."
	if f.Mend != "" {
		text += " Mend: " + f.Mend
	}
	path := "postgresql/" + url.PathEscape(r.Database) + "/" + url.PathEscape(f.Object)
	sum := sha256.Sum256([]byte(f.Rule + "\x00" + r.Database + "\x00" + f.Object))
	result := sarifResult{
		RuleID: f.Rule, RuleIndex: rule, Level: f.Severity, Message: sarifText{text},
		Locations: []sarifLocation{{
			PhysicalLocation: sarifPhysical{sarifArtifact{path}, sarifRegion{1}},
			LogicalLocations: []sarifLogical{{FullyQualifiedName: r.Database + "." + f.Object, Kind: "resource"}},
		}},
		PartialFingerprints: map[string]string{"rowhouseObject/v1": hex.EncodeToString(sum[:16])},
	}
	if f.Accepted != "" {
		result.Suppressions = []sarifSuppression{{Kind: "external", Status: "accepted", Justification: f.Accepted}}
	}
	return result
}

// name makes one word of a title, as SARIF asks of a rule's name.
func name(title string) string {
	var b strings.Builder
	for word := range strings.FieldsSeq(strings.ReplaceAll(title, "'", "")) {
		b.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return b.String()
}
