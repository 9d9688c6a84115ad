// Package certs keeps the TLS of listeners and backends: key pairs and authorities from files, followed as they are rotated.
//
// # Contract
//
// A [Set] holds what the listeners and backends of one snapshot need. [Build] reads every file that is new and fails with an error
// that names the file, what is wrong with it and the way out; it changes nothing. What had the same settings before is adopted as
// it is, so that a reference to a [Server] or [Client] stays good as long as its settings do.
//
// [Set.Reload] reads all files again, and [Follow] does so every [Interval]. Changed files that are good are in force for the next
// handshake; changed files that are not are logged and counted, and what was read last goes on. A connection that is open is never
// touched. Handshakes take one atomic load to find what is in force, and never wait for a file.
//
// # Trade-off
//
// Files are read and compared whole, instead of being watched: a few kilobytes every two seconds cost less than they are worth
// talking about, and it does not matter how a file was replaced - in place, by a rename, or by a link that turned, as in Kubernetes -
// nor on which file system. A pair that is replaced file by file fits again at the next look.
//
// # When not to use it
//
// It knows neither sockets nor HTTP, serves one certificate for each listener, and asks nobody whether a certificate was revoked.
package certs
