// Package control is the control plane of one sidecar: it turns what policy sources say into one applied
// [policy.Snapshot] after another, keeps the last good version of whatever breaks, and shows all of it on the admin port.
//
// The [Manager] is the only writer. One goroutine owns its state; sources hand their latest reading over and are never blocked;
// everybody else reads an immutable [Status]. What is in force is decided by a pure function of the readings and of what was in
// force before (resolve.go), so the same files give the same result, live or after a restart.
//
// The trade-off is to prefer an old answer to none: a document that breaks, a folder that vanishes, a removal that would leave a
// reference dangling and one that would lift many tenants' limits all leave the last good version in force, and say so in
// /policy/problems, one log line and a metric. Do not use the package where a broken source must stop the service.
//
// Sources are those of the command line, and behind them those that the Sidecar in force names; these come, go and are replaced while
// it runs.
//
// The package knows nothing of requests: what it hands to the data plane goes through one function, Options.Apply.
package control
