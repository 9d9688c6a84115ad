package proxy

import (
	"strings"

	"weir/proxy/wire"
)

// authenticatesConnection says whether a request may make its connection that of a user: with NTLM, and with Negotiate at
// many servers, who sends the next request on it is taken for the same (RFC 4559 section 6). So nobody gets it after him.
// The handshake of NTLM, which takes several requests, does not succeed that way.
func authenticatesConnection(head *wire.Head) bool {
	credentials, n := head.Lookup("Authorization")
	for i := 0; i < n; i++ {
		if i > 0 {
			credentials = head.Nth("Authorization", i)
		}
		for _, scheme := range [...]string{"NTLM", "Negotiate"} {
			if len(credentials) >= len(scheme) && strings.EqualFold(string(credentials[:len(scheme)]), scheme) {
				return true
			}
		}
	}
	return false
}
