// Package policy holds the nouns: the documents a user writes, their strict decoding, defaults and
// validation, and their compilation into one immutable, hashed [Snapshot].
//
// Everything here is a pure function of its arguments. There is no goroutine, no I/O and no clock, so a
// snapshot built twice from the same documents is the same snapshot, byte for byte and hash for hash.
//
// The package never panics on input and reports every problem it can find at once, each with origin, line,
// column, path, an excerpt and, where one exists, a suggestion ([Problem]).
package policy
