package admit

import (
	"fmt"
	"sync/atomic"

	"weir/limit"
	"weir/policy"
)

// limitKey is what a limit is adopted by.
type limitKey struct{ policy, name string }

// Limit is one rule of one policy: its terms, and what all of its tenants share. It belongs to one table; the shared bucket
// and the counters are adopted.
type Limit struct {
	rule   policy.LimitRule
	rate   *limit.Rate
	shared *limit.Bucket // only for `bucket: Shared`
	others *decisions    // of tenants without a label of their own
}

// Name returns the limit's name.
func (l *Limit) Name() string { return l.rule.Name }

// Policy returns the name of the policy that the limit stands in.
func (l *Limit) Policy() string { return l.rule.Policy }

func (l *Limit) key() limitKey { return limitKey{l.rule.Policy, l.rule.Name} }

// decisions counts what a limit said of requests, and the bytes that a limit in bytes let through.
type decisions struct{ allow, deny, shadowDeny, delay, shadowDelay, bytes atomic.Uint64 }

// buildLimits makes the limits of every policy, with the shared state of prev.
func buildLimits(prev *Table, snap *policy.Snapshot) (map[limitKey]*Limit, error) {
	limits := make(map[limitKey]*Limit)
	for i := range snap.Policies {
		for _, rule := range snap.Policies[i].Limits {
			rate, err := limit.NewRate(rule.Requests, rule.Per, rule.Burst)
			if err != nil {
				return nil, fmt.Errorf("cannot build limit %q of policy %q: %w", rule.Name, rule.Policy, err)
			}
			l := &Limit{rule: rule, rate: &rate, others: new(decisions)}
			old := prev.limit(l.key())
			if old != nil {
				l.others = old.others
			}
			switch {
			case rule.Bucket != policy.BucketShared:
			case old != nil && old.shared != nil && old.rule.Unit == rule.Unit: // a debt of bytes is none of requests
				l.shared = old.shared
			default:
				l.shared = limit.NewBucket(l.rate)
			}
			limits[l.key()] = l
		}
	}
	return limits, nil
}

// limit returns the limit of that key, nil when there is none, or no table.
func (t *Table) limit(k limitKey) *Limit {
	if t == nil {
		return nil
	}
	return t.limits[k]
}
