package certs

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"weir/policy"
)

// Options are what a set needs from outside. All are required.
type Options struct {
	// Clock is the wall clock, by which certificates are valid or not.
	Clock func() time.Time
	// Logger gets a line for each rotation, good or bad.
	Logger zerolog.Logger
}

// Set is the TLS of the listeners and backends of one snapshot. Safe for concurrent use.
type Set struct {
	servers map[string]*Server // by listener
	clients map[string]*Client // by backend
}

// Build makes the set of these listeners and backends; those without TLS have no place in it. What had the same settings in prev,
// which may be nil, is adopted. The TLS of a listener that was in use stays when the documents forget it, since the listener itself
// stays until the restart. The error is that of the first file that cannot be used; prev goes on as before.
func Build(prev *Set, listeners []policy.ListenerSettings, backends []policy.Backend, o Options) (*Set, error) {
	s := &Set{servers: make(map[string]*Server), clients: make(map[string]*Client)}
	if prev == nil {
		prev = new(Set)
	}
	for name, server := range prev.servers {
		if server.used.Load() {
			s.servers[name] = server
		}
	}
	for i := range listeners {
		l := &listeners[i]
		if l.TLS == nil {
			continue
		}
		server := prev.servers[l.Name]
		if server == nil || server.settings != *l.TLS {
			var err error
			if server, err = newServer(l.Name, *l.TLS, o); err != nil {
				return nil, err
			}
		}
		s.servers[l.Name] = server
	}
	for i := range backends {
		b := &backends[i]
		if b.TLS == nil {
			continue
		}
		client := prev.clients[b.Name]
		if client == nil || client.settings != *b.TLS {
			var err error
			if client, err = newClient(b.Name, *b.TLS, o); err != nil {
				return nil, err
			}
		}
		s.clients[b.Name] = client
	}
	return s, nil
}

// Server returns the TLS of a listener; nil when it has none.
func (s *Set) Server(listener string) *Server { return s.servers[listener] }

// Client returns the TLS towards a backend; nil when it has none, or when s is nil.
func (s *Set) Client(backend string) *Client {
	if s == nil {
		return nil
	}
	return s.clients[backend]
}

// Reload reads all files again. Those that changed and are good are in force when it returns.
func (s *Set) Reload() {
	for _, server := range s.servers {
		server.files.reload()
	}
	for _, client := range s.clients {
		client.files.reload()
	}
}

// protocols is what is spoken inside of TLS: a peer that wants something else is refused in the handshake.
func protocols() []string { return []string{"http/1.1"} }

// Server is the TLS of one listener. Safe for concurrent use.
type Server struct {
	settings policy.ListenerTLS
	files    follower
	front    tls.Config // what handshakes begin with; it owns the keys of session tickets, which outlive rotations
	current  atomic.Pointer[tls.Config]
	used     atomic.Bool
	failed   atomic.Uint64
}

func newServer(name string, settings policy.ListenerTLS, o Options) (*Server, error) {
	s := &Server{settings: settings}
	s.files = follower{
		use: useListener, name: name, paths: paths{settings.CertFile, settings.KeyFile, settings.ClientCAFile},
		clock: o.Clock, logger: o.Logger, put: s.put,
	}
	s.front.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.current.Load(), nil }
	s.front.Time = o.Clock
	if err := s.files.first(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Server) put(m *material) {
	c := &tls.Config{
		Time:                        s.files.clock,
		MinVersion:                  tls.VersionTLS12,
		Certificates:                []tls.Certificate{*m.pair},
		NextProtos:                  protocols(),
		DynamicRecordSizingDisabled: true, // one write of ours is one system call
	}
	if m.authorities != nil {
		c.ClientCAs, c.ClientAuth = m.authorities, tls.VerifyClientCertIfGiven
		if s.settings.RequireClientCert {
			c.ClientAuth = tls.RequireAndVerifyClientCert
		}
	}
	s.current.Store(c)
}

// Config is what tls.Server takes for the next connection. It is the same one always: rotations reach through it.
func (s *Server) Config() *tls.Config {
	if !s.used.Load() {
		s.used.Store(true)
	}
	return &s.front
}

// HandshakeFailed counts a handshake that came to nothing.
func (s *Server) HandshakeFailed() { s.failed.Add(1) }

// Client is the TLS towards the endpoints of one backend. Safe for concurrent use.
type Client struct {
	settings policy.ClientTLS
	files    follower
	current  atomic.Pointer[tls.Config] // without a server's name
}

func newClient(name string, settings policy.ClientTLS, o Options) (*Client, error) {
	c := &Client{settings: settings}
	c.files = follower{
		use: useBackend, name: name, paths: paths{settings.CertFile, settings.KeyFile, settings.CAFile},
		clock: o.Clock, logger: o.Logger, put: c.put,
	}
	if err := c.files.first(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Client) put(m *material) {
	config := &tls.Config{
		Time:                        c.files.clock,
		MinVersion:                  tls.VersionTLS12,
		RootCAs:                     m.authorities,
		NextProtos:                  protocols(),
		DynamicRecordSizingDisabled: true,
	}
	if m.pair != nil {
		// Shown to whoever asks, whatever authorities it names: its refusal says more than a certificate that was held back.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return m.pair, nil }
	}
	c.current.Store(config)
}

// Endpoint is the TLS towards one endpoint. It keeps the sessions to it, for endpoints need not know each other's, and forgets them
// with each rotation, so that no session outlives the certificate and the authorities it was made with. Safe for concurrent use.
type Endpoint struct {
	client     *Client
	serverName string

	mu       sync.Mutex
	from, to *tls.Config // to is made from from
}

// Endpoint returns the TLS towards an endpoint: host:port, or the path of a Unix socket.
func (c *Client) Endpoint(address string) *Endpoint {
	e := &Endpoint{client: c, serverName: c.settings.ServerName}
	if e.serverName == "" {
		e.serverName, _, _ = net.SplitHostPort(address) // checked with the documents
	}
	return e
}

// Config is what tls.Client takes for the next connection.
func (e *Endpoint) Config() *tls.Config {
	e.mu.Lock()
	defer e.mu.Unlock()
	if current := e.client.current.Load(); e.from != current {
		e.from, e.to = current, current.Clone()
		e.to.ServerName = e.serverName
		e.to.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	}
	return e.to
}
