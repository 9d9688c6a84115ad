package admit

import (
	"net/netip"
	"strings"
	"testing"
)

func TestClientAddr(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("fe80::/10")}
	f := func(peer string, fields []string, want string) {
		t.Helper()
		var list fieldList
		for _, v := range fields {
			list = append(list, [2]string{"x-FORWARDED-for", v})
		}
		got := ClientAddr(trusted, addrOf(peer), list)
		if got != addrOf(want) {
			t.Errorf("unexpected client of peer %q, fields %q: got %v, want %q", peer, fields, got, want)
		}
	}

	// Nothing said: the peer.
	f("10.0.0.1", nil, "10.0.0.1")
	f("203.0.113.7", nil, "203.0.113.7")
	// A peer that is not trusted is the client, whatever it says.
	f("203.0.113.7", []string{"198.51.100.1"}, "203.0.113.7")
	f("203.0.113.7", []string{"10.0.0.9"}, "203.0.113.7")
	f("", []string{"198.51.100.1"}, "")
	// The right-most address that is not trusted: what is left of it is hearsay.
	f("10.0.0.1", []string{"198.51.100.1"}, "198.51.100.1")
	f("10.0.0.1", []string{"192.0.2.66, 198.51.100.1"}, "198.51.100.1")
	f("10.0.0.1", []string{"192.0.2.66,198.51.100.1 ,\t10.0.0.2,  fd00::3"}, "198.51.100.1")
	f("10.0.0.1", []string{"garbage, 198.51.100.1, 10.0.0.2"}, "198.51.100.1")
	// All trusted: the left-most.
	f("10.0.0.1", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3")
	// Garbage ends the walk at the last hop that vouched.
	f("10.0.0.1", []string{""}, "10.0.0.1")
	f("10.0.0.1", []string{"unknown"}, "10.0.0.1")
	f("10.0.0.1", []string{"198.51.100.1,"}, "10.0.0.1")
	f("10.0.0.1", []string{"198.51.100.1, , 10.0.0.2"}, "10.0.0.2")
	f("10.0.0.1", []string{"198.51.100.1, _hidden, 10.0.0.2"}, "10.0.0.2")
	f("10.0.0.1", []string{"198.51.100.1:8080"}, "10.0.0.1")
	f("10.0.0.1", []string{"[2001:db8::1]"}, "10.0.0.1")
	f("10.0.0.1", []string{"fe80::1%eth0"}, "10.0.0.1")
	f("10.0.0.1", []string{"2001:db8::1%1"}, "10.0.0.1")
	f("10.0.0.1", []string{"198.51.100"}, "10.0.0.1")
	f("10.0.0.1", []string{"198.51.100.256"}, "10.0.0.1")
	f("10.0.0.1", []string{"198.51.100.01"}, "10.0.0.1")
	f("10.0.0.1", []string{"3325256705"}, "10.0.0.1")
	f("10.0.0.1", []string{strings.Repeat("1", 46)}, "10.0.0.1")
	f("10.0.0.1", []string{"198.51.100.1 198.51.100.2"}, "10.0.0.1")
	// IPv6, and IPv4 in IPv6 clothes, on either side.
	f("fd00::1", []string{"2001:DB8::1"}, "2001:db8::1")
	f("fe80::1%eth0", []string{"2001:db8::1"}, "2001:db8::1")
	f("::ffff:10.0.0.1", []string{"198.51.100.1"}, "198.51.100.1")
	f("10.0.0.1", []string{"192.0.2.66, ::ffff:198.51.100.1"}, "198.51.100.1")
	f("10.0.0.1", []string{"198.51.100.1, ::ffff:10.0.0.2"}, "198.51.100.1")
	f("203.0.113.7", nil, "203.0.113.7")
	f("fe80::2%eth0", nil, "fe80::2")
	// Several fields are one list: each proxy may have added its own.
	f("10.0.0.1", []string{"192.0.2.66", "198.51.100.1"}, "198.51.100.1")
	f("10.0.0.1", []string{"192.0.2.66, 198.51.100.1", "10.0.0.3", "10.0.0.2"}, "198.51.100.1")
	f("10.0.0.1", []string{"198.51.100.1", "fd00::3, 10.0.0.2"}, "198.51.100.1")
	f("10.0.0.1", []string{"10.0.0.4", "10.0.0.3, 10.0.0.2"}, "10.0.0.4")
	// What a client writes in a field of its own is hearsay like any other.
	f("10.0.0.1", []string{"10.0.0.9", "198.51.100.1"}, "198.51.100.1")
	f("10.0.0.1", []string{"198.51.100.1", "unknown", "10.0.0.2"}, "10.0.0.2")
	f("10.0.0.1", []string{"198.51.100.1", ""}, "10.0.0.1")
	f("203.0.113.7", []string{"192.0.2.66", "198.51.100.1"}, "203.0.113.7")
}

func addrOf(s string) netip.Addr {
	if s == "" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(s)
}

// The left end of the list is the client's to write, and never changes the answer.
func FuzzClientAddr(f *testing.F) {
	f.Add([]byte("192.0.2.66"))
	f.Add([]byte("unknown, ::ffff:1.2.3.4"))
	f.Add([]byte(",,%,"))
	f.Add([]byte("10.0.0.4, 10.0.0.5"))
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	f.Fuzz(func(t *testing.T, forged []byte) {
		peer, client := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("198.51.100.1")
		list := append(append([]byte{}, forged...), ",198.51.100.1, 10.0.0.2"...)
		if got := ClientAddr(trusted, peer, &byteField{"X-Forwarded-For", list}); got != client {
			t.Fatalf("unexpected client of %q: got %v, want %v", list, got, client)
		}
		// One member: what netip reads without a zone, or the peer.
		if strings.ContainsAny(string(forged), ", \t") {
			return
		}
		want := peer
		if addr, err := netip.ParseAddr(string(forged)); err == nil && addr.Zone() == "" {
			want = addr.Unmap()
		}
		if got := ClientAddr(trusted, peer, &byteField{"X-Forwarded-For", forged}); forged != nil && got != want {
			t.Fatalf("unexpected client of %q: got %v, want %v", forged, got, want)
		}
	})
}

func TestClientAddrAllocatesNothing(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	f := func(list string) {
		t.Helper()
		h := &byteField{"X-Forwarded-For", []byte(list)}
		if n := testing.AllocsPerRun(100, func() { ClientAddr(trusted, proxyPeer, h) }); n != 0 {
			t.Errorf("unexpected allocations for %q: got %v, want 0", list, n)
		}
	}

	f("198.51.100.1")
	f("192.0.2.66, 2001:db8::1, 10.0.0.3, fd00::3, ::ffff:10.0.0.2")
	// Garbage in the shapes that proxies write.
	f("unknown, 10.0.0.2")
	f("198.51.100.1:8080, 10.0.0.2")
	f("fe80::1%eth0")
	f("")
}

func BenchmarkClientAddr(b *testing.B) {
	trusted := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	f := func(name, list string) {
		b.Run(name, func(b *testing.B) {
			h := &byteField{"X-Forwarded-For", []byte(list)}
			b.ReportAllocs()
			for b.Loop() {
				ClientAddr(trusted, proxyPeer, h)
			}
		})
	}
	f("one", "198.51.100.1")
	f("three", "192.0.2.66, 198.51.100.1, 10.0.0.3, 10.0.0.2")
}
