// Package conformance holds the proof that the wire is what it promises: raw bytes through the real binary, in front of a
// backend that records every byte it gets.
//
// # Contract
//
// It has tests and nothing else. The cases lie in testdata/wire: wire_cases.json, and more_cases.json with what the first does
// not hold. Every case is sent whole, in pieces of 1 and of 5 bytes, and each of these again behind two pipelined requests.
// Heads and bodies beyond a few kilobytes are cut into some thousand pieces instead: their bounds are of interest, not their
// byte boundaries, and a megabyte byte by byte takes longer than a head may. How many pass is printed, and kept in
// docs/conformance-wire.md.
//
// # Trade-off
//
// A test that starts processes is slow and sees no internals. What a unit can show is tested beside the unit; here is what
// only the whole can: that the client's answers, the bytes at the backend, the access log and the metrics agree.
//
// # When not to use it
//
// For anything but the wire: policies, files and the command line have scripts in testdata/script.
package conformance

//go:generate go test -run TestWire -update .
