// Package upstream owns the connections to backends: it dials, pools, balances and watches them, and reads answers from
// them byte for byte as they came.
//
// # Contract
//
// A [Set] holds the backends of one snapshot. [Build] may fail and changes nothing; [Set.Adopt] cannot fail, takes over the
// live connections of the set before it and lets go of those that no backend uses any more. A request calls
// [Backend.Acquire], uses the [Conn] and calls [Conn.Release] exactly once. Release decides by itself whether the connection
// may serve again: only after an answer read to its verified end, on a connection that may persist, with nothing unread and
// the request written whole. Everything that ends early is an [Error] with a [Cause]; a cut answer is never a clean end.
//
// Each backend has a roster of endpoints, which requests read without a lock: the healthy ones of those that are written, or that
// the backend's name leads to. One goroutine for each living set changes rosters; look-ups and checks run beside it, and outlive
// snapshots as endpoints do.
//
// Times are nanoseconds on one monotonic clock, given as [Options].Clock; a deadline of 0 means none.
//
// # Trade-offs
//
// Timeouts of a second and more are enforced by one sweep for all connections, every 100 ms, so that a request costs no
// timer: they fire up to 200 ms late, never early. What is due within a second uses the connection's own deadline.
// The idle pool is last in, first out, so that a quiet backend keeps few connections warm and the rest expire.
// Free and idle connections are lock-free stacks; locks are taken to dial and to close, and one by a connection's own owner.
//
// On Linux, TCP and Unix sockets are read and written at the descriptor: the request goes out from inside the poller's read
// callback, so a round trip is one write and one read. Any other net.Conn works as well, at the runtime's usual costs.
//
// # When not to use it
//
// It speaks HTTP/1.1 to one set of services that is known beforehand. It does not retry a request, though it keeps the budget, and
// does not build one: those are decisions of its caller. It is no general HTTP client.
package upstream
