package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"weir/proxy/upstream"
)

// secureListener is a listener whose connections are to speak TLS. It knows the name under which the snapshots say how.
type secureListener struct {
	deadlineListener
	name string
}

type deadlineListener interface {
	net.Listener
	SetDeadline(time.Time) error
}

// secure returns what makes TLS of a listener's connections; nil when they stay plain. From here the listener is in use: whatever
// later documents say, it never falls back to plain HTTP.
func (p *Proxy) secure(ln net.Listener) (func(net.Conn) net.Conn, error) {
	s, ok := ln.(*secureListener)
	if !ok {
		return nil, nil
	}
	server := p.certificates().Server(s.name)
	if server == nil {
		return nil, fmt.Errorf("cannot serve TLS on %s: the policy in force has no TLS for a listener %q", addressOf(ln), s.name)
	}
	server.Config()
	return func(c net.Conn) net.Conn {
		live := p.certificates().Server(s.name)
		if live == nil {
			live = server
		}
		return &secureConn{Conn: tls.Server(c, live.Config()), failed: func(err error) {
			live.HandshakeFailed()
			p.logger.Debug().Err(err).Str("listener", s.name).Stringer("client", c.RemoteAddr()).Msg("TLS handshake failed")
		}}
	}, nil
}

// secureConn is a client's connection over TLS. The guard calls Handshake, once, with the first Read.
type secureConn struct {
	*tls.Conn
	failed func(error)
}

// Handshake tells whoever speaks plain HTTP that this is the wrong port.
func (c *secureConn) Handshake() error {
	err := c.Conn.Handshake()
	if err == nil || errors.Is(err, io.EOF) { // who comes and goes without a byte wanted to know whether the port is open
		return err
	}
	c.failed(err)
	var noTLS tls.RecordHeaderError
	if errors.As(err, &noTLS) && noTLS.Conn != nil && beginsMethod(noTLS.RecordHeader[:]) {
		const text = "This port speaks HTTPS.\n"
		_, _ = io.WriteString(noTLS.Conn, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: "+
			strconv.Itoa(len(text))+"\r\nConnection: close\r\nProxy-Status: weir; error=http_request_error\r\n\r\n"+text)
	}
	return err
}

// beginsMethod says whether bytes are the beginning of a request rather than of anything else.
func beginsMethod(b []byte) bool {
	for _, c := range b[:3] {
		if c < 'A' || c > 'Z' {
			return false
		}
	}
	return true
}

// certificate is the one that the client showed, verified; nil when it showed none.
func (c *clientConn) certificate() *x509.Certificate {
	if c.tls == nil {
		return nil
	}
	if chains := c.tls.ConnectionState().VerifiedChains; len(chains) > 0 {
		return chains[0][0]
	}
	return nil
}

// ReloadCertificates reads the files of all certificates and authorities again, as it is done every few seconds anyhow.
func (p *Proxy) ReloadCertificates() {
	if s := p.certificates(); s != nil {
		s.Reload()
	}
}

// logTLSFault says what TLS with a backend came to, and the way out, once a second.
func (p *Proxy) logTLSFault(x *exchange, failed *upstream.Error) {
	if !p.tlsLog.allow(x.now) {
		return
	}
	advice := "does it speak TLS there? If not, take tls out of the Backend"
	switch failed.Cause {
	case upstream.TLSCertificate:
		advice = "the Backend's tls.caFile must hold the authority that signed the certificate, and tls.serverName a name in it"
	case upstream.TLSAlert:
		advice = "it may ask for a certificate: the Backend's tls.certFile and tls.keyFile"
	}
	p.logger.Warn().Err(failed).Str("backend", x.live.snapshot.Backends[x.match.Backend].Name).Str("endpoint", failed.Endpoint).
		Str("advice", advice).Msg("no TLS with a backend")
}
