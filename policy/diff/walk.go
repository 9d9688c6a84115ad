package diff

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"weir/policy"
)

// walker goes through two values of one type side by side, and notes what differs.
type walker struct {
	subject string
	who     policy.TenantSelector // whom a TenantPolicy is for; zero in other kinds
	found   []Difference
}

// place is where a value stands.
type place struct {
	path string
	head string // words for the item of a list that it is in, as in limit steady; empty: none
	rest string // the path below that item
}

func (p place) field(name string) place {
	p.path += "." + name
	if p.head != "" {
		p.rest = strings.TrimPrefix(p.rest+"."+name, ".")
	}
	return p
}

// item is the place of an item with a name of its own.
func (p place) item(key string) place {
	head := singular(p.path[strings.LastIndexByte(p.path, '.')+1:]) + " " + plain(key)
	if words := p.words(); p.head != "" {
		head = words + " " + plain(key)
	}
	return place{path: p.path + "[" + plain(key) + "]", head: head}
}

// index is the place of an item that has nothing but its position.
func (p place) index(i int) place {
	at := "[" + strconv.Itoa(i) + "]"
	p.path += at
	if p.head != "" {
		p.rest += at
	}
	return p
}

// words is how sentences call the place: an item with its field, a field of the spec by its name, all others by path.
func (p place) words() string {
	if p.head != "" {
		return strings.TrimSuffix(p.head+" "+p.rest, " ")
	}
	if name, ok := strings.CutPrefix(p.path, "spec."); ok && !strings.ContainsAny(name, ".[") {
		return name
	}
	return p.path
}

// singular is what one item of a list is called.
func singular(list string) string {
	if stem, ok := strings.CutSuffix(list, "ies"); ok {
		return stem + "y"
	}
	return strings.TrimSuffix(list, "s")
}

// note adds a difference whose sentence begins with the document.
func (w *walker) note(at place, before, after, format string, args ...any) {
	w.found = append(w.found, Difference{
		Path: at.path, Text: w.subject + ": " + fmt.Sprintf(format, args...), Before: before, After: after,
	})
}

// fields compares two structs, but for the fields that are to be passed over since the caller has words for them.
func (w *walker) fields(at place, a, b reflect.Value, except ...string) {
	for _, f := range policy.Fields(a.Type()) {
		if slices.Contains(except, f.GoName) {
			continue
		}
		w.value(at.field(f.Name), a.Field(f.Index), b.Field(f.Index))
	}
}

// value compares two values of one type, in the words of that type where it has some.
func (w *walker) value(at place, a, b reflect.Value) {
	switch before := a.Interface().(type) {
	case policy.TenantSelector:
		w.tenants(at, before, b.Interface().(policy.TenantSelector))
		return
	case policy.Limit:
		after := b.Interface().(policy.Limit)
		w.rate(at, &before, &after)
		w.fields(at, a, b, "Requests", "Bytes", "Per", "Burst")
		return
	}
	t := a.Type()
	switch {
	case t.Kind() == reflect.Pointer:
		w.pointer(at, a, b)
	case isStruct(t):
		w.fields(at, a, b)
	case t.Kind() == reflect.Slice && isStruct(t.Elem()):
		w.list(at, a, b)
	case t.Kind() == reflect.Slice:
		w.scalars(at, a, b)
	case t.Kind() == reflect.Map:
		w.pairs(at, a.Interface().(map[string]string), b.Interface().(map[string]string))
	case text(a) != text(b):
		w.replaced(at, text(a), text(b), at.words()+" "+written(a), written(b))
	}
}

// replaced notes one value in the place of another. Long values may look the same once they are cut.
func (w *walker) replaced(at place, before, after, was, is string) {
	further := ""
	if strings.HasSuffix(was, is) {
		further = fmt.Sprintf(" (they differ further on, in %d and %d bytes)", len(before), len(after))
	}
	w.note(at, before, after, "%s → %s%s", was, is, further)
}

func (w *walker) pointer(at place, a, b reflect.Value) {
	switch {
	case !a.IsNil() && !b.IsNil():
		w.value(at, a.Elem(), b.Elem())
	case a.IsNil() && b.IsNil():
	case isStruct(a.Type().Elem()) && a.IsNil():
		w.note(at, "", written(b.Elem()), "%s added %s", at.words(), written(b.Elem()))
	case isStruct(a.Type().Elem()):
		w.note(at, written(a.Elem()), "", "%s removed", at.words())
	case a.IsNil():
		w.note(at, "", text(b.Elem()), "%s not set → %s", at.words(), written(b.Elem()))
	default:
		w.note(at, text(a.Elem()), "", "%s %s → not set", at.words(), written(a.Elem()))
	}
}

// scalars compares lists of single values, whose order says nothing.
func (w *walker) scalars(at place, a, b reflect.Value) {
	before, after := texts(a), texts(b)
	if slices.Equal(before, after) {
		return
	}
	removed, added := subtract(before, after), subtract(after, before)
	var words []string
	if len(added) > 0 {
		words = append(words, "added "+listed(added))
	}
	if len(removed) > 0 {
		words = append(words, "removed "+listed(removed))
	}
	if len(words) == 0 {
		words = append(words, "in another order")
	}
	w.note(at, strings.Join(before, ", "), strings.Join(after, ", "), "%s %s", at.words(), strings.Join(words, ", "))
}

func (w *walker) pairs(at place, before, after map[string]string) {
	keys := maps.Clone(before)
	if keys == nil {
		keys = make(map[string]string)
	}
	maps.Copy(keys, after)
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		was, had := before[key]
		is, has := after[key]
		at := place{path: at.path + "[" + plain(key) + "]", head: at.words() + " " + plain(key)}
		switch {
		case !had:
			w.note(at, "", is, "%s added %s", at.words(), quoted(is))
		case !has:
			w.note(at, was, "", "%s removed", at.words())
		case was != is:
			w.replaced(at, was, is, at.words()+" "+quoted(was), quoted(is))
		}
	}
}

// list compares lists of structs: by the names of their items where these have some, and else by position.
func (w *walker) list(at place, a, b reflect.Value) {
	before, byName := keys(a)
	after, alsoByName := keys(b)
	if !byName || !alsoByName {
		w.positions(at, a, b)
		return
	}
	for i, key := range before {
		if !slices.Contains(after, key) {
			w.removed(at.item(key), a.Index(i))
		}
	}
	for i, key := range after {
		j := slices.Index(before, key)
		if j < 0 {
			w.added(at.item(key), b.Index(i))
			continue
		}
		w.value(at.item(key), a.Index(j), b.Index(i))
	}
	stayed := func(all, others []string) []string {
		return slices.DeleteFunc(slices.Clone(all), func(k string) bool { return !slices.Contains(others, k) })
	}
	if !slices.Equal(stayed(before, after), stayed(after, before)) {
		w.note(at, strings.Join(before, ", "), strings.Join(after, ", "), "%s in another order", at.words())
	}
}

// positions compares what is left of two lists once the items at both ends that are alike are gone.
func (w *walker) positions(at place, a, b reflect.Value) {
	alike := func(i, j int) bool { return reflect.DeepEqual(a.Index(i).Interface(), b.Index(j).Interface()) }
	first, endA, endB := 0, a.Len(), b.Len()
	for first < min(endA, endB) && alike(first, first) {
		first++
	}
	for endA > first && endB > first && alike(endA-1, endB-1) {
		endA, endB = endA-1, endB-1
	}
	for i := first; i < max(endA, endB); i++ {
		switch {
		case i >= endA:
			w.added(at.index(i), b.Index(i))
		case i >= endB:
			w.removed(at.index(i), a.Index(i))
		default:
			w.value(at.index(i), a.Index(i), b.Index(i))
		}
	}
}

func (w *walker) added(at place, v reflect.Value) {
	words := written(v)
	if l, ok := v.Interface().(policy.Limit); ok {
		words = limitWords(&l) + ", " + tenantWords(w.who)
	}
	w.note(at, "", words, "%s added %s", at.words(), words)
}

func (w *walker) removed(at place, v reflect.Value) {
	words := written(v)
	if l, ok := v.Interface().(policy.Limit); ok {
		words = limitWords(&l)
	}
	w.note(at, words, "", "%s removed, it was %s", at.words(), words)
}

// naming are the fields that tell the items of a list apart, in the order of preference.
var naming = [...]string{"name", "address", "backend", "cidr"}

// keys returns what tells the items of a list apart, and whether anything does.
func keys(list reflect.Value) ([]string, bool) {
	fields := policy.Fields(list.Type().Elem())
	for _, name := range naming {
		i := slices.IndexFunc(fields, func(f policy.Field) bool { return f.Name == name })
		if i < 0 {
			continue
		}
		var all []string
		for j := range list.Len() {
			key := text(list.Index(j).Field(fields[i].Index))
			if key == "" || slices.Contains(all, key) {
				return nil, false
			}
			all = append(all, key)
		}
		return all, true
	}
	return nil, false
}

// subtract returns the items of all without those of others, each as often as it is in these.
func subtract(all, others []string) []string {
	count := make(map[string]int)
	for _, s := range others {
		count[s]++
	}
	var rest []string
	for _, s := range all {
		if count[s]--; count[s] < 0 {
			rest = append(rest, s)
		}
	}
	return rest
}
