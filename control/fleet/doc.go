// Package fleet is what the sidecars of one service do together, by way of etcd.
//
// A sidecar that reads its policy from etcd joins the fleet of its service there. All that it writes lives by one lease, so that a
// sidecar that vanishes takes its traces along:
//
//	/weir/v1/fleet/<service>/members/<id>     who it is, and what it runs: the acknowledgement of a policy change
//	/weir/v1/fleet/<service>/coordinator      the one that was elected to look after all of them
//
// Reading is for everybody ([ReadMembers]), and so is judging what was read ([Judge], a pure function): who has applied a change, who has
// not and why, and who runs something else than etcd holds.
//
// Nothing here is on the way of a request, and nothing in a process waits for it. What the fleet asks of etcd is bounded whatever its
// size: every member writes at most once in members/500 seconds.
package fleet
