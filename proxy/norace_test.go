//go:build !race

package proxy

// hugeBody is what has to pass in constant memory.
const hugeBody = 2 << 30
