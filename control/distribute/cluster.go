package distribute

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"weir/control/etcd"
	"weir/policy"
)

// inbox holds the latest that a cluster's goroutine has not looked at yet.
type inbox struct {
	wake chan struct{} // holds one token when there is something to look at

	mu      sync.Mutex
	catalog *catalog
	waiting time.Time // when the first catalog was seen since one was fetched; zero: there was none
	view    *etcd.View
	lost    error // why the cluster cannot be followed now
}

// post changes what is in the inbox and wakes the goroutine.
func (b *inbox) post(change func(*inbox)) {
	b.mu.Lock()
	change(b)
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default: // it will see ours with the others
	}
}

// offer replaces the catalog: what was not fetched is never brought anywhere.
func (b *inbox) offer(c *catalog) {
	b.post(func(b *inbox) {
		b.catalog = c
		if b.waiting.IsZero() {
			b.waiting = c.seen
		}
	})
}

// see replaces what the cluster has.
func (b *inbox) see(v etcd.View) { b.post(func(b *inbox) { b.view, b.lost = &v, nil }) }

// lose says that the cluster cannot be followed.
func (b *inbox) lose(err error) { b.post(func(b *inbox) { b.lost = err }) }

// cluster brings documents to one cluster. All but the inbox and the board belong to the goroutine of run.
type cluster struct {
	o       *Options
	rule    rule
	layout  etcd.Layout
	client  *etcd.Client
	logger  zerolog.Logger
	metrics clusterMetrics
	in      inbox
	board   board

	// What the cluster has, as far as we know.
	known    bool // there was a view
	have     map[string]etcd.Item
	revision int64
	change   etcd.Item // who changed documents last
	record   etcd.Item // who brings them
	ours     map[string]int64
	lost     error

	// What it should have.
	source    *catalog // the latest
	judged    *catalog // the one judged last
	want      *wanted  // the latest that may be brought there; nil: none yet
	held      string   // why the one judged last may not
	confirmed bool     // want takes many tenants away, and that is meant
	replaced  int64    // the source's revision when it was first seen to be another store than before; 0: it is not

	met     bool             // the record was read, and ours is what it says
	recalls bool             // documents that are gone are still to be recalled by the record
	holding bool             // the record is, or was, of a process that brings the same as this one
	yielded string           // who brings something else since then; we keep our hands off
	stale   bool             // a write may or may not have been done, so look again before the next
	told    map[string]int64 // drift that was counted, by the revision at which it was made
	behind  time.Time        // when the first change was seen that is not there yet; zero: all are
	pending []Difference     // what is not as it should be, and stays so: nothing is repaired, or written at all
	failure error            // of the latest try; nil: it did not fail
	tries   int              // that failed in a row
	until   time.Time        // before this no try is worth while
}

// run brings the latest to the cluster until ctx is done.
func (c *cluster) run(ctx context.Context) {
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.in.wake:
		case <-retry.C:
		}
		c.fetch()
		if c.source == nil || !c.known || c.o.Clock().Before(c.until) {
			c.show()
			continue
		}
		c.failure = c.step(ctx)
		if ctx.Err() != nil {
			return
		}
		if c.failure == nil {
			c.tries, c.until = 0, time.Time{}
			retry.Stop()
		} else {
			retry.Reset(c.patience())
		}
		c.show()
	}
}

// How long to wait after a try that failed. News of the cluster end the wait, unless it was the cluster that refused.
const (
	firstRetry  = 100 * time.Millisecond
	lastRetry   = 5 * time.Second
	lastRefused = 15 * time.Second
)

// patience is how long to wait before the next try: twice as long each time, give or take a half. Where our
// password may have changed since, it makes new connections.
func (c *cluster) patience() time.Duration {
	c.tries++
	most, refused := lastRetry, false
	switch etcd.CauseOf(c.failure) {
	case etcd.Login, etcd.Files:
		most, refused = lastRefused, true
		_ = c.client.Renew() // when that fails, so does the next try, and says why
	case etcd.Forbidden:
		most, refused = lastRefused, true
	case etcd.NoSpace:
		refused = true
	}
	wait := min(firstRetry<<min(c.tries-1, 10), most)
	wait = wait/2 + time.Duration(c.o.Random()*float64(wait))
	c.until = time.Time{}
	if refused {
		c.until = c.o.Clock().Add(wait)
	}
	return wait
}

// fetch takes over what is in the inbox.
func (c *cluster) fetch() {
	c.in.mu.Lock()
	catalog, waiting, view, lost := c.in.catalog, c.in.waiting, c.in.view, c.in.lost
	c.in.catalog, c.in.waiting, c.in.view = nil, time.Time{}, nil
	c.in.mu.Unlock()
	if catalog != nil {
		c.source = catalog
		if c.behind.IsZero() {
			c.behind = waiting
		}
	}
	c.lost = lost
	c.board.waits(c.behind)
	switch {
	case view == nil:
	case c.known && view.Revision < c.revision:
		c.stale = true // it was taken before our latest write, or the cluster was restored
	default:
		c.take(*view)
	}
}

// take takes over a view of the cluster's documents.
func (c *cluster) take(v etcd.View) {
	c.known, c.revision = true, v.Revision
	c.have = make(map[string]etcd.Item, len(v.Items))
	c.change = etcd.Item{}
	for _, item := range v.Items {
		if item.Key == c.layout.Change() {
			c.change = item
			continue
		}
		c.have[strings.TrimPrefix(item.Key, c.layout.Policy())] = item
	}
}

// meet reads who brings documents to the cluster, and what it has now. It finds out what of it is ours.
func (c *cluster) meet(ctx context.Context) error {
	records, err := c.client.Read(ctx, c.layout.Sync(), 0)
	if err != nil {
		return err
	}
	// As it was when the record was: what another process wrote since then has a record that we have not seen.
	view, err := c.client.Read(ctx, c.layout.Policy(), records.Revision)
	if err != nil {
		return err
	}
	if view.Revision < c.revision {
		c.met = false // it was restored: what we remember is of another time
	}
	c.take(view)
	item, there := records.Find(c.layout.Sync())
	newer := item.Modified != c.record.Modified
	c.record = item
	var r record
	if there {
		if r, err = parseRecord(item.Value); err != nil {
			c.logger.Warn().Err(err).Str("key", item.Key).Msg("the documents of the cluster count as somebody else's")
		}
	}
	switch {
	case !c.met:
		c.met, c.recalls, c.holding = true, c.distributed(), r.same(c.identity())
		switch {
		case c.recalls:
			c.ours = adopt(c.have, item.Modified)
		case c.o.TakeOver:
			c.ours = adopt(c.have, c.revision)
		default:
			c.ours = make(map[string]int64)
		}
	case newer && r.same(c.identity()):
		// A write of ours of which we did not hear, or another process that brings the same.
		for key, have := range c.have {
			if have.Modified == item.Modified {
				c.ours[key] = item.Modified
			}
		}
	case newer && there && c.holding:
		c.yielded = fmt.Sprintf("%s brings other documents here, as the distribution %s from %s says: stop one of the two", r.By, r.Distribution, r.Source)
		c.logger.Error().Str("by", r.By).Str("distribution", r.Distribution).Str("source", r.Source).
			Msg("another process brings other documents to the cluster; this one writes there no more until it is started again")
	}
	c.stale = false
	return nil
}

// identity is who we are, at the revision of what is wanted.
func (c *cluster) identity() record {
	r := record{Distribution: c.rule.distribution.Name, Rules: c.rule.digest(), Source: c.o.source(), By: c.o.By}
	if c.want != nil {
		r.Revision, r.Written = c.want.catalog.revision, c.want.catalog.written
	}
	return r
}

// distributed reports whether this distribution has brought documents to the cluster before.
func (c *cluster) distributed() bool {
	r, err := parseRecord(c.record.Value)
	return err == nil && r.Distribution == c.rule.distribution.Name
}

// decoded are the documents of some of what the cluster has.
func (c *cluster) decoded(chosen func(key string) bool) []*policy.Document {
	var docs []*policy.Document
	for key, item := range c.have {
		if !chosen(key) {
			continue
		}
		if doc, _ := decode(item, c.layout, c.rule.target().Name); doc != nil {
			docs = append(docs, doc)
		}
	}
	return docs
}
