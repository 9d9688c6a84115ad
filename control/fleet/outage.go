package fleet

import (
	"errors"
	"fmt"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"weir/control/etcd"
)

// registration says whether the fleet knows what this sidecar runs. Each turn of it is one log line and one step of a gauge.
type registration struct {
	log   zerolog.Logger // with the source and the service
	gauge prometheus.Gauge
	write string // the prefix that must be writable

	mu     sync.Mutex
	is     bool
	cause  string // of what was logged last
	reason string // why not, for people
}

func (r *registration) ok(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.is {
		r.log.Info().Str("id", id).Msg("registered with the fleet")
	}
	r.is, r.cause, r.reason = true, "", ""
	r.gauge.Set(1)
}

func (r *registration) failed(err error) {
	cause, advice := explain(err, r.write)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.is || r.cause != cause {
		r.log.Warn().Err(err).Str("cause", cause).Str("to_do", advice).
			Msg("not registered with the fleet; requests are served as before, and it tries again")
	}
	r.is, r.cause, r.reason = false, cause, fmt.Sprintf("%v; to do: %s", err, advice)
	r.gauge.Set(0)
}

// left is the clean end.
func (r *registration) left() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.is, r.reason = false, "it has left"
	r.gauge.Set(0)
}

// state says whether the record is in the store and says what is the case, and if not, why.
func (r *registration) state() (bool, string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.is, r.reason
}

// explain says in a word why the fleet does not know what this sidecar runs, and what to do about it.
func explain(err error, write string) (cause, advice string) {
	switch cause := etcd.CauseOf(err); {
	case cause == etcd.Forbidden:
		return string(cause), fmt.Sprintf("grant its user what is missing: etcdctl role grant-permission ROLE --prefix=true readwrite %s", write)
	case errors.Is(err, errLost):
		return "lease", "nothing, if etcd or this process stood still for a while; else look at the load of etcd's members and of this machine"
	default:
		return string(cause), cause.Advice()
	}
}
