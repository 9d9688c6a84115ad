package fleet

import (
	"context"
	"strings"

	"weir/control/etcd"
	"weir/policy"
)

// ReadMembers reads who is there: the members of one service, or of all when it is empty, sorted by service and ID. The revision is the
// store's at that time.
func ReadMembers(ctx context.Context, c *etcd.Client, layout etcd.Layout, service string) ([]Member, int64, error) {
	prefix := layout.Fleets()
	if service != "" {
		prefix = membersPrefix(layout, service)
	}
	view, err := c.Read(ctx, prefix, 0)
	if err != nil {
		return nil, 0, err
	}
	return membersOf(layout, view), view.Revision, nil
}

// membersOf are the members in a view of the fleets, or of a part of them. Other keys are passed over.
func membersOf(layout etcd.Layout, view etcd.View) []Member {
	var members []Member
	for _, item := range view.Items {
		if service, id, ok := memberOf(layout, item.Key); ok {
			members = append(members, decodeMember(id, service, item.Value))
		}
	}
	return members
}

func membersPrefix(layout etcd.Layout, service string) string {
	return layout.Fleet(service) + "members/"
}

func coordinatorKey(layout etcd.Layout, service string) string {
	return layout.Fleet(service) + "coordinator"
}

// memberOf takes the key of a member's record apart.
func memberOf(layout etcd.Layout, key string) (service, id string, ok bool) {
	rest, ok := strings.CutPrefix(key, layout.Fleets())
	service, rest, two := strings.Cut(rest, "/")
	id, three := strings.CutPrefix(rest, "members/")
	return service, id, ok && two && three && service != "" && id != "" && !strings.Contains(id, "/")
}

// Want is what the members of a fleet should have in force.
type Want struct {
	// Revision is the store's at which the documents were changed last, and At the one up to which nothing is missing here: of a member
	// that has applied a later one it cannot be said whether it runs what it should.
	Revision, At int64
	// Documents are those that the store has; nil leaves open what they are.
	Documents []WantedDocument
	prints    Prints // of Documents
}

// WantedDocument is one document by its fingerprint.
type WantedDocument struct {
	Kind  policy.Kind
	Name  string
	group int
	print uint32
}

// WantOf is what a view of [etcd.Layout.Policy] asks for. A deletion by hand, which no change records, leaves no trace of its revision: a
// member that has not seen it yet looks as if it had drifted.
func WantOf(layout etcd.Layout, view etcd.View) Want {
	want := Want{At: view.Revision, Documents: []WantedDocument{}}
	for _, item := range view.Items {
		want.Revision = max(want.Revision, item.Modified)
		kind, name, err := layout.DocumentOf(item.Key)
		if err != nil || !compared(kind) {
			continue
		}
		d := WantedDocument{kind, name, groupOf(kind, name), printOf(kind, name, string(item.Value))}
		want.Documents = append(want.Documents, d)
		want.prints[d.group] ^= d.print
	}
	return want
}

// find returns the document of that kind and name, or nil.
func (w *Want) find(kind policy.Kind, name string) *WantedDocument {
	for i := range w.Documents {
		if d := &w.Documents[i]; d.Name == name && d.Kind == kind {
			return d
		}
	}
	return nil
}

// compared reports whether documents of a kind are for all members alike. A Sidecar describes one process, and tests and
// distributions are nothing that could be in force.
func compared(kind policy.Kind) bool {
	return kind != policy.KindSidecar && !kind.PassedOver()
}

// ReadWant reads what the members that read from here should have in force.
func ReadWant(ctx context.Context, c *etcd.Client, layout etcd.Layout) (Want, error) {
	view, err := c.Read(ctx, layout.Policy(), 0)
	if err != nil {
		return Want{}, err
	}
	return WantOf(layout, view), nil
}
