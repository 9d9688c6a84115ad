package policy

// SidecarSpec is one process: what it listens on, whom it believes, where its policies come from.
// It is read from files at start; a change of listeners, admin or bounds needs a restart, the rest is live.
type SidecarSpec struct {
	// Service is the fleet this sidecar belongs to. Empty means metadata.name.
	Service string `yaml:"service" weir:"format=dnslabel"`
	// Listeners are the addresses on which clients are served. None means one on ":8080".
	Listeners []Listener `yaml:"listeners"`
	// Admin is the operator's port: health, metrics, status.
	Admin Admin `yaml:"admin"`
	// TrustedProxies are the peers whose identity and X-Forwarded-* headers are believed. Everyone else's are stripped.
	TrustedProxies []CIDR `yaml:"trustedProxies"`
	// Identity lists the sources of the tenant. The first source that yields one wins.
	Identity []IdentitySource `yaml:"identity"`
	// UnknownTenant says what happens to a request without an identity, or with one that no policy covers:
	// Deny answers 401 without and 403 with an identity, Default applies the policies with `tenants: {unknown: true}`,
	// Shared puts all of them in one bucket under the limits of the `any` policies.
	UnknownTenant string `yaml:"unknownTenant" weir:"enum=Deny|Default|Shared,default=Deny"`
	// Policies are the sources of documents, merged by kind and name. Empty means the files given with -f.
	Policies []PolicySource `yaml:"policies"`
	// LastGood is the file that keeps the last applied documents, so that the process starts when its sources are broken.
	// Empty keeps none.
	LastGood string `yaml:"lastGood"`
	// Timeouts bound the phases of a client's request.
	Timeouts SidecarTimeouts `yaml:"timeouts"`
	// Bounds limit what one client can make the sidecar hold.
	Bounds Bounds `yaml:"bounds"`
	// AccessLog says how requests are logged.
	AccessLog AccessLog `yaml:"accessLog"`
	// Tracing exports spans by OTLP; the exporter is set by the standard OTEL_* environment.
	Tracing *Tracing `yaml:"tracing" weir:"later"`
}

// Listener is one address on which clients are served.
type Listener struct {
	// Name is what logs and errors call the listener.
	Name string `yaml:"name" weir:"required,format=dnslabel"`
	// Address is host:port, or unix:/path for a Unix socket. An empty host means every interface.
	Address string `yaml:"address" weir:"required,format=listen"`
	// TLS serves HTTPS. Rotated files are picked up without a restart.
	TLS *ListenerTLS `yaml:"tls"`
}

// ListenerTLS is the server side of TLS towards clients: TLS 1.2 and later, HTTP/1.1 within. Relative paths are taken from the
// folder of the document.
type ListenerTLS struct {
	// CertFile is the certificate chain in PEM, the server's own certificate first.
	CertFile string `yaml:"certFile" weir:"required"`
	// KeyFile is the private key in PEM, without a passphrase.
	KeyFile string `yaml:"keyFile" weir:"required"`
	// ClientCAFile holds the authorities in PEM that may sign client certificates. A certificate that a client shows is verified
	// then, and nobody has to show one. Empty asks no client for a certificate.
	ClientCAFile string `yaml:"clientCAFile"`
	// RequireClientCert refuses clients without a certificate signed by ClientCAFile.
	RequireClientCert bool `yaml:"requireClientCert"`
}

// Admin is the operator's port.
type Admin struct {
	// Address is host:port, or unix:/path. Keep it on loopback or behind a network policy.
	Address string `yaml:"address" weir:"default=127.0.0.1:9901,format=listen"`
	// Pprof serves /debug/pprof/ on the admin port.
	Pprof bool `yaml:"pprof"`
}

// IdentitySource yields a tenant from a request. Exactly one of header, jwt, apiKey, spiffe, host, path and clientCIDR is set.
type IdentitySource struct {
	// Header takes the tenant from this request header.
	Header string `yaml:"header" weir:"format=headername"`
	// Trust says whose header is believed: TrustedProxies only, or Any peer. Goes with header.
	Trust string `yaml:"trust" weir:"enum=trustedProxies|any,default=trustedProxies"`
	// JWT takes the tenant from a claim of a verified token.
	JWT *JWTIdentity `yaml:"jwt"`
	// APIKey takes the tenant from a key that the client presents.
	APIKey *APIKeyIdentity `yaml:"apiKey"`
	// SPIFFE takes the tenant from the verified client certificate's SPIFFE ID.
	SPIFFE *SPIFFEIdentity `yaml:"spiffe"`
	// Host takes the tenant from the Host header; `{tenant}` stands for one label, as in "{tenant}.api.example.com".
	Host string `yaml:"host" weir:"format=hosttemplate"`
	// Path takes the tenant from the path; `{tenant}` stands for one segment, as in "/t/{tenant}/".
	Path string `yaml:"path" weir:"format=pathtemplate"`
	// ClientCIDR maps the client's address to a tenant; the longest prefix wins.
	ClientCIDR []CIDRTenant `yaml:"clientCIDR"`
}

// Describe returns the source's field and what it looks at, as in header and X-Tenant-ID. It has no secrets.
func (s *IdentitySource) Describe() (kind, detail string) {
	switch {
	case s.Header != "":
		return "header", s.Header
	case s.JWT != nil:
		return "jwt", s.JWT.Header
	case s.APIKey != nil:
		return "apiKey", s.APIKey.Header
	case s.SPIFFE != nil:
		return "spiffe", s.SPIFFE.PathPattern
	case s.Host != "":
		return "host", s.Host
	case s.Path != "":
		return "path", s.Path
	}
	return "clientCIDR", ""
}

// JWTIdentity reads the tenant from a claim of a signed token (RFC 7519). A token that is there and not valid is answered with 401,
// whatever the sources after this one say. It goes on to the backend, as credentials do.
type JWTIdentity struct {
	// Header carries the token, with or without the prefix "Bearer ". Credentials of another scheme, such as Basic, are no token.
	Header string `yaml:"header" weir:"default=Authorization,format=headername"`
	// Claim is the claim that names the tenant: one at the top level of the token, and a string.
	Claim string `yaml:"claim" weir:"default=tenant"`
	// JWKSFile holds the public keys, as a JSON Web Key Set (RFC 7517). A changed file is picked up.
	JWKSFile string `yaml:"jwksFile" weir:"required"`
	// Algorithms are the signatures accepted, each by keys of its own type only. Empty means RS256, ES256 and EdDSA.
	Algorithms []string `yaml:"algorithms" weir:"enum=RS256|RS384|RS512|PS256|PS384|PS512|ES256|ES384|ES512|EdDSA"`
	// Issuer is the only issuer (iss) accepted. Empty accepts every one that signs with a key of the file.
	Issuer string `yaml:"issuer"`
	// Audience must be the token's audience (aud), or one of several. Empty accepts tokens that were issued for others.
	Audience string `yaml:"audience"`
	// Leeway is how much the issuer's clock may differ, when a token expires (exp, which it must have), begins (nbf) or was issued (iat).
	Leeway Duration `yaml:"leeway" weir:"default=30s,min=0s,max=5m"`
}

// APIKeyIdentity maps a key that the client presents to a tenant.
type APIKeyIdentity struct {
	// Header carries the key.
	Header string `yaml:"header" weir:"default=X-API-Key,format=headername"`
	// KeysFile has one `tenant:sha256-hex-of-the-key` a line; keys are hashed at rest and compared in constant time.
	// Blank lines and lines that start with # are passed over. A changed file is picked up.
	KeysFile string `yaml:"keysFile" weir:"required"`
}

// SPIFFEIdentity reads the tenant from the path of the SPIFFE ID of the client's certificate, once a listener has verified that one
// against its clientCAFile.
type SPIFFEIdentity struct {
	// PathPattern is the shape of the path; `{tenant}` stands for one segment, and `/*` at the end for any more, as in "/ns/{tenant}/*".
	PathPattern string `yaml:"pathPattern" weir:"required,format=spiffepattern"`
	// TrustDomain is the only trust domain accepted, as in "prod.example.com". Empty accepts every one whose authority is trusted.
	TrustDomain string `yaml:"trustDomain" weir:"format=trustdomain"`
}

// CIDRTenant maps one network to a tenant.
type CIDRTenant struct {
	// CIDR is the network, as in 10.1.0.0/16 or 2001:db8::/32.
	CIDR CIDR `yaml:"cidr" weir:"required"`
	// Tenant is who speaks from that network.
	Tenant string `yaml:"tenant" weir:"required,format=tenant"`
}

// PolicySource is one place documents come from. Exactly one of file and etcd is set.
type PolicySource struct {
	// Name is what origins, logs and metrics call the source, and must be its own. Empty means etcd for one with etcd; files without a
	// name are one source with those of -f, and called file.
	Name string `yaml:"name" weir:"format=dnslabel"`
	// File is a file or a directory of *.yaml, *.yml and *.json files, watched.
	File *FileSource `yaml:"file"`
	// Etcd is a key prefix in an etcd cluster, watched.
	Etcd *EtcdSource `yaml:"etcd"`
}

// FileSource reads documents from the file system.
type FileSource struct {
	// Path is a file or directory; a relative one is taken from the folder of the document that names it.
	Path string `yaml:"path" weir:"required"`
}

// EtcdSource reads documents from an etcd cluster, version 3.4 or newer, and follows their changes. Relative paths are taken from the
// folder of the document.
type EtcdSource struct {
	// Endpoints are the members' client URLs: all with https, or none. Name all members, so that the loss of one does not matter.
	Endpoints []string `yaml:"endpoints" weir:"required,format=clienturl"`
	// Prefix is where the keys begin. Documents are at PREFIX/v1/policy/KIND/NAME.
	Prefix string `yaml:"prefix" weir:"default=/weir,format=keyprefix"`
	// TLS says whom to trust and what to show at endpoints with https. Replaced files are read with the next connection. Without
	// it, the authorities of the system are trusted.
	TLS *ClientTLS `yaml:"tls"`
	// Username logs in, with the password of passwordFile. A user may also be named by the certificate of tls.
	Username string `yaml:"username"`
	// PasswordFile holds the password, and possibly a line break. It is read again when the password is refused.
	PasswordFile string `yaml:"passwordFile"`
}

// SidecarTimeouts bound the phases of a client's request.
type SidecarTimeouts struct {
	// Header is the longest a client may take to send a request's header section.
	Header Duration `yaml:"header" weir:"default=5s,min=1ms"`
	// Idle is the longest a keep-alive connection may wait for its next request, and a WebSocket without a byte either way.
	Idle Duration `yaml:"idle" weir:"default=60s,min=1ms"`
	// Body is the longest a client may take for the next byte of a request's body. Slower ones get 408.
	Body Duration `yaml:"body" weir:"default=30s,min=1ms"`
	// Send is the longest a client may take to read a byte of its answer while more waits for it. Slower ones are cut.
	Send Duration `yaml:"send" weir:"default=30s,min=1ms"`
	// Request is the longest a request may take from its first byte to the last byte of the answer, unless its route says otherwise.
	// 0 means no bound. For a WebSocket it ends with the 101.
	Request Duration `yaml:"request" weir:"default=60s,min=0s"`
	// LameDuck is how long listeners go on accepting after SIGTERM while /readyz says 503 already, for balancers that look only now
	// and then. Answers tell their clients to go elsewhere from then on.
	LameDuck Duration `yaml:"lameDuck" weir:"default=0s,min=0s"`
	// Drain is how long requests in flight, and WebSockets, may go on after that.
	Drain Duration `yaml:"drain" weir:"default=30s,min=0s"`
}

// Bounds limit what one client can make the sidecar hold. 0 means no bound where that is allowed.
type Bounds struct {
	// HeaderBytes is the largest request header section, request line included. Larger ones get 431.
	HeaderBytes Size `yaml:"headerBytes" weir:"default=32KiB,min=1KiB,max=1MiB"`
	// HeaderCount is the largest number of header fields. More get 431.
	HeaderCount int `yaml:"headerCount" weir:"default=100,min=1,max=1000"`
	// URIBytes is the longest request target. Longer ones get 414.
	URIBytes Size `yaml:"uriBytes" weir:"default=8KiB,min=64B,max=1MiB"`
	// BodyBytes is the largest request body. Larger ones get 413. 0 means no bound.
	BodyBytes Size `yaml:"bodyBytes" weir:"default=0,min=0"`
	// BodyRate is how many bytes a second a request's body must bring while it is waited for, on average and once timeouts.body
	// has passed. Slower ones get 408. 0 means no minimum, for clients that send a body bit by bit as it comes to be.
	BodyRate Size `yaml:"bodyRate" weir:"default=100,min=0"`
	// Connections is how many clients may be connected at once; further ones wait in the kernel's queue.
	Connections int `yaml:"connections" weir:"default=10000,min=1,max=1000000"`
	// ConnectionsPerIP is how many of them may come from one address. 0 means no bound.
	ConnectionsPerIP int `yaml:"connectionsPerIP" weir:"default=0,min=0"`
}

// AccessLog says how requests are logged.
type AccessLog struct {
	// Format is json, or off.
	Format string `yaml:"format" weir:"enum=json|off,default=json"`
	// SuccessSample logs one of every N requests that were forwarded and answered below 400; denials and errors are always logged.
	// 0 logs none of them.
	SuccessSample int `yaml:"successSample" weir:"default=1,min=0"`
	// Path is stdout, stderr or a file, which is appended to and opened again on SIGHUP.
	Path string `yaml:"path" weir:"default=stdout"`
}

// Tracing exports spans.
type Tracing struct {
	// Sample is the part of requests traced.
	Sample Percent `yaml:"sample" weir:"default=1%"`
}
