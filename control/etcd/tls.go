package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"

	"google.golang.org/grpc/credentials"
)

// rotating are transport credentials that read their files for each connection, so that a rotated file needs nobody to notice.
// Connections to etcd live long, so this costs nothing.
type rotating struct {
	files TLSFiles
	line  *line // is told how handshakes end
	credentials.TransportCredentials
}

var _ credentials.TransportCredentials = (*rotating)(nil)

// newRotating fails when the files are wrong now.
func newRotating(files TLSFiles, line *line) (*rotating, error) {
	config, err := files.config()
	if err != nil {
		return nil, err
	}
	return &rotating{files, line, credentials.NewTLS(config)}, nil
}

// ClientHandshake shakes hands with the files as they are.
func (r *rotating) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	config, err := r.files.config()
	if err != nil {
		r.line.note(err)
		return nil, nil, err
	}
	secured, info, err := credentials.NewTLS(config).ClientHandshake(ctx, authority, conn)
	if err != nil {
		r.line.note(err)
		return nil, nil, err
	}
	return alertConn{secured, r.line}, info, nil
}

// Clone copies the credentials.
func (r *rotating) Clone() credentials.TransportCredentials {
	return &rotating{r.files, r.line, r.TransportCredentials.Clone()}
}

// config reads the files.
func (f TLSFiles) config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: f.ServerName}
	if f.CAFile != "" {
		pem, err := os.ReadFile(f.CAFile)
		if err != nil {
			return nil, fmt.Errorf("cannot read the authorities for etcd: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("cannot use the authorities of %s for etcd: no certificate in PEM is in it", f.CAFile)
		}
	}
	if f.CertFile != "" || f.KeyFile != "" {
		pair, err := tls.LoadX509KeyPair(f.CertFile, f.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("cannot read our certificate for etcd, %s with %s: %w", f.CertFile, f.KeyFile, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// TLSConfig is what the members are shown and asked for, with the files as they are now; nil when the endpoints are not https.
func (o Options) TLSConfig() (*tls.Config, error) {
	secure, err := (&Client{o: o}).secure()
	if err != nil || !secure {
		return nil, err
	}
	return o.TLS.config()
}
