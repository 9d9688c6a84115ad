// Package admit is the live table: which tenant and which route a request belongs to, and whether it may pass.
//
// # Contract
//
// [Build] makes a [Table] of one snapshot and takes over, by key, every bucket, gate, breaker and counter of the table before it:
// no change of policy refills a bucket or forgets what was spent. A request asks the table in three steps. [Table.Match]
// finds its tenant and route, [Table.Decide] spends its tokens or says why not, and [Table.Settle], exactly once, gives
// back what it held, tells the breakers of its route and backend, and counts how it ended. Where there is a queue, the verdict
// may wait: [Table.Resume] goes on with it when there is news. Breakers are judged by [Table.Tick], which one sampler calls.
// Decisions are functions of the cells and `now`, nanoseconds on one monotonic clock; nothing here reads a clock, starts a
// goroutine or knows bytes of HTTP.
//
// None of them allocates for a tenant that has a cell, or takes a lock unless somebody waits in the same queue. A tenant that
// policy does not name gets its cell at its first request, and has it brought along at its first request after a change of
// policy. With a breaker for each tenant, the first request makes that, too.
//
// # Trade-off
//
// Tenants that policy names have cells made at Build. The others get theirs on demand, in a table of fixed size (see
// demandTable): a flood of made-up tenants costs bounded memory, and shares one overflow cell at worst.
//
// # When not to use it
//
// It limits one process. What sidecars of one service decide together is the fleet's.
package admit
