package policy

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
)

// ParseAPIKeys reads a keys file: one `tenant:sha256-hex-of-the-key` a line, in which the last colon separates. White space around
// a line, blank lines and lines that start with # are passed over.
//
// Every problem is reported with line and column. None of them quotes the line, and none has an excerpt: a frequent mistake is to
// write the key itself instead of its hash, and problems end up in logs. With a problem of severity Error the table is nil.
func ParseAPIKeys(file string, data []byte) (APIKeyTable, []Problem) {
	var (
		table    = make(APIKeyTable)
		first    = make(map[[32]byte]int) // the line of each hash
		problems []Problem
		broken   bool
		number   int
	)
	for line := range bytes.Lines(data) {
		number++
		text := bytes.TrimLeft(line, " \t")
		column := 1 + len(line) - len(text)
		text = bytes.TrimRight(text, " \t\r\n")
		if len(text) == 0 || text[0] == '#' {
			continue
		}
		report := func(severity Severity, at int, format string, args ...any) {
			broken = broken || severity == Error
			problems = append(problems, Problem{
				Severity: severity,
				Origin:   Origin{File: file, Line: number, Column: column + at},
				Message:  fmt.Sprintf(format, args...),
			})
		}

		colon := bytes.LastIndexByte(text, ':')
		if colon < 0 {
			report(Error, 0, "the line has no colon, want tenant:sha256-hex-of-the-key")
			continue
		}
		tenant, digits := text[:colon], text[colon+1:]
		var hash [32]byte
		if len(digits) != hex.EncodedLen(len(hash)) {
			report(Error, colon+1, "what follows the colon has %d bytes, want the 64 hex digits of the key's SHA-256", len(digits))
			continue
		}
		if n, err := hex.Decode(hash[:], digits); err != nil {
			// Decode stops at the pair that has the first bad digit.
			at := colon + 1 + 2*n + bytes.IndexFunc(digits[2*n:], notHex)
			report(Error, at, "not a hex digit, want the 64 hex digits of the key's SHA-256")
			continue
		}
		if len(tenant) == 0 || len(tenant) > maxTenantBytes {
			report(Error, 0, "the tenant has %d bytes, want 1 to %d", len(tenant), maxTenantBytes)
			continue
		}
		if i := bytes.IndexFunc(tenant, notVisible); i >= 0 {
			report(Error, i, "the tenant has a byte that is not visible ASCII")
			continue
		}

		known, met := table[hash]
		switch {
		case !met:
			table[hash], first[hash] = string(tenant), number
		case known == string(tenant):
			report(Warning, 0, "the same tenant and key are in line %d already", first[hash])
		default:
			report(Error, 0, "the same key belongs to another tenant in line %d, want one tenant for each key", first[hash])
		}
	}
	if broken {
		return nil, problems
	}
	return table, problems
}

func notHex(r rune) bool {
	return (r < '0' || r > '9') && (r < 'a' || r > 'f') && (r < 'A' || r > 'F')
}

func notVisible(r rune) bool { return r <= ' ' || r > '~' }

// sortedHashes returns the hashes of a table in ascending order.
func (t APIKeyTable) sortedHashes() [][32]byte {
	return slices.SortedFunc(maps.Keys(t), func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
}
