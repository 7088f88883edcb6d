package registry

import (
	"slices"
	"strconv"
	"strings"

	"github.com/rowhouse-platform/rowhouse/sdk/fault"
	"github.com/rowhouse-platform/rowhouse/sdk/tenant"
)

// MaxCells is how many cells there may be: a certificate names at most that many, and some keys speak for all.
const MaxCells = 64

// Cell is what the choice of a place must know of a cell.
type Cell struct {
	ID       string
	Region   string
	Open     bool
	Models   []tenant.Model
	Capacity int32
	Used     int32
}

// Wish is what a new tenant asks for. Zero values leave the choice to the plan and the load.
type Wish struct {
	Model tenant.Model
	Cell  string
}

// PlanModels is what a plan says about isolation models.
type PlanModels struct {
	Allowed []tenant.Model
	Default tenant.Model
}

// ModelFor returns the model of a new tenant: the wish, or else the plan's default. A wish that the plan does not allow
// is a fault MODEL_NOT_ALLOWED.
func ModelFor(wish Wish, plan PlanModels) (tenant.Model, error) {
	model := wish.Model
	if model == 0 {
		model = plan.Default
	}
	if !slices.Contains(plan.Allowed, model) {
		allowed := make([]string, len(plan.Allowed))
		for i, m := range plan.Allowed {
			allowed[i] = m.String()
		}
		takes := strings.Join(allowed, ", ")
		return 0, refuse(fault.FailedPrecondition, ReasonModelNotAllowed, "the plan does not take the model %s, but %s", model, takes).
			WithMetadata("model", model.String()).WithMetadata("allowed", takes)
	}
	return model, nil
}

// Place returns the cells in which a tenant of this model may live, best first: of two cells picked at random the
// emptier leads, so that creates that race spread out. pick returns a number below n. None is a fault NO_CELL_CAPACITY
// whose metadata counts the cells that each filter dropped; a wished cell that does not take the model is
// MODEL_NOT_ALLOWED.
func Place(cells []Cell, model tenant.Model, wish Wish, pick func(n int) int) ([]Cell, error) {
	var fit []Cell
	dropped := map[string]int{"other": 0, "closed": 0, "model": 0, "full": 0}
	for _, c := range cells {
		switch {
		case wish.Cell != "" && c.ID != wish.Cell:
			dropped["other"]++
		case !slices.Contains(c.Models, model):
			dropped["model"]++
		case !c.Open:
			dropped["closed"]++
		case c.Used >= c.Capacity:
			dropped["full"]++
		default:
			fit = append(fit, c)
		}
	}
	if len(fit) > 0 {
		return twoChoices(fit, pick), nil
	}
	if wish.Cell != "" && dropped["model"] > 0 {
		return nil, refuse(fault.FailedPrecondition, ReasonModelNotAllowed, "the cell does not take the model %s", model).
			WithMetadata("model", model.String())
	}
	err := refuse(fault.ResourceExhausted, ReasonNoCellCapacity, "no open cell has room for a tenant of model %s", model)
	for filter, n := range dropped {
		err = err.WithMetadata(filter, strconv.Itoa(n))
	}
	return nil, err
}

// twoChoices puts the emptier of two random cells first and leaves the others as they are.
func twoChoices(cells []Cell, pick func(n int) int) []Cell {
	a := pick(len(cells))
	b := pick(len(cells))
	best := a
	if free(cells[b]) > free(cells[a]) {
		best = b
	}
	order := []Cell{cells[best]}
	order = append(order, cells[:best]...)
	return append(order, cells[best+1:]...)
}

func free(c Cell) float64 { return 1 - float64(c.Used)/float64(c.Capacity) }
