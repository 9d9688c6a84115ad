// Package certtest makes authorities and certificates for tests, as PEM.
//
// # Contract
//
// Every name and time is the test's choice; nothing is read or written. A failure to make a certificate is a defect of the test, and
// panics.
//
// # When not to use it
//
// Outside of tests: its keys are as good as any, but nobody keeps them.
package certtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"time"
)

// Authority signs certificates.
type Authority struct {
	// PEM is its own certificate, as clients and servers trust it.
	PEM  []byte
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Leaf is what a certificate says. The zero value is of nobody, and valid from an hour ago for a day.
type Leaf struct {
	Names   []string // DNS names, IP addresses and URIs
	Begins  time.Time
	Expires time.Time
}

// New returns an authority of that name, valid from a year ago for ten.
func New(name string) *Authority {
	key := newKey()
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().AddDate(-1, 0, 0), NotAfter: time.Now().AddDate(9, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(err)
	cert, err := x509.ParseCertificate(der)
	must(err)
	return &Authority{PEM: encode("CERTIFICATE", der), cert: cert, key: key}
}

// Issue returns a certificate, for servers and clients alike, and its private key.
func (a *Authority) Issue(l Leaf) (cert, key []byte) {
	private := newKey()
	template := &x509.Certificate{
		SerialNumber: serial(), NotBefore: l.Begins, NotAfter: l.Expires, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if l.Begins.IsZero() {
		template.NotBefore = time.Now().Add(-time.Hour)
	}
	if l.Expires.IsZero() {
		template.NotAfter = template.NotBefore.AddDate(0, 0, 1)
	}
	for _, name := range l.Names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if u, err := url.Parse(name); err == nil && u.Scheme != "" {
			template.URIs = append(template.URIs, u)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &private.PublicKey, a.key)
	must(err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	must(err)
	return encode("CERTIFICATE", der), encode("PRIVATE KEY", keyDER)
}

// Pool returns a pool that trusts these authorities.
func Pool(trusted ...*Authority) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, a := range trusted {
		pool.AddCert(a.cert)
	}
	return pool
}

func newKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	return key
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	must(err)
	return n
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func must(err error) {
	if err != nil {
		panic("BUG: cannot make a certificate: " + err.Error())
	}
}
