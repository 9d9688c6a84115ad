package wire

import "strconv"

// Kind is the class of a header field, decided from its name in the same pass that finds it.
type Kind uint8

// The kinds. KindOther is every name that is not listed; KindIdentity are the names in Settings.Identity.
const (
	KindOther Kind = iota
	KindHost
	KindContentLength
	KindTransferEncoding
	KindConnection
	KindKeepAlive
	KindProxyConnection
	KindProxyAuthorization
	KindProxyAuthenticate
	KindTE
	KindTrailer
	KindUpgrade
	KindHTTP2Settings
	KindExpect
	KindProxy
	KindForwarded
	KindXForwardedFor
	KindXForwardedProto
	KindXForwardedHost
	KindXForwarded // every other X-Forwarded-… name
	KindXRealIP
	KindVia
	KindXRequestID
	KindTraceparent
	KindIdentity
	kindCount
)

// KindSet is a set of kinds.
type KindSet uint32

// Kinds returns the set of the given kinds.
func Kinds(kinds ...Kind) KindSet {
	var s KindSet
	for _, k := range kinds {
		s |= 1 << k
	}
	return s
}

// Has reports whether k is in the set.
func (s KindSet) Has(k Kind) bool { return s>>k&1 != 0 }

const (
	// hopByHop never passes this proxy, in either direction (RFC 9110 section 7.6.1, and names that old software uses).
	// Expect is here because the guard answers it itself, Proxy because of CVE-2016-5385.
	hopByHop = KindSet(1<<KindConnection | 1<<KindKeepAlive | 1<<KindProxyConnection | 1<<KindProxyAuthorization |
		1<<KindProxyAuthenticate | 1<<KindTE | 1<<KindTrailer | 1<<KindUpgrade | 1<<KindHTTP2Settings |
		1<<KindExpect | 1<<KindProxy)
	// nominable are the kinds that a Connection field can make hop-by-hop; identity, framing and forwarding are not.
	nominable = KindSet(1 << KindOther)
	// maxNominations bounds the work that Connection fields can ask for.
	maxNominations = 64
)

// Field is one line of a header section, as offsets into the block it was scanned from.
type Field struct {
	start, colon, value, valueEnd, end uint32
	Kind                               Kind
	hop                                bool // hop-by-hop, by its kind or by nomination
}

// Fields is a scanned header section: the raw block and its lines in order. The zero value is an empty section.
// It is valid as long as the buffer that was scanned.
type Fields struct {
	List []Field
	raw  []byte
}

// Name returns the name of field i as sent.
func (f *Fields) Name(i int) []byte { return f.raw[f.List[i].start:f.List[i].colon] }

// Value returns the value of field i without the white space around it.
func (f *Fields) Value(i int) []byte { return f.raw[f.List[i].value:f.List[i].valueEnd] }

// Lookup returns the value of the first field of that name, white space trimmed, and how many fields of that name there
// are. Names are compared without case. It allocates nothing.
func (f *Fields) Lookup(name string) (value []byte, count int) {
	for i := range f.List {
		l := &f.List[i]
		if int(l.colon-l.start) != len(name) || !equalFold(f.raw[l.start:l.colon], name) {
			continue
		}
		if count == 0 {
			value = f.raw[l.value:l.valueEnd]
		}
		count++
	}
	return value, count
}

// Nth returns the value of field i of that name, counting from 0, white space trimmed; nil when there are fewer. Names are
// compared without case. It allocates nothing.
func (f *Fields) Nth(name string, i int) []byte {
	for j := range f.List {
		l := &f.List[j]
		if int(l.colon-l.start) != len(name) || !equalFold(f.raw[l.start:l.colon], name) {
			continue
		}
		if i == 0 {
			return f.raw[l.value:l.valueEnd]
		}
		i--
	}
	return nil
}

// Get is Lookup by kind: one comparison per field.
func (f *Fields) Get(k Kind) (value []byte, count int) {
	for i := range f.List {
		if l := &f.List[i]; l.Kind == k {
			if count == 0 {
				value = f.raw[l.value:l.valueEnd]
			}
			count++
		}
	}
	return value, count
}

// Kept reports whether field i is passed on: it is not hop-by-hop, not nominated by Connection, and was not dropped.
func (f *Fields) Kept(i int) bool { return !f.List[i].hop }

// Drop keeps field i from being passed on. Name and Value go on to return what it is.
func (f *Fields) Drop(i int) { f.List[i].hop = true }

// valueAt is Value for the index the scanner noted.
func (f *Fields) valueAt(i uint32) []byte { return f.Value(int(i)) }

// appendKept appends the lines that go on, as sent and in order, neighbours in one copy. Framing fields get their
// canonical value: length, or chunked.
func (f *Fields) appendKept(dst []byte, drop KindSet, length int64) []byte {
	const framing = KindSet(1<<KindContentLength | 1<<KindTransferEncoding)
	from, to := uint32(0), uint32(0)
	for i := range f.List {
		l := &f.List[i]
		switch {
		case l.hop || drop.Has(l.Kind):
		case framing.Has(l.Kind):
			dst = append(dst, f.raw[from:to]...)
			from, to = 0, 0
			dst = append(dst, f.raw[l.start:l.colon]...)
			dst = append(dst, ':', ' ')
			if l.Kind == KindContentLength {
				dst = strconv.AppendInt(dst, length, 10)
			} else {
				dst = append(dst, "chunked"...)
			}
			dst = append(dst, '\r', '\n')
		default:
			if l.start != to {
				dst = append(dst, f.raw[from:to]...)
				from = l.start
			}
			to = l.end
		}
	}
	return append(dst, f.raw[from:to]...)
}
