//go:build race

package conformance

// raced is whether this test, and so the sidecar, has the race detector, under which a case is sent in two manners only: whole, and
// in packets of 1 byte behind two requests.
const raced = true
