package limit

// heapOf is a binary heap whose items know where they are, so that any of them can be moved or taken out.
type heapOf[T any] struct {
	items []T
	less  func(a, b T) bool
	index func(T) *int // where an item keeps its place
}

func (h *heapOf[T]) push(x T) {
	h.items = append(h.items, x)
	*h.index(x) = len(h.items) - 1
	h.up(len(h.items) - 1)
}

func (h *heapOf[T]) remove(x T) {
	i, last := *h.index(x), len(h.items)-1
	h.swap(i, last)
	var none T
	h.items[last] = none
	h.items = h.items[:last]
	if i < last {
		h.fix(h.items[i])
	}
}

// fix puts an item where it belongs after it has changed.
func (h *heapOf[T]) fix(x T) {
	h.up(*h.index(x))
	h.down(*h.index(x))
}

func (h *heapOf[T]) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !h.less(h.items[i], h.items[parent]) {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

func (h *heapOf[T]) down(i int) {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(h.items); child++ {
			if h.less(h.items[child], h.items[least]) {
				least = child
			}
		}
		if least == i {
			return
		}
		h.swap(i, least)
		i = least
	}
}

func (h *heapOf[T]) swap(i, j int) {
	h.items[i], h.items[j] = h.items[j], h.items[i]
	*h.index(h.items[i]), *h.index(h.items[j]) = i, j
}
