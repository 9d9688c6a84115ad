package fleet

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"

	"weir/policy"
)

// groups is how many groups documents are divided into. With fewer documents than that, a print that differs mostly names one.
const groups = 16

// Prints are fingerprints of a set of documents, in groups by kind and name: equal sets have equal prints, in whatever order they were
// added, and prints that differ say in which groups the sets do.
//
// They are made of the text that somebody wrote, and not of what it means, so that sidecars of several versions agree on them.
type Prints [groups]uint32

// add puts a document into the set, or takes it out again.
func (p *Prints) add(kind policy.Kind, name, text string) {
	p[groupOf(kind, name)] ^= printOf(kind, name, text)
}

// groupOf is the group of a document.
func groupOf(kind policy.Kind, name string) int {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q", kind, name))
	return int(sum[0] % groups)
}

// printOf is the fingerprint of one document.
func printOf(kind policy.Kind, name, text string) uint32 {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q", kind, name, bare(text)))
	return binary.BigEndian.Uint32(sum[:])
}

// bare is a text without what a decoder takes off before and after a document, and with the line ends that it makes.
func bare(text string) string {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	text = strings.TrimPrefix(strings.TrimSpace(text), "---")
	text = strings.TrimSuffix(strings.TrimSpace(text), "\n...")
	return strings.TrimSpace(text)
}

// String is hex.
func (p *Prints) String() string {
	var b []byte
	for _, print := range p {
		b = binary.BigEndian.AppendUint32(b, print)
	}
	return hex.EncodeToString(b)
}

// parsePrints reads what String wrote. Prints of another version may be others, which cannot be compared.
func parsePrints(text string) (p Prints, ok bool) {
	var b [4 * groups]byte
	if len(text) != hex.EncodedLen(len(b)) {
		return Prints{}, false
	}
	if _, err := hex.Decode(b[:], []byte(text)); err != nil {
		return Prints{}, false
	}
	for i := range p {
		p[i] = binary.BigEndian.Uint32(b[4*i:])
	}
	return p, true
}
