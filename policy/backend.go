package policy

// BackendSpec is a legacy service: where it is and how it is spoken to.
type BackendSpec struct {
	// Endpoints are its addresses. Exactly one of endpoints and dns is set.
	Endpoints []Endpoint `yaml:"endpoints"`
	// DNS finds the addresses by name instead.
	DNS *DNS `yaml:"dns"`
	// TLS secures the connections to the backend. An empty one, {}, verifies the backend by the system's authorities.
	// Rotated files are picked up without a restart; connections that are open go on.
	TLS *ClientTLS `yaml:"tls"`
	// Pool bounds the connections to the backend.
	Pool Pool `yaml:"pool"`
	// Timeouts bound the phases of a call to the backend.
	Timeouts BackendTimeouts `yaml:"timeouts"`
	// Balance chooses among endpoints: the one with the fewest requests in flight, each in turn, or by the tenant's hash. All
	// of them go by weight.
	Balance string `yaml:"balance" weir:"enum=LeastRequest|RoundRobin|ConsistentHash,default=LeastRequest"`
	// Health takes failing endpoints out of the choice. When more than half of them are out, all are used.
	Health *Health `yaml:"health"`
	// Retries send a request again where that is safe.
	Retries *Retries `yaml:"retries"`
	// Capacity bounds what the backend is given at once; tenants share it by weight when it is full.
	Capacity *Capacity `yaml:"capacity"`
}

// Endpoint is one address of a backend.
type Endpoint struct {
	// Address is host:port, or unix:/path for a Unix socket.
	Address string `yaml:"address" weir:"required,format=endpoint"`
	// Weight is this endpoint's part of the traffic relative to the others'.
	Weight int `yaml:"weight" weir:"default=1,min=1,max=1000"`
}

// DNS finds a backend's addresses by name.
type DNS struct {
	// Name is looked up for A and AAAA records.
	Name string `yaml:"name" weir:"required,format=dnsname"`
	// Port is the port at every address.
	Port int `yaml:"port" weir:"required,min=1,max=65535"`
	// Refresh is how often the name is looked up again, give or take a tenth. The last good answer is kept through failures.
	Refresh Duration `yaml:"refresh" weir:"default=5s,min=100ms"`
}

// ClientTLS is the client side of TLS: TLS 1.2 and later. Relative paths are taken from the folder of the document.
type ClientTLS struct {
	// CAFile holds the authorities in PEM that may sign the server's certificate. Empty means the system's.
	CAFile string `yaml:"caFile"`
	// CertFile is our certificate chain in PEM, for servers that ask for one. Goes with keyFile.
	CertFile string `yaml:"certFile"`
	// KeyFile is our private key in PEM, without a passphrase. Goes with certFile.
	KeyFile string `yaml:"keyFile"`
	// ServerName is the name, or the IP address, that the server's certificate must carry. Empty means the name in dns, or
	// the host of the endpoint; a Unix socket has none, so it needs a name here.
	ServerName string `yaml:"serverName" weir:"format=host"`
}

// Pool bounds the connections to a backend.
type Pool struct {
	// MaxConnections is the most connections to all of the backend's endpoints together; with perTenant, each tenant's.
	MaxConnections int `yaml:"maxConnections" weir:"default=1000,min=1,max=100000"`
	// MaxIdle is how many of them may wait unused.
	MaxIdle int `yaml:"maxIdle" weir:"default=1000,min=0,max=100000"`
	// IdleTimeout closes a connection that was unused for so long.
	IdleTimeout Duration `yaml:"idleTimeout" weir:"default=30s,min=1ms"`
	// PerTenant gives each tenant a pool of its own, as a bulkhead: one that uses up its connections takes none of the others'.
	PerTenant bool `yaml:"perTenant"`
}

// BackendTimeouts bound the phases of a call to a backend.
type BackendTimeouts struct {
	// Connect bounds the dial, the TLS handshake included.
	Connect Duration `yaml:"connect" weir:"default=1s,min=1ms"`
	// Response bounds the wait for the answer's header section once the request was sent.
	Response Duration `yaml:"response" weir:"default=30s,min=1ms"`
	// IdleBody bounds the wait between two pieces of the answer's body.
	IdleBody Duration `yaml:"idleBody" weir:"default=30s,min=1ms"`
}

// Health takes failing endpoints out of the choice. At least one of path and passive is set.
type Health struct {
	// Path is asked with GET, over a connection of its own; a 2xx or 3xx answer within 2 s is healthy.
	Path string `yaml:"path" weir:"format=target"`
	// Interval is the time between two checks of one endpoint, give or take a tenth.
	Interval Duration `yaml:"interval" weir:"default=5s,min=100ms"`
	// Healthy is how many good checks in a row bring an endpoint back.
	Healthy int `yaml:"healthy" weir:"default=2,min=1,max=1000"`
	// Unhealthy is how many bad checks in a row take it out.
	Unhealthy int `yaml:"unhealthy" weir:"default=3,min=1,max=1000"`
	// Passive judges by the traffic itself.
	Passive *PassiveHealth `yaml:"passive"`
}

// PassiveHealth ejects endpoints that fail real requests: no connection, a connection that breaks, an answer that is late, cut
// or no HTTP, and the statuses 502, 503 and 504. What a client causes never counts.
type PassiveHealth struct {
	// ConsecutiveFailures in a row eject an endpoint.
	ConsecutiveFailures int `yaml:"consecutiveFailures" weir:"default=5,min=1,max=1000000"`
	// EjectFor is how long it stays out. It doubles each time that the endpoint fails again soon after, up to 16 times as long.
	EjectFor Duration `yaml:"ejectFor" weir:"default=30s,min=1ms,max=24h"`
	// MaxEjected is the largest part of the endpoints that may be out at once, rounded down.
	MaxEjected Percent `yaml:"maxEjected" weir:"default=50%"`
}

// Retries send a request again where that is safe: where no backend can have read it, or where its method may be repeated and
// its body is at hand whole.
type Retries struct {
	// On lists what is tried again: connect, reset, or a status from 500 to 599 in quotes.
	On []string `yaml:"on" weir:"required,format=retrycause"`
	// Attempts is how often at most, after the first.
	Attempts int `yaml:"attempts" weir:"default=1,min=0,max=10"`
	// Budget is the largest part of the requests of the last 10 s that may be retries. 10 retries in that time are always allowed,
	// unless it is 0%.
	Budget Percent `yaml:"budget" weir:"default=10%"`
}

// Capacity bounds what a backend is given at once. At least one of concurrency and adaptive is set.
type Capacity struct {
	// Concurrency is the most requests in flight. 0 means no bound. With adaptive it is the most that may be found.
	Concurrency int `yaml:"concurrency" weir:"default=0,min=0,max=1000000"`
	// Adaptive finds the concurrency from latency.
	Adaptive bool `yaml:"adaptive"`
	// Queue is how many requests may wait while there are as many. 0 means none. Tenants take turns by their weights.
	Queue int `yaml:"queue" weir:"default=0,min=0,max=1000000"`
	// QueueTimeout is how long one may wait. Goes with queue.
	QueueTimeout Duration `yaml:"queueTimeout" weir:"default=100ms,min=1ms,max=1h"`
}
