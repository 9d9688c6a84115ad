package care

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// Endpoint is what was found on the way to one endpoint, before etcd's own protocol.
type Endpoint struct {
	URL string
	// Err says why there is no connection: an address that nobody listens on, a TLS handshake that failed, a member that refuses our
	// certificate.
	Err error
	// Connect is how long the connection took, TLS included.
	Connect time.Duration
	// Chain are the certificates that the member shows, its own first; none without TLS. Distrust says why they are not believed.
	Chain    []Certificate
	Distrust error
	// Clock is the member's clock compared with ours. ClockErr says why that could not be told.
	Clock    Offset
	ClockErr error
}

// Certificate is what matters of a certificate here.
type Certificate struct {
	Subject         string
	Begins, Expires time.Time
}

// Offset is how far a clock is ahead of ours: somewhere from Least to Most, negative when it is behind. A header of HTTP tells the time
// in whole seconds, so the two are a second apart, and the time of one round trip.
type Offset struct{ Least, Most time.Duration }

// Certain is the offset that is certain: 0 when both clocks may be in step.
func (o Offset) Certain() time.Duration {
	switch {
	case o.Least > 0:
		return o.Least
	case o.Most < 0:
		return o.Most
	}
	return 0
}

// dial connects to an endpoint, without TLS.
func dial(ctx context.Context, endpoint string) (net.Conn, error) {
	network, address, err := place(endpoint)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("cannot connect: %w", err)
	}
	return conn, nil
}

// place is where an endpoint is.
func place(endpoint string) (network, address string, err error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return "", "", fmt.Errorf("cannot use the endpoint %q: %w", endpoint, err)
	}
	switch u.Scheme {
	case "unix", "unixs":
		return "unix", u.Host + u.Path, nil
	case "http", "https":
		port := u.Port()
		if port == "" {
			port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
		}
		return "tcp", net.JoinHostPort(u.Hostname(), port), nil
	}
	return "", "", fmt.Errorf("cannot use the endpoint %q: want a URL as in https://etcd-0:2379", endpoint)
}

// probe connects to an endpoint and looks at its certificates and its clock. A nil config means no TLS; now is the wall clock.
func probe(ctx context.Context, endpoint string, config *tls.Config, now func() time.Time) Endpoint {
	e := Endpoint{URL: endpoint}
	begun := time.Now()
	conn, err := dial(ctx, endpoint)
	if err != nil {
		e.Err = err
		return e
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if config != nil {
		secure, err := handshake(ctx, conn, endpoint, config)
		if err != nil {
			e.Err = fmt.Errorf("cannot agree on TLS: %w", explain(ctx, err))
			return e
		}
		conn = secure
		shown := secure.ConnectionState().PeerCertificates
		for _, cert := range shown {
			e.Chain = append(e.Chain, certificate(cert))
		}
		e.Distrust = distrust(shown, config, hostOf(endpoint, config), now())
	}
	e.Connect = time.Since(begun)
	e.Clock, err = clock(ctx, conn, now)
	var refused *net.OpError
	switch {
	case err == nil:
	case errors.As(err, &refused) && refused.Op == "remote error": // an alert of TLS: with TLS 1.3 it comes after our handshake
		e.Err = fmt.Errorf("the member refuses the connection: %w", refused.Err)
	default:
		e.ClockErr = explain(ctx, err)
	}
	return e
}

// handshake agrees on TLS without judging the certificate: an expired one is to be seen, too. Nothing secret is sent over the connection.
func handshake(ctx context.Context, conn net.Conn, endpoint string, config *tls.Config) (*tls.Conn, error) {
	config = config.Clone()
	config.InsecureSkipVerify = true
	config.ServerName = hostOf(endpoint, config)
	secure := tls.Client(conn, config)
	return secure, secure.HandshakeContext(ctx)
}

// hostOf is the name that the certificate of an endpoint must carry.
func hostOf(endpoint string, config *tls.Config) string {
	if config.ServerName != "" {
		return config.ServerName
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// distrust says why certificates are not believed, as a connection of etcd's own protocol would find.
func distrust(shown []*x509.Certificate, config *tls.Config, host string, now time.Time) error {
	if len(shown) == 0 {
		return errors.New("the member shows no certificate")
	}
	between := x509.NewCertPool()
	for _, cert := range shown[1:] {
		between.AddCert(cert)
	}
	_, err := shown[0].Verify(x509.VerifyOptions{Roots: config.RootCAs, Intermediates: between, DNSName: host, CurrentTime: now})
	return err
}

func certificate(cert *x509.Certificate) Certificate {
	c := Certificate{Subject: cert.Subject.String(), Begins: cert.NotBefore, Expires: cert.NotAfter}
	if c.Subject == "" {
		c.Subject = "of no name"
	}
	return c
}

// clock asks for the time, which etcd tells with every answer in HTTP.
func clock(ctx context.Context, conn net.Conn, now func() time.Time) (Offset, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://etcd/version", nil)
	if err != nil {
		panic("BUG: cannot make a request of a constant: " + err.Error())
	}
	before := now()
	if err := req.Write(conn); err != nil {
		return Offset{}, err
	}
	answer, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, 64<<10)), req)
	if err != nil {
		return Offset{}, err
	}
	after := now()
	_ = answer.Body.Close()
	date, err := http.ParseTime(answer.Header.Get("Date"))
	if err != nil {
		return Offset{}, errors.New("its answers do not tell the time")
	}
	return offset(date, before, after), nil
}

// offset compares a time in whole seconds, told between before and after, with our clock.
func offset(date, before, after time.Time) Offset {
	return Offset{Least: date.Sub(after), Most: date.Add(time.Second).Sub(before)}
}
