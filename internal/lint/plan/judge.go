package plan

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// node is a part of a plan as EXPLAIN tells it.
type node struct {
	Type      string `json:"Node Type"`
	Schema    string `json:"Schema"`
	Relation  string `json:"Relation Name"`
	Index     string `json:"Index Name"`
	IndexCond string `json:"Index Cond"`
	Filter    string `json:"Filter"`
	Plans     []node `json:"Plans"`
}

// problem is what is wrong with a plan. The two plans of a statement can have it with
// different filters.
type problem struct{ rule, text, filter string }

// same says whether two plans have one problem.
func (p problem) same(q problem) bool { return p.rule == q.rule && p.text == q.text }

// tenantKey finds the tenant column compared with a value, as policies do.
var tenantKey = regexp.MustCompile(`\btenant_id = `)

// judge returns what is wrong with the scans of tenant tables in a plan.
func judge(text []byte, tables map[string]bool) ([]problem, error) {
	var plans []struct{ Plan node }
	if err := json.Unmarshal(text, &plans); err != nil {
		return nil, fmt.Errorf("read plan: %w", err)
	}
	if len(plans) == 0 {
		return nil, errors.New("read plan: there is none")
	}
	var out []problem
	for _, p := range plans {
		p.Plan.walk(func(n node) {
			if tables[n.Schema+"."+n.Relation] {
				out = append(out, n.scan()...)
			}
		})
	}
	return out, nil
}

func (n node) walk(visit func(node)) {
	visit(n)
	for _, inner := range n.Plans {
		inner.walk(visit)
	}
}

// scan judges one scan.
func (n node) scan() []problem {
	table := n.Schema + "." + n.Relation
	switch {
	case n.Type == "ModifyTable":
		return nil
	case n.Type == "Index Scan", n.Type == "Index Only Scan":
		if !tenantKey.MatchString(n.IndexCond) {
			return []problem{{"P1", fmt.Sprintf("%s is read by index %s without the tenant in its condition", table, n.Index), n.Filter}}
		}
	case n.Type == "Bitmap Heap Scan":
		if len(n.Plans) != 1 || !n.Plans[0].bitmapBound() {
			return []problem{{"P1", table + " is read by a bitmap without the tenant in its condition", n.Filter}}
		}
	case strings.HasSuffix(n.Type, "Scan"):
		return []problem{{"P2", fmt.Sprintf("%s is read from begin to end (%s)", table, n.Type), n.Filter}}
	}
	return nil
}

// bitmapBound says whether a bitmap holds rows of the tenant only.
func (n node) bitmapBound() bool {
	switch n.Type {
	case "BitmapAnd":
		for _, inner := range n.Plans {
			if inner.bitmapBound() {
				return true
			}
		}
		return false
	case "BitmapOr":
		for _, inner := range n.Plans {
			if !inner.bitmapBound() {
				return false
			}
		}
		return true
	}
	return tenantKey.MatchString(n.IndexCond)
}
