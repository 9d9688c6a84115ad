package care

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"weir/control/etcd"
)

// Facts are all that [Examine] has found out. What was not asked, since what it needs has failed, is its zero value.
type Facts struct {
	// Now is our wall clock when it began.
	Now time.Time
	// Service is the fleet that WriteMember of Access was tried for.
	Service string
	// Files are the certificates in our own files.
	Files []File
	// SetupErr says why nobody could be asked: options that contradict themselves, files that cannot be read.
	SetupErr error
	// Endpoints are those given, in their order, and Latencies how long each of them took for a read that a majority confirmed, at
	// best of several; 0 when none came back.
	Endpoints []Endpoint
	Latencies []time.Duration
	// ClientErr says why the cluster could not be asked though there are endpoints to ask, as when it refuses our password.
	ClientErr error
	Survey    Survey
	Access    Access
}

// File is a certificate in a file of ours.
type File struct {
	Path string
	// Holds says what it is for.
	Holds string
	// Certificate is the one in the file that expires first.
	Certificate Certificate
	Err         error
}

// Subject is what to examine.
type Subject struct {
	// Etcd says how the cluster is reached.
	Etcd etcd.Options
	// Layout is where keys lie, and Service the fleet whose sidecars must be able to write there.
	Layout  etcd.Layout
	Service string
	// Clock is the wall clock; nil means time.Now.
	Clock func() time.Time
}

// reads is how many reads are timed, of which the fastest counts: one may have met a pause that says nothing of the line.
const reads = 3

// Examine finds out everything between this machine and a working cluster. It never fails, and takes at most about five times the
// timeout of one call, however many members there are.
func Examine(ctx context.Context, s Subject) Facts {
	if s.Clock == nil {
		s.Clock = time.Now
	}
	f := Facts{Now: s.Clock(), Service: s.Service, Files: files(s.Etcd.TLS)}
	config, err := s.Etcd.TLSConfig()
	if err != nil {
		f.SetupErr = err
		return f
	}
	timeout := s.Etcd.Timeout
	if timeout == 0 {
		timeout = 5 * time.Second
	}
	var probing sync.WaitGroup
	f.Endpoints = make([]Endpoint, len(s.Etcd.Endpoints))
	for i, endpoint := range s.Etcd.Endpoints {
		probing.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			f.Endpoints[i] = probe(ctx, endpoint, config, s.Clock)
		})
	}
	probing.Wait()
	if !reachable(f.Endpoints) {
		return f
	}
	client, err := etcd.Open(s.Etcd)
	if err != nil {
		f.ClientErr = err
		return f
	}
	defer client.Close()
	// First a question by itself: it logs in, once for all of the others, or shows that nobody is let in.
	f.Access.User = s.Etcd.Username
	if f.Access.ReadPolicy = mayRead(ctx, client, s.Layout.Policy()); refused(f.Access.ReadPolicy) {
		f.ClientErr = f.Access.ReadPolicy
		return f
	}
	var asking sync.WaitGroup
	asking.Go(func() { f.Survey = Ask(ctx, client) })
	asking.Go(func() { f.Access.try(ctx, client, s.Layout, s.Service) })
	f.Latencies = make([]time.Duration, len(f.Endpoints))
	for i, e := range f.Endpoints {
		if e.Err == nil {
			asking.Go(func() { f.Latencies[i] = latency(ctx, client, e.URL, s.Layout.Change()) })
		}
	}
	asking.Wait()
	return f
}

// reachable reports whether there is anybody to ask.
func reachable(endpoints []Endpoint) bool {
	for _, e := range endpoints {
		if e.Err == nil {
			return true
		}
	}
	return false
}

// latency times reads of one key at one member, each confirmed by a majority, and returns the least; 0 when none succeeded.
func latency(ctx context.Context, c *etcd.Client, endpoint, key string) time.Duration {
	ctx, cancel := c.Call(ctx)
	defer cancel()
	conn, err := c.Etcd().Dial(endpoint)
	if err != nil {
		return 0
	}
	defer conn.Close()
	kv := clientv3.NewKVFromKVClient(etcdserverpb.NewKVClient(conn), c.Etcd())
	var best time.Duration
	for range reads + 1 { // the first also pays for the connection
		begun := time.Now()
		if _, err := kv.Get(ctx, key, clientv3.WithKeysOnly()); err != nil {
			return best
		}
		if took := time.Since(begun); best == 0 || took < best {
			best = took
		}
	}
	return best
}

// files reads the certificates in our files.
func files(t etcd.TLSFiles) []File {
	var list []File
	for _, f := range []File{{Path: t.CAFile, Holds: "authority that signs etcd's certificates"}, {Path: t.CertFile, Holds: "our certificate"}} {
		if f.Path == "" {
			continue
		}
		f.Certificate, f.Err = firstToExpire(f.Path)
		list = append(list, f)
	}
	return list
}

// firstToExpire is the certificate of a file in PEM that expires first.
func firstToExpire(path string) (Certificate, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Certificate{}, err
	}
	var first Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return Certificate{}, fmt.Errorf("cannot read a certificate of %s: %w", path, err)
		}
		if c := certificate(cert); first.Expires.IsZero() || c.Expires.Before(first.Expires) {
			first = c
		}
	}
	if first.Expires.IsZero() {
		return Certificate{}, fmt.Errorf("no certificate in PEM is in %s", path)
	}
	return first, nil
}
