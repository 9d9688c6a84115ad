package etcd

import (
	"slices"

	"weir/policy"
)

// partBytes is how much one transaction writes at most: etcd takes requests of 1.5 MiB by default.
const partBytes = 1 << 20

// InParts cuts writes into transactions, in their order and as few as possible. Each leaves room for so many more keys: the records that are
// written with it. bytes is the size of one write. There are no parts of nothing.
func InParts[T any](all []T, room int, bytes func(T) int) [][]T {
	var parts [][]T
	size := 0
	for _, w := range all {
		n := bytes(w)
		if last := len(parts) - 1; last >= 0 && len(parts[last]) < MaxWrites-room && size+n <= partBytes {
			parts[last], size = append(parts[last], w), size+n
			continue
		}
		parts, size = append(parts, []T{w}), n
	}
	return parts
}

// Rank is when a document is written among others, so that no part of a change leaves a reference without its document: what others refer
// to is put first, and deletions come after all that is put, the other way round.
func Rank(kind policy.Kind, deleted bool) int {
	order := []policy.Kind{
		policy.KindBackend, policy.KindRoute, policy.KindBreakerPolicy, policy.KindTenantPolicy, policy.KindSidecar,
	}
	rank := slices.Index(order, kind)
	if rank < 0 {
		rank = len(order)
	}
	if deleted {
		return 2*len(order) + 1 - rank
	}
	return rank
}
