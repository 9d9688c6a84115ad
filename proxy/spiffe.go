package proxy

import (
	"crypto/x509"
	"net/url"
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"weir/admit"
)

// maxSPIFFEBytes is the longest SPIFFE ID that the standard has everybody support.
const maxSPIFFEBytes = 2048

// spiffeID is the SPIFFE ID of the client's certificate, as in admit.Request. It is read once for each connection: nothing changes it
// after the handshake.
func (c *clientConn) spiffeID() string {
	if c.tls != nil && !c.spiffeRead {
		c.spiffe, c.spiffeRead = spiffeIDOf(c.certificate()), true
	}
	return c.spiffe
}

// spiffeIDOf reads a certificate that was verified, by the standard of X.509-SVIDs, sections 2, 3 and 5: it has one URI, which is the ID
// of a workload, and may not sign other certificates. A certificate without any SPIFFE ID is of another sort, and has none.
func spiffeIDOf(cert *x509.Certificate) string {
	if cert == nil || !slices.ContainsFunc(cert.URIs, func(u *url.URL) bool { return u.Scheme == "spiffe" }) {
		return ""
	}
	id, err := spiffeid.FromURI(cert.URIs[0])
	if err != nil || len(cert.URIs) > 1 || len(id.String()) > maxSPIFFEBytes || id.Path() == "" ||
		cert.IsCA || cert.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 {
		return admit.BrokenSPIFFE
	}
	return id.String()
}
