package etcd

import (
	"fmt"
	"strings"

	"weir/policy"
)

// Layout is where things lie below a prefix.
type Layout struct{ prefix string }

// LayoutAt lays things out below a prefix, as in /weir. Slashes at its end do not count.
func LayoutAt(prefix string) Layout { return Layout{strings.TrimRight(prefix, "/") + "/v1/"} }

// Policy is the prefix of all documents, and of [Layout.Change].
func (l Layout) Policy() string { return l.prefix + "policy/" }

// Document is the key of a document.
func (l Layout) Document(kind policy.Kind, name string) string {
	return l.Policy() + string(kind) + "/" + name
}

// Change is the key that says who changed documents last, and why. It is written together with them.
func (l Layout) Change() string { return l.Policy() + "change" }

// Sync is the key of a cluster that gets its documents from another one: it says from where, and who brings them.
func (l Layout) Sync() string { return l.prefix + "sync" }

// Fleet is the prefix of what the sidecars of a service say to each other.
func (l Layout) Fleet(service string) string { return l.prefix + "fleet/" + service + "/" }

// Fleets is the prefix of all services.
func (l Layout) Fleets() string { return l.prefix + "fleet/" }

// DocumentOf takes a key of a document apart. It fails for keys of another shape, which somebody must have written by hand.
func (l Layout) DocumentOf(key string) (kind policy.Kind, name string, err error) {
	rest, ok := strings.CutPrefix(key, l.Policy())
	k, n, two := strings.Cut(rest, "/")
	if !ok || !two || k == "" || n == "" || strings.Contains(n, "/") {
		return "", "", fmt.Errorf("the key %s is not of a document, want %sKIND/NAME", key, l.Policy())
	}
	return policy.Kind(k), n, nil
}
