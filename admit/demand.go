package admit

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// ways is how many tenants with like hashes can have a cell at once.
	ways = 16
	// stripes is how many locks guard changes; requests of tenants that have a cell take none.
	stripes = 64
	// bucketsPerCell bounds the memory behind the cells: together they have no more than so many buckets each on average.
	bucketsPerCell = 8
	// lookAgain is how long a set that had no room is taken to have none, at most. Its cells are not looked at meanwhile, or a
	// flood would buy a look at all of them with every request.
	lookAgain = int64(100 * time.Millisecond)
)

// demandTable holds the cells of tenants that policy covers without naming. Its size is fixed: 16-way sets, found by a
// seeded hash, so that nobody can aim at one. Only a cell at rest, with full buckets and nothing in flight, may give its
// place to another, since forgetting it changes nothing: rotating names gains no tokens, and no flood resets a victim. Where
// no cell of a set is at rest, newcomers share one overflow cell until one is.
//
// Looking up takes no lock. The table is shared by the tables of successive snapshots: a cell is brought under the one that
// asks for it.
type demandTable struct {
	seed    maphash.Seed
	sets    []demandSet
	locks   [stripes]sync.Mutex // by set
	cells   atomic.Int64        // taken
	buckets atomic.Int64        // of all cells

	mu       sync.Mutex
	overflow map[string]*Tenant // by plan.key
}

// demandSet keeps the hashes beside the cells, so that a look-up touches only the cell it finds.
type demandSet struct {
	tags  [ways]atomic.Uint32 // upper half of the hash, never 0 when the way is taken
	cells [ways]atomic.Pointer[Tenant]
	full  atomic.Int64 // until when the set is taken to have no room
}

func newDemandTable(capacity int) *demandTable {
	return &demandTable{
		seed:     maphash.MakeSeed(),
		sets:     make([]demandSet, (capacity+ways-1)/ways),
		overflow: make(map[string]*Tenant),
	}
}

func (d *demandTable) capacity() int { return len(d.sets) * ways }

// find returns the set and the tag of a name.
func (d *demandTable) find(name string) (set int, tag uint32) {
	h := maphash.String(d.seed, name)
	return int(h % uint64(len(d.sets))), uint32(h>>32) | 1
}

// peek returns a tenant's cell, under whatever table it was last; nil when it has none.
func (d *demandTable) peek(name string) *Tenant {
	set, tag := d.find(name)
	tn, _ := d.sets[set].get(tag, name)
	return tn
}

func (s *demandSet) get(tag uint32, name string) (tn *Tenant, way int) {
	for i := range s.tags {
		if s.tags[i].Load() != tag {
			continue
		}
		if tn := s.cells[i].Load(); tn != nil && tn.name == name {
			return tn, i
		}
	}
	return nil, -1
}

// get returns the cell of a tenant under table t, nil when it has none.
func (d *demandTable) get(t *Table, now int64, name string) *Tenant {
	set, tag := d.find(name)
	tn, _ := d.sets[set].get(tag, name)
	if tn == nil || tn.plan.generation == t.generation {
		return tn
	}
	p := t.planOfUnnamed(name)
	if p == nil {
		return nil // unknown by now
	}
	lock := &d.locks[set%stripes]
	lock.Lock()
	defer lock.Unlock()
	return d.bring(t, p, now, set, tag, name)
}

// bring returns the cell of a tenant after making it one of t's; nil when it has none. The set is locked.
//
// Changed rates hold from the time t was adopted, whenever that is noticed: nobody has spent in between. (Rates of tables
// between, under which the tenant never came, are passed over.) A request that still runs on an older table gets a cell of
// its own over the same buckets, and leaves their rates alone.
func (d *demandTable) bring(t *Table, p *plan, now int64, set int, tag uint32, name string) *Tenant {
	old, way := d.sets[set].get(tag, name)
	if old == nil || old.plan.generation == t.generation {
		return old
	}
	tn := t.newTenant(old.name, p, old)
	if old.plan.generation > t.generation {
		return tn
	}
	tn.restate(t.changed(now))
	d.sets[set].cells[way].Store(tn)
	d.buckets.Add(int64(len(p.slots) - len(old.plan.slots)))
	return tn
}

// add returns the cell of a tenant under table t, made if need be; nil when there is no room for it.
func (d *demandTable) add(t *Table, p *plan, now int64, name string) *Tenant {
	set, tag := d.find(name)
	if now < d.sets[set].full.Load() {
		return nil
	}
	lock := &d.locks[set%stripes]
	lock.Lock()
	defer lock.Unlock()
	if tn := d.bring(t, p, now, set, tag, name); tn != nil {
		return tn // another request was first
	}
	way := d.makeRoom(set, len(p.slots), now)
	if way < 0 {
		return nil
	}
	tn := t.newTenant(strings.Clone(name), p, t.released[name])
	tn.seat.evicted.Store(false) // a released cell may have been here before
	tn.restate(t.changed(now))
	d.cells.Add(1)
	d.buckets.Add(int64(len(p.slots)))
	d.sets[set].tags[way].Store(tag)
	d.sets[set].cells[way].Store(tn)
	return tn
}

// makeRoom returns a free way for a cell with so many buckets, after evicting a cell at rest if need be; -1 when there
// is no room, and is taken to be none until a cell can be at rest. The set is locked.
func (d *demandTable) makeRoom(set, buckets int, now int64) int {
	s := &d.sets[set]
	room := int64(d.capacity())*bucketsPerCell - d.buckets.Load() - int64(buckets)
	for i := range s.cells {
		if room >= 0 && s.cells[i].Load() == nil {
			return i
		}
	}
	full := now + lookAgain
	for i := range s.cells {
		tn := s.cells[i].Load()
		if tn == nil || room+int64(len(tn.plan.slots)) < 0 {
			continue
		}
		if tn.evict(now) {
			s.cells[i].Store(nil)
			d.cells.Add(-1)
			d.buckets.Add(-int64(len(tn.plan.slots)))
			return i
		}
		if tn.seat.gate.InFlight() == 0 {
			full = min(full, now+int64(tn.fullIn(now)))
		}
	}
	s.full.Store(full)
	return -1
}

// hasRoom says whether add would find room.
func (d *demandTable) hasRoom(set, buckets int, now int64) bool {
	s := &d.sets[set]
	if now < s.full.Load() {
		return false
	}
	room := int64(d.capacity())*bucketsPerCell - d.buckets.Load() - int64(buckets)
	for i := range s.cells {
		tn := s.cells[i].Load()
		if tn == nil && room >= 0 || tn != nil && room+int64(len(tn.plan.slots)) >= 0 && tn.atRest(now) {
			return true
		}
	}
	return false
}

// evict says whether the cell may be forgotten. If so, a request that found it before will look again.
func (tn *Tenant) evict(now int64) bool {
	if !tn.atRest(now) {
		return false
	}
	tn.seat.evicted.Store(true)
	if tn.atRest(now) {
		return true
	}
	tn.seat.evicted.Store(false)
	return false
}

// overflowOf returns the one cell that tenants of a plan share while there is no room for them.
func (d *demandTable) overflowOf(t *Table, p *plan, now int64) *Tenant {
	if tn := p.overflow.Load(); tn != nil {
		return tn
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if tn := p.overflow.Load(); tn != nil {
		return tn
	}
	old := d.overflow[p.key]
	tn := t.newTenant("", p, old)
	if old == nil || old.plan.generation < t.generation {
		tn.restate(t.changed(now))
		d.overflow[p.key] = tn
	}
	p.overflow.Store(tn)
	return tn
}

// prune forgets the overflow cells of plans that are no more.
func (d *demandTable) prune(t *Table, now int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for key, tn := range d.overflow {
		if tn.plan.generation+1 < t.generation && tn.atRest(now) {
			delete(d.overflow, key)
		}
	}
}

// state counts cells. Overflow cells are in use while they are not at rest.
func (d *demandTable) state(now int64) DemandState {
	s := DemandState{Cells: int(d.cells.Load()), Capacity: d.capacity()}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, tn := range d.overflow {
		if !tn.atRest(now) {
			s.Overflow++
		}
	}
	return s
}

// each calls f with every cell that is not named by t, overflow cells included. It is for scraping: it walks the table.
func (d *demandTable) each(t *Table, f func(*Tenant)) {
	for i := range d.sets {
		for j := range d.sets[i].cells {
			if tn := d.sets[i].cells[j].Load(); tn != nil && t.named[tn.name] == nil {
				f(tn)
			}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, tn := range d.overflow {
		f(tn)
	}
}
