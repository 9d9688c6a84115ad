//go:build race

package proxy

// hugeBody is what has to pass in constant memory; the race detector makes copying slow.
const hugeBody = 128 << 20
