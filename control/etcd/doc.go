// Package etcd reads and writes policy documents in an etcd cluster, 3.4 or newer.
//
// Documents lie below a prefix, one to a key, as the text that somebody wrote:
//
//	/weir/v1/policy/<kind>/<name>
//
// A [Client] is the connection, which follows rotated files. It reads below a prefix as it was at one revision, and
// writes only what nobody else has changed meanwhile. Nothing in this room is on the way of a request.
package etcd
