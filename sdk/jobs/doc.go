// Package jobs runs bulk work of tenants in the background, in fair shares: an import of millions of rows of one tenant and
// one of ten rows of another take turns from the first slice on.
//
// A job is a row in the tenant's own table app.job, made in the transaction that asks for it. A worker does it in steps:
// each is one short transaction of the tenant, in which the rows are written and the job's cursor moves on. So whatever dies,
// and whenever: what is committed is counted, what is not is done again, and nothing is done twice. Steps run in slices of up to a
// second; after each, the tenant goes to the end of what it used, by weight (start-time fair queueing).
//
// Workers hold no tenant's authority. For each slice they ask tenancy for a fresh context, with the context in which the job was
// asked for as evidence: see MintContext, and the job kinds that operators declare. With it they go through package tenantdb as
// any request does, in all three models of isolation.
//
// Whose turn it is stands in a database beside the cells, with github.com/riverqueue/river as the queue that wakes and bounds
// workers; [Migrate] prepares it. The tenant's table comes with the app's own migrations: [Migration].
//
// Start at [Open], then [Queue.Tx] or [Queue.Submit] where jobs are asked for, and [Queue.Run] where they are done. The package is
// for work that may wait; what a request needs before its answer is no job.
package jobs
