package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// hashOf identifies a snapshot's content in hex. It covers the digests of the documents, which must be sorted by kind and name; the
// service, which chooses among the policies and need not come from a document; and the keys. It does not cover where
// documents were written, so that a moved line or file is no change.
func hashOf(documents []DocumentInfo, service string, apiKeys []APIKeyTable, keySets []KeySet) string {
	h := sha256.New()
	fmt.Fprintf(h, "service %q\n", service)
	for _, d := range documents {
		fmt.Fprintf(h, "document %q %q %s\n", d.Kind, d.Name, d.Digest)
	}
	for i, table := range apiKeys {
		for _, hash := range table.sortedHashes() {
			fmt.Fprintf(h, "key %d %x %q\n", i, hash, table[hash])
		}
	}
	for i, set := range keySets {
		for _, key := range set {
			fmt.Fprintf(h, "jwk %d %q %q %x\n", i, key.ID, key.Algorithms, key.der)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}
