// Package wire is the one place that reads HTTP/1.1: requests from clients and answers from backends.
//
// Contract: a message is either read the only way every parser reads it, or refused with a Cause. One pass over the bytes
// gives strictness, framing and the offsets of every field; nobody parses again what the guard already knows. A body is
// handed out decoded, and io.EOF means that its end was verified, never that the bytes ran out. Nothing is allocated for
// a message, nothing is formatted, no clock is read and no deadline is set: one sweep per Guard keeps all timeouts.
//
// Trade-off: messages that a lenient server would guess at (folded fields, bare line feeds, lists of lengths) are refused
// even where the RFC allows a repair, and timeouts are late by up to one tick of the sweep.
//
// Do not use it as a general HTTP library: it knows nothing of methods, caching or content, it drops trailers and chunk
// extensions, and it speaks no HTTP/2.
package wire
