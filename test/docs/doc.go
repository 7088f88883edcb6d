// Package docs holds the documentation against the product.
//
// Pages that hold `<!-- docs test: run -->` are run: from there to `<!-- docs test: stop -->`
// their `sh` blocks run in order, in one shell, in a fresh folder, beside a house that
// `rowhouse dev` started. A block of another language whose fence also names a file is
// written to that file, and a `text` block is the output of the `sh` block before it, where
// `…` stands for anything. A page that holds `<!-- docs test: continues docs/… -->` is run in the folder
// that the other page, run before it, has left. Ports are those of a usual house and are replaced. What `rowhouse dev`
// itself says to try is run in the same house.
//
// All pages are read for links, files, commands, flags, tests and reasons that do not exist.
// Start at run_test.go.
package docs
