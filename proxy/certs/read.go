package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"
)

// paths are the files that one side of TLS is made of; empty ones are not used.
type paths struct{ cert, key, ca string }

// contents are the bytes of those files.
type contents struct{ cert, key, ca []byte }

func (c *contents) equal(d *contents) bool {
	return bytes.Equal(c.cert, d.cert) && bytes.Equal(c.key, d.key) && bytes.Equal(c.ca, d.ca)
}

// material is what the files hold, checked.
type material struct {
	pair        *tls.Certificate // nil: none
	authorities *x509.CertPool   // nil: none
	expiry      time.Time        // when the first certificate of the pair's chain expires; zero: no pair
}

// largestFile is more than any bundle of authorities has.
const largestFile = 4 << 20

// read reads the files that are named.
func (p *paths) read() (*contents, error) {
	c := new(contents)
	for _, f := range []struct {
		field, path string
		into        *[]byte
	}{{"certFile", p.cert, &c.cert}, {"keyFile", p.key, &c.key}, {"the CA file", p.ca, &c.ca}} {
		if f.path == "" {
			continue
		}
		data, err := readFile(f.path)
		if err != nil {
			return nil, fmt.Errorf("cannot read %s %s: %w%s", f.field, f.path, err, readAdvice(err))
		}
		*f.into = data
	}
	return c, nil
}

// readFile is os.ReadFile for files that end.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, errors.Unwrap(err) // the path is said already
	case !info.Mode().IsRegular():
		return nil, errors.New("it is no regular file")
	case info.Size() > largestFile:
		return nil, fmt.Errorf("it has %d bytes, want at most %d", info.Size(), largestFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	return data, nil
}

func readAdvice(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "; correct the path, which is taken from the document's folder, or mount the file"
	case errors.Is(err, fs.ErrPermission):
		return "; let the user that this process runs as read it"
	}
	return ""
}

// parse checks what was read. The files are good when a handshake at that time can succeed with them.
func (p *paths) parse(c *contents, now time.Time) (*material, error) {
	m := new(material)
	if p.cert != "" {
		if err := p.parsePair(m, c, now); err != nil {
			return nil, err
		}
	}
	if p.ca != "" {
		if err := p.parseAuthorities(m, c.ca, now); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (p *paths) parsePair(m *material, c *contents, now time.Time) error {
	chain, err := certificates(c.cert)
	switch {
	case err != nil:
		return fmt.Errorf("cannot use certificate %s: %w", p.cert, err)
	case len(chain) == 0 && hasKey(c.cert):
		return fmt.Errorf("cannot use certificate %s: it has a private key and no certificate; are certFile and keyFile swapped?", p.cert)
	case len(chain) == 0:
		return fmt.Errorf("cannot use certificate %s: it has no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----", p.cert)
	case !hasKey(c.key):
		return fmt.Errorf("cannot use private key %s: it has no private key in PEM%s", p.key, keyAdvice(c.key))
	}
	pair, err := tls.X509KeyPair(c.cert, c.key)
	if err != nil {
		return fmt.Errorf("cannot use private key %s with certificate %s: %w; the files must be of one pair, the chain with its own certificate first",
			p.key, p.cert, err)
	}
	for i, cert := range chain {
		if err := inTime(cert, now); err != nil {
			return fmt.Errorf("cannot use certificate %s: number %d in it, of %s, %w", p.cert, i+1, subject(cert), err)
		}
		if m.expiry.IsZero() || cert.NotAfter.Before(m.expiry) {
			m.expiry = cert.NotAfter
		}
	}
	m.pair = &pair
	return nil
}

// keyAdvice says what is wrong with a file that has no usable private key.
func keyAdvice(data []byte) string {
	switch {
	case bytes.Contains(data, []byte("ENCRYPTED")):
		return " that needs no passphrase; openssl pkey -in OLD -out NEW takes it off"
	case bytes.Contains(data, []byte("BEGIN CERTIFICATE")):
		return ", but a certificate; are certFile and keyFile swapped?"
	}
	return ""
}

func (p *paths) parseAuthorities(m *material, data []byte, now time.Time) error {
	all, err := certificates(data)
	if err != nil {
		return fmt.Errorf("cannot use authorities %s: %w", p.ca, err)
	}
	if len(all) == 0 {
		return fmt.Errorf("cannot use authorities %s: it has no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----", p.ca)
	}
	m.authorities = x509.NewCertPool()
	var late error
	good := 0
	for _, cert := range all {
		m.authorities.AddCert(cert)
		if err := inTime(cert, now); err != nil {
			late = fmt.Errorf("%s %w", subject(cert), err)
			continue
		}
		good++
	}
	if good == 0 {
		return fmt.Errorf("cannot use authorities %s: none of the %d in it is in force: %w", p.ca, len(all), late)
	}
	return nil
}

// certificates parses the certificates of a PEM file; blocks of other kinds are passed over.
func certificates(data []byte) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for block := range blocks(data) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("cannot parse certificate number %d: %w", len(all)+1, err)
		}
		all = append(all, cert)
	}
	return all, nil
}

// hasKey reports whether a PEM file has a private key without a passphrase.
func hasKey(data []byte) bool {
	for block := range blocks(data) {
		if strings.HasSuffix(block.Type, "PRIVATE KEY") && block.Type != "ENCRYPTED PRIVATE KEY" && block.Headers["DEK-Info"] == "" {
			return true
		}
	}
	return false
}

func blocks(data []byte) func(yield func(*pem.Block) bool) {
	return func(yield func(*pem.Block) bool) {
		for rest := data; ; {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil || !yield(block) {
				return
			}
		}
	}
}

// inTime is an error when a certificate is not valid now.
func inTime(cert *x509.Certificate, now time.Time) error {
	switch {
	case now.After(cert.NotAfter):
		return fmt.Errorf("expired on %s; renew it", cert.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(cert.NotBefore):
		return fmt.Errorf("is valid from %s on, and the clock of this machine says %s",
			cert.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

// subject is what people call a certificate.
func subject(cert *x509.Certificate) string {
	switch {
	case len(cert.DNSNames) > 0:
		return cert.DNSNames[0]
	case len(cert.URIs) > 0:
		return cert.URIs[0].String()
	case len(cert.IPAddresses) > 0:
		return cert.IPAddresses[0].String()
	case cert.Subject.CommonName != "":
		return cert.Subject.CommonName
	}
	return "no name"
}
