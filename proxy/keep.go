package proxy

import (
	"bytes"
	"math"
	"strconv"

	"weir/proxy/wire"
)

// Which answers are kept for a fallback, and how. RFC 9111 says what a cache must not store or give to others; where it leaves
// room, this keeps less than it might. What an answer is kept for is a client that would get an error.

// copyAnswer begins a copy of an answer that is passed on, where its route keeps answers and nothing forbids it. The head has
// been passed on.
func (p *Proxy) copyAnswer(x *exchange, answer *wire.ResponseHead) {
	staleFor := x.live.staleFor[x.match.Route.Index()]
	if staleFor == 0 || string(x.head.Method) != "GET" || answer.Status != 200 || answer.Length > mostStaleOne {
		return
	}
	anybody, ok := mayBeKept(x.head, answer)
	if !ok {
		return
	}
	x.text = appendStaleKey(x.text[:0], x)
	if !p.stale.begin(x.text, x.headAt) {
		return
	}
	x.copy = &staleAnswer{
		key: string(x.text), route: x.match.Route.Name(), staleFor: staleFor, at: x.headAt, age: ageOf(answer), anybody: anybody,
		head: keptHead(answer), body: make([]byte, 0, answer.Length),
	}
}

// copied adds a piece of the body that was passed on. A body that turns out to be too long is not kept.
func (p *Proxy) copied(x *exchange, piece []byte) {
	a := x.copy
	if a == nil {
		return
	}
	if len(a.head)+len(a.body)+len(piece) > mostStaleOne {
		p.dropCopy(x)
		return
	}
	a.body = append(a.body, piece...)
}

// keepCopy keeps the copy of an answer that was passed on whole.
func (p *Proxy) keepCopy(x *exchange) {
	if a := x.copy; a != nil {
		x.copy = nil
		p.stale.put(a)
	}
}

// dropCopy gives a copy up.
func (p *Proxy) dropCopy(x *exchange) {
	if x.copy != nil {
		x.copy = nil
		p.stale.giveUp()
	}
}

// staleAnswer returns what was kept for a request like this one; nil when there is nothing, or when the request forbids it.
func (p *Proxy) staleAnswer(x *exchange) *staleAnswer {
	if x.live.staleFor[x.match.Route.Index()] == 0 || string(x.head.Method) != "GET" && string(x.head.Method) != "HEAD" || !takesStored(x.head) {
		return nil
	}
	x.text = appendStaleKey(x.text[:0], x)
	a := p.stale.get(x.text, x.decided())
	if a == nil || !a.anybody && personal(x.head) {
		return nil
	}
	return a
}

// appendStaleKey appends all that two requests have in common that get the same answer. No part of it holds a 0 byte.
func appendStaleKey(dst []byte, x *exchange) []byte {
	_, query, _ := bytes.Cut(x.head.Target, []byte("?"))
	dst = append(append(dst, x.match.Route.Name()...), 0)
	dst = append(append(dst, x.live.snapshot.Backends[x.match.Backend].Name...), 0)
	for _, part := range [...][]byte{x.match.Identity, x.head.Host, x.head.Path, query} {
		dst = append(append(dst, part...), 0)
	}
	_, n := x.head.Lookup("Accept-Encoding")
	for i := range n {
		dst = append(append(dst, x.head.Nth("Accept-Encoding", i)...), 0)
	}
	return dst
}

// mayBeKept says whether the answer to a GET may be kept, and whether anybody of the tenant may get it: one to a request with
// credentials may be about whoever has them, unless it says that it is public.
func mayBeKept(request *wire.Head, answer *wire.ResponseHead) (anybody, ok bool) {
	if request.Body != wire.BodyNone || !takesStored(request) {
		return false, false
	}
	for _, part := range [...]string{"Range", "If-None-Match", "If-Modified-Since"} {
		if _, n := request.Lookup(part); n > 0 {
			return false, false
		}
	}
	if _, n := answer.Lookup("Set-Cookie"); n > 0 || !variesByEncodingOnly(answer) {
		return false, false
	}
	if says(&answer.Fields, "Cache-Control", "no-store", "no-cache", "private", "must-revalidate", "proxy-revalidate", "s-maxage") {
		return false, false
	}
	anybody = isPublic(answer)
	return anybody, anybody || !personal(request)
}

// takesStored says whether a request can do with an answer that was kept: it does not ask for a new one, and its method does not depend
// on the state that it finds.
func takesStored(request *wire.Head) bool {
	for _, condition := range [...]string{"If-Match", "If-Unmodified-Since"} {
		if _, n := request.Lookup(condition); n > 0 {
			return false
		}
	}
	return !says(&request.Fields, "Cache-Control", "no-store", "no-cache")
}

// personal says whether a request has credentials of somebody.
func personal(request *wire.Head) bool {
	for _, credentials := range [...]string{"Authorization", "Cookie"} {
		if _, n := request.Lookup(credentials); n > 0 {
			return true
		}
	}
	return false
}

// says looks for words anywhere in a field: what forbids to keep an answer does so in every form.
func says(fields *wire.Fields, name string, words ...string) bool {
	_, n := fields.Lookup(name)
	for i := range n {
		value := fields.Nth(name, i)
		for _, word := range words {
			if containsFold(value, word) {
				return true
			}
		}
	}
	return false
}

// containsFold looks for a word in lower case, whatever the case of the text.
func containsFold(text []byte, word string) bool {
	for i := 0; i+len(word) <= len(text); i++ {
		if bytes.EqualFold(text[i:i+len(word)], []byte(word)) {
			return true
		}
	}
	return false
}

// isPublic looks for a directive of its own: what allows must not be a part of something else.
func isPublic(answer *wire.ResponseHead) bool {
	_, n := answer.Lookup("Cache-Control")
	for i := range n {
		value := answer.Nth("Cache-Control", i)
		if bytes.IndexByte(value, '"') >= 0 {
			return false
		}
		for directive := range bytes.SplitSeq(value, []byte(",")) {
			if bytes.EqualFold(bytes.Trim(directive, " \t"), []byte("public")) {
				return true
			}
		}
	}
	return false
}

// variesByEncodingOnly says whether the answer would be another for another request only by Accept-Encoding, which is in the key.
func variesByEncodingOnly(answer *wire.ResponseHead) bool {
	_, n := answer.Lookup("Vary")
	for i := range n {
		for name := range bytes.SplitSeq(answer.Nth("Vary", i), []byte(",")) {
			if name = bytes.Trim(name, " \t"); len(name) > 0 && !bytes.EqualFold(name, []byte("Accept-Encoding")) {
				return false
			}
		}
	}
	return true
}

// ageOf is how old an answer was when it came, as far as it says.
func ageOf(answer *wire.ResponseHead) int64 {
	value, n := answer.Lookup("Age")
	if n != 1 {
		return 0
	}
	age, err := strconv.ParseUint(string(value), 10, 32)
	if err != nil {
		return 0
	}
	return int64(min(age, math.MaxInt32))
}

// forItsTime are fields that were true when the answer came, and are told anew or not at all.
var forItsTime = [...]string{
	"Age", "X-Request-Id", "Retry-After", "RateLimit", "RateLimit-Policy", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset",
}

// keptHead returns the head of an answer as it can be said again. It marks fields of the answer, which nobody needs afterwards.
func keptHead(answer *wire.ResponseHead) []byte {
	for i := range answer.List {
		for _, name := range forItsTime {
			if bytes.EqualFold(answer.Name(i), []byte(name)) {
				answer.Drop(i)
			}
		}
	}
	return answer.AppendForward(nil, wire.Kinds(wire.KindContentLength, wire.KindTransferEncoding))
}
