// Package care looks after an etcd cluster: it finds out how the members are and what this machine and its user may expect of
// them, judges that, and defragments them one at a time.
//
// It keeps facts and judgements apart. [Examine] and [Ask] gather facts over the network, in bounded time, however broken the
// cluster is: what could not be found out is a fact, too. Judgements are pure functions of facts ([Facts.Findings], [PlanDefrag]), so
// every threshold is tested without a cluster.
//
// # When not to use it
//
// On the way of a request, or in every sidecar of a fleet: the members are asked one by one. [Monitor] is for the one sidecar that
// coordinates the others.
package care
