// Package limit holds the counters behind every limit: the token bucket, the gate for requests in
// flight, and the queue before it. It knows numbers and time, but no tenant, request or policy, and it never reads a clock.
//
// A bucket is kept as one timestamp (GCRA, after ITU-T I.371): the theoretical arrival time, at which
// it will be full again. [Rate] is the arithmetic, [Bucket] a bucket whose rate changes exactly, and [Gate] the
// counter of requests in flight. A bucket refuses (Take), or makes streams wait (Debit). [Adaptive] finds how many
// requests in flight a backend can be given at once, and [FairQueue] says who is next when more than that wait.
//
// The trade-off: one atomic word needs no lock and no refill goroutine and is exact, but it remembers
// neither who spent the tokens nor when. So it is the wrong tool for a count that starts again
// at a boundary of the calendar, and for what must survive a restart.
package limit
