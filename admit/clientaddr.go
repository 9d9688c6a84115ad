package admit

import (
	"bytes"
	"net/netip"
	"unsafe"
)

const forwardedFor = "X-Forwarded-For"

// ClientAddr returns who a request is from, unmapped and without zone. That is the peer, unless the peer is trusted: then it
// is the right-most address in X-Forwarded-For that is not itself trusted, because everything left of that one is hearsay.
// If all of them are trusted, it is the left-most.
//
// What is not a bare address (a name, an address with a port, brackets or zone, an empty member) ends the walk: the result is
// the last trusted hop before it, which is the one that vouched for it. A request without the field is from the peer.
//
// Several X-Forwarded-For fields are one list, as if joined by commas: a proxy may append to the last field or add its own.
//
// A peer without address, as on a Unix socket, is not trusted. Nothing is allocated, but for the error that netip makes
// of a member that looks like an address and is none.
func ClientAddr(trusted []netip.Prefix, peer netip.Addr, h Headers) netip.Addr {
	client := plain(peer)
	if !contains(trusted, client) {
		return client
	}
	_, count := h.Lookup(forwardedFor)
	for i := count - 1; i >= 0; i-- {
		list := h.Nth(forwardedFor, i)
		for more := true; more; {
			comma := bytes.LastIndexByte(list, ',')
			hop, ok := parseAddr(bytes.Trim(list[comma+1:], " \t"))
			if !ok {
				return client
			}
			client = hop
			if !contains(trusted, client) {
				return client
			}
			if more = comma >= 0; more {
				list = list[:comma]
			}
		}
	}
	return client
}

// contains reports whether addr is in one of the networks. A linear scan: there are few trusted proxies.
func contains(networks []netip.Prefix, addr netip.Addr) bool {
	addr = plain(addr)
	for _, network := range networks {
		if network.Contains(addr) {
			return true
		}
	}
	return false
}

// plain returns addr in the one form that networks compare: IPv4 as such, without zone.
func plain(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }

// parseAddr reads a bare IPv4 or IPv6 address.
func parseAddr(b []byte) (netip.Addr, bool) {
	const longest = len("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255")
	if len(b) == 0 || len(b) > longest || bytes.Count(b, []byte(":")) == 1 { // one colon: an IPv4 address with a port
		return netip.Addr{}, false
	}
	for _, c := range b {
		if (c < '0' || c > '9') && (lower(c) < 'a' || lower(c) > 'f') && c != ':' && c != '.' {
			return netip.Addr{}, false
		}
	}
	// netip reads strings only, and a conversion would allocate. It keeps of the string nothing but a zone, and that has a %,
	// or an error, and that is dropped here.
	addr, err := netip.ParseAddr(unsafe.String(&b[0], len(b)))
	return plain(addr), err == nil
}
