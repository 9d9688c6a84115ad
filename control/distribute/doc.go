// Package distribute keeps the documents of many etcd clusters equal to those of one, as a Distribution says.
//
// The source is followed once, and each cluster by a goroutine of its own that shares nothing with the others' but the latest
// catalog of the source: one that is down, slow, full or closed to us holds up none of them. What a cluster should have, how that
// differs from what it has, and whose doing that is are pure functions; a cluster's goroutine only asks them and writes.
//
// Nothing is remembered outside of etcd. A record beside the documents of a cluster, written with them, says which distribution
// they are of; what was written after it was written by somebody else.
package distribute
