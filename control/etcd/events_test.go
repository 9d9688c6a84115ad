package etcd

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"pgregory.net/rapid"

	"weir/control/etcd/etcdtest"
)

// put and gone are events of a key without its prefix.
func put(key, value string, revision int64) event {
	return event{Item{Key: "/w/" + key, Value: []byte(value), Modified: revision}, false}
}

func gone(key string, revision int64) event {
	return event{Item{Key: "/w/" + key, Modified: revision}, true}
}

func viewOf(revision int64, events ...event) View {
	v, _ := View{}.with(events)
	v.Revision = revision
	return v
}

func TestEvents(t *testing.T) {
	start := viewOf(10, put("a", "1", 5), put("b", "1", 8))
	f := func(events []event, want string, revision int64, dropped bool) {
		t.Helper()
		next, d := start.with(events)
		if got := values(next); got != want || next.Revision != revision || d != dropped {
			t.Errorf("got %q at %d, dropped %v; want %q at %d, %v", got, next.Revision, d, want, revision, dropped)
		}
		if got := values(start); got != "a=1 b=1" || start.Revision != 10 {
			t.Errorf("the view before was changed to %q at %d", got, start.Revision)
		}
	}
	// Nothing.
	f(nil, "a=1 b=1", 10, false)
	// A change, a new key, a deletion.
	f([]event{put("a", "2", 11), put("c", "1", 12), gone("b", 13)}, "a=2 c=1", 13, false)
	// Several in one transaction.
	f([]event{put("a", "2", 11), put("b", "2", 11)}, "a=2 b=2", 11, false)
	// A deletion of what is not there.
	f([]event{gone("z", 11)}, "a=1 b=1", 11, false)
	// Out of order: the latest counts.
	f([]event{put("a", "3", 13), put("a", "2", 12), gone("a", 11)}, "a=3 b=1", 13, false)
	f([]event{gone("b", 12), put("b", "2", 11)}, "a=1", 12, false)
	// Twice.
	f([]event{put("a", "2", 11), put("a", "2", 11)}, "a=2 b=1", 11, false)
	// What is known already comes again.
	f([]event{put("b", "1", 8)}, "a=1 b=1", 10, false)
	// So does what has been replaced since.
	f([]event{put("b", "0", 3)}, "a=1 b=1", 10, false)
	// And an old deletion of what is not there.
	f([]event{gone("c", 9)}, "a=1 b=1", 10, false)
	// What comes too late, and is not known, is not applied out of turn; a list has to tell.
	f([]event{put("a", "2", 9)}, "a=1 b=1", 10, true)
	f([]event{gone("a", 9)}, "a=1 b=1", 10, true)
	f([]event{put("c", "1", 9)}, "a=1 b=1", 10, true)
	// The view has all of its own revision, too.
	f([]event{put("c", "1", 10)}, "a=1 b=1", 10, true)
	// Late ones do not keep new ones from counting.
	f([]event{put("b", "1", 8), put("a", "2", 11)}, "a=2 b=1", 11, false)
}

// A transaction that comes in fragments is seen whole or not at all.
func TestFragments(t *testing.T) {
	answer := func(fragment bool, keys ...string) *pb.WatchResponse {
		a := &pb.WatchResponse{Fragment: fragment}
		for _, key := range keys {
			a.Events = append(a.Events, &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: []byte("/w/" + key), Value: []byte("1"), ModRevision: 11}})
		}
		return a
	}
	var box inbox
	f := func(a *pb.WatchResponse, want string) {
		t.Helper()
		box.add(a)
		next, _ := View{Revision: 10}.with(box.take())
		if got := values(next); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	f(answer(true, "a", "b"), "")
	f(answer(true, "c"), "")
	f(answer(false, "d"), "a=1 b=1 c=1 d=1")
	// The next one is on its own again.
	f(answer(false, "e"), "e=1")
	// Several whole answers are taken together.
	box.add(answer(false, "a"))
	f(answer(false, "b"), "a=1 b=1")
	// What is whole does not wait for what is not.
	box.add(answer(false, "a"))
	f(answer(true, "b"), "a=1")
}

func TestDifferences(t *testing.T) {
	f := func(a, b View, want ...string) {
		t.Helper()
		if got := a.differences(b); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if got := b.differences(a); !slices.Equal(got, want) {
			t.Errorf("the other way round: got %v, want %v", got, want)
		}
	}
	f(View{}, View{})
	f(viewOf(9, put("a", "1", 5)), viewOf(7, put("a", "1", 5)))
	f(View{}, viewOf(1, put("a", "1", 1)), "/w/a")
	f(viewOf(1, put("a", "1", 1), put("c", "1", 1)), viewOf(1, put("b", "1", 1), put("c", "1", 1)), "/w/a", "/w/b")
	// The same revision with another value, and the same value at another revision.
	f(viewOf(1, put("a", "1", 1)), viewOf(1, put("a", "2", 1)), "/w/a")
	f(viewOf(1, put("a", "1", 1)), viewOf(1, put("a", "1", 2)), "/w/a")
}

// However a watch cuts, repeats and shuffles a history, the copy ends as the history does, or says that it may have missed something.
// A watch that keeps the order of revisions, as etcd promises, ends as the history does in any case.
func TestAnyHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var history []event
		truth := make(map[string]event)
		for revision := range rapid.Int64Range(1, 12).Draw(t, "revisions") {
			revision++
			for _, key := range rapid.SliceOfNDistinct(rapid.StringMatching("[a-d]"), 1, 3, rapid.ID).Draw(t, "keys") {
				e := put(key, fmt.Sprint(revision), revision)
				if rapid.Bool().Draw(t, "gone") {
					e = gone(key, revision)
				}
				history = append(history, e)
				truth[key] = e
			}
		}
		maps.DeleteFunc(truth, func(_ string, e event) bool { return e.gone })
		want := viewOf(0, slices.Collect(maps.Values(truth))...)

		ordered := rapid.Bool().Draw(t, "ordered")
		var told []event
		for _, e := range history {
			for range rapid.IntRange(1, 2).Draw(t, "times") {
				told = append(told, e)
			}
		}
		if told = append(told, history...); !ordered {
			told = rapid.Permutation(told).Draw(t, "order")
		} else {
			slices.SortStableFunc(told[:len(told)-len(history)], func(a, b event) int { return cmp.Compare(a.Modified, b.Modified) })
		}
		var view View
		missed := false
		for len(told) > 0 {
			// A watch may cut where it likes but within a revision.
			n := rapid.IntRange(1, len(told)).Draw(t, "batch")
			for ordered && n < len(told) && told[n].Modified == told[n-1].Modified {
				n++
			}
			next, dropped := view.with(told[:n])
			if next.Revision < view.Revision {
				t.Fatalf("the revision went from %d back to %d", view.Revision, next.Revision)
			}
			if !slices.IsSortedFunc(next.Items, func(a, b Item) int { return cmp.Compare(a.Key, b.Key) }) {
				t.Fatalf("not sorted: %q", values(next))
			}
			view, missed, told = next, missed || dropped, told[n:]
		}
		if got := view.differences(want); len(got) > 0 && (ordered || !missed) {
			t.Fatalf("got %q, want %q, and nobody noticed", values(view), values(want))
		}
	})
}

func TestBackoff(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		spread := rapid.Int64Range(1, 1e9).Draw(t, "spread")
		most := rapid.Int64Range(1, 1e11).Draw(t, "most")
		var b backoff
		first := b.next(time.Duration(spread), time.Duration(most), rapid.Float64Range(0, 0.999999).Draw(t, "random"))
		if first < 0 || first > time.Duration(min(spread, most)) {
			t.Fatalf("the first wait is %s, want up to %s", first, time.Duration(min(spread, most)))
		}
		for range 10 {
			random := rapid.Float64Range(0, 0.999999).Draw(t, "random")
			if wait := b.next(time.Duration(spread), time.Duration(most), random); wait < min(time.Duration(spread)/2, time.Duration(most)) || wait > time.Duration(most) {
				t.Fatalf("a wait of %s, want from %s to %s", wait, time.Duration(spread)/2, time.Duration(most))
			}
		}
	})
}

// A watch that has lived for a while begins its waits anew; one that ends at once, again and again, waits longer.
func TestBackoffStartsAnew(t *testing.T) {
	f := func(lived, want time.Duration) {
		t.Helper()
		now := time.Unix(1_700_000_000, 0)
		c := &course{
			Follower: NewFollower(FollowerOptions{Clock: func() time.Time { return now }, Random: func() float64 { return 0.5 }}),
			failed:   func(error) {}, opened: now, backoff: backoff{last: time.Minute},
		}
		now = now.Add(lived)
		if got := c.broken(nil, io.EOF); got != want {
			t.Errorf("a watch that has lived for %s: waits %s, want %s", lived, got, want)
		}
	}
	f(settled-1, 625*time.Millisecond) // the middle from 250 ms to a second
	f(settled, 250*time.Millisecond)   // the middle of the spread
	// A copy is made anew: by one who was asked to, at once; by many who find the same, spread.
	anew := func(cause Cause, want time.Duration) {
		t.Helper()
		c := &course{Follower: NewFollower(FollowerOptions{Random: func() float64 { return 0.5 }}), known: true}
		if got := c.broken(nil, &causeError{cause, "so it is"}); got != want || c.known {
			t.Errorf("%s: waits %s, want %s; goes on from the copy: %v", cause, got, want, c.known)
		}
	}
	anew(Asked, 0)
	anew(Compacted, 250*time.Millisecond)
	anew(Restored, 250*time.Millisecond)
	anew(Drift, 250*time.Millisecond)
}

// A comparison moves the copy along only if that is still what was compared: events that came meanwhile may be half of what there is.
func TestComparisonMovesTheCopyAlong(t *testing.T) {
	f := func(compared, now, upTo, want int64) {
		t.Helper()
		c := &tail{course: &course{Follower: NewFollower(FollowerOptions{}), view: View{Revision: now}}}
		if err := c.judge(verdict{view: View{Revision: compared}, upTo: upTo}); err != nil || c.view.Revision != want {
			t.Errorf("a copy of %d compared at %d, now of %d: got %d, %v, want %d", compared, upTo, now, c.view.Revision, err, want)
		}
	}
	f(10, 10, 20, 20)
	f(10, 12, 20, 12)
	f(10, 10, 0, 10)
	// One that could not be made ends the watch only where the watch would not hear of the reason.
	ends := func(err error, want bool) {
		t.Helper()
		c := &tail{course: &course{Follower: NewFollower(FollowerOptions{})}}
		if got := c.judge(verdict{err: err}); (got != nil) != want {
			t.Errorf("a comparison that failed by %v: got %v", err, got)
		}
	}
	ends(context.DeadlineExceeded, false)
	ends(rpctypes.ErrPermissionDenied, true)
	ends(rpctypes.ErrCompacted, true)
}

// What is on its way is no drift: the copy is compared with the store as it was.
func TestComparisonWithEventsOnTheirWay(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.Start(t, etcdtest.Options{})
	c := open(t, Options{Endpoints: cluster.Endpoints()})
	cluster.Put("/w/a", "1")
	view, err := c.Read(t.Context(), "/w/", 0)
	if err != nil {
		t.Fatal(err)
	}
	f := func(view View, want string) {
		t.Helper()
		v := compare(t.Context(), c, "/w/", view)
		if got := fmt.Sprint(v.keys, v.upTo-view.Revision, v.err); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	f(view, "[] 0 <nil>")
	cluster.Put("/x", "elsewhere")
	f(view, "[] 1 <nil>")
	cluster.Put("/w/a", "2")
	f(view, fmt.Sprintf("[] %d <nil>", -view.Revision)) // it is complete up to what it was, and nobody knows more
	f(View{Revision: view.Revision}, fmt.Sprintf("[/w/a] %d <nil>", -view.Revision))
}

// Only progress of the watch itself, with nothing on its way, says that the copy is complete.
func TestProgress(t *testing.T) {
	f := func(want int64, answers ...*pb.WatchResponse) {
		t.Helper()
		c := &tail{course: &course{Follower: NewFollower(FollowerOptions{}), view: View{Revision: 10}}, id: 3}
		waiting := make(chan message, len(answers))
		for _, a := range answers[1:] {
			waiting <- message{answer: a}
		}
		if err := c.take(message{answer: answers[0]}, waiting); err != nil || c.view.Revision != want {
			t.Errorf("complete up to %d, %v, want %d", c.view.Revision, err, want)
		}
	}
	progress := func(id, revision int64) *pb.WatchResponse {
		return &pb.WatchResponse{Header: &pb.ResponseHeader{Revision: revision}, WatchId: id}
	}
	change := &pb.WatchResponse{Header: &pb.ResponseHeader{Revision: 11}, WatchId: 3, Fragment: true,
		Events: []*mvccpb.Event{{Kv: &mvccpb.KeyValue{Key: []byte("/w/a"), ModRevision: 11}}}}
	f(20, progress(3, 20))
	f(10, progress(3, 9))
	f(10, progress(-1, 20)) // of all watches of a stream, before all of their events
	f(10, change, progress(3, 20))
}
