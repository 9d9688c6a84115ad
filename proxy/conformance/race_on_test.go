//go:build race

package conformance

// raceFlags build the sidecar with the race detector when the test has it.
var raceFlags = []string{"-race"}
