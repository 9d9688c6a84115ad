// Package etcdtest runs etcd in the process of a test, and puts a faulty line before it. Only tests import it: a server is far
// larger than the sidecar.
package etcdtest
