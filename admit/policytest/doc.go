// Package policytest runs the cases of PolicyTest documents: it lets requests arrive at a table on a clock of its own and
// compares what became of them with what the document expects.
//
// The table is that of a sidecar, so what passes here passes there. Time is virtual: a case of a year takes as long as its requests
// take to be decided, and gives the same counts every time.
//
// The trade-off is that nothing but decisions is there: no bytes, no backend, no network. Limits of bytes never pause, since no
// body streams, and a capacity that adapts stays where it starts, since a backend that takes as long as it is told has nothing to
// adapt to. Do not use it to measure speed.
package policytest
