package token

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"weir/admit/token/tokentest"
	"weir/policy"
)

// counting is a verifier that counts how many tokens had a signature that it verified: it reads the wall clock after that.
func counting(t testing.TB, s *policy.JWTIdentity, keys ...*tokentest.Key) (*Verifier, *atomic.Int64) {
	t.Helper()
	n := new(atomic.Int64)
	return New(s, keySet(t, tokentest.Set(keys...)), func(now int64) time.Time {
		n.Add(1)
		return wallOf(now)
	}), n
}

func (c *cache) size() (n int) {
	for i := range c.sets {
		for j := range c.sets[i].tokens {
			if c.sets[i].tokens[j].Load() != nil {
				n++
			}
		}
	}
	return n
}

func TestVerifierRemembers(t *testing.T) {
	key := tokentest.New("", "EdDSA")
	v, verified := counting(t, settingsOf(), key)
	f := func(now time.Duration, token, want string, fault Fault, wantVerified int64) {
		t.Helper()
		if tenant, got := v.Tenant(int64(now), []byte(token)); string(tenant) != want || got != fault {
			t.Errorf("unexpected outcome: got %q, %s, want %q, %s", tenant, got, want, fault)
		}
		if got := verified.Load(); got != wantVerified {
			t.Errorf("unexpected number of tokens verified so far: got %d, want %d", got, wantVerified)
		}
	}
	acme, globex := key.Token(good), key.Token(strings.Replace(good, "acme", "globex", 1))

	// Once for each token, until it has expired; after that it is not verified again either.
	f(0, acme, "acme", None, 1)
	f(time.Second, acme, "acme", None, 1)
	f(time.Second, globex, "globex", None, 2)
	f(70*time.Second-time.Microsecond, acme, "acme", None, 2)
	f(70*time.Second, acme, "", Expired, 2)
	f(time.Hour, acme, "", Expired, 2)
	// What is not valid yet may become so.
	later := key.Token(strings.Replace(good, "{", `{"nbf":1700000020,`, 1))
	f(0, later, "", NotYet, 3)
	f(20*time.Second, later, "acme", None, 4)
	f(21*time.Second, later, "acme", None, 4)
	// What is not valid takes no memory.
	size := v.verified.size()
	for i := range 100 {
		payload := strings.Replace(good, "1700000060", fmt.Sprint(1_600_000_000+i), 1)
		if _, fault := v.Tenant(0, []byte(key.Token(payload))); fault != Expired {
			t.Fatalf("got %s, want expired", fault)
		}
	}
	if got := v.verified.size(); got != size || got != 3 {
		t.Errorf("unexpected number of tokens remembered: got %d after %d, want 3", got, size)
	}
}

// A verifier goes on for a source that decides like it, and for no other: nothing is believed for longer than its key.
func TestVerifierServes(t *testing.T) {
	one, two := tokentest.New("one", "EdDSA"), tokentest.New("two", "EdDSA")
	v := verifierOf(t, settingsOf(), one)
	f := func(want bool, s *policy.JWTIdentity, keys ...*tokentest.Key) {
		t.Helper()
		if got := v.Serves(s, keySet(t, tokentest.Set(keys...))); got != want {
			t.Errorf("%+v of %d keys: got %v, want %v", s, len(keys), got, want)
		}
	}
	f(true, settingsOf(), one)
	f(false, settingsOf(), two)
	f(false, settingsOf(), one, two)
	f(false, settingsOf(), one.For("other", "EdDSA"))
	f(false, settingsOf("EdDSA"), one)
	for _, change := range []func(*policy.JWTIdentity){
		func(s *policy.JWTIdentity) { s.Claim = "org" },
		func(s *policy.JWTIdentity) { s.Issuer = "" },
		func(s *policy.JWTIdentity) { s.Audience = "billing" },
		func(s *policy.JWTIdentity) { s.Leeway = 0 },
	} {
		s := settingsOf()
		change(s)
		f(false, s, one)
	}
}

func sumOf(i uint64) *remembered {
	return &remembered{sum: sha256.Sum256(binary.LittleEndian.AppendUint64(nil, i)), until: 1}
}

func TestCache(t *testing.T) {
	c := newCache(16 * ways)
	find := func(i uint64) bool { return c.find(&sumOf(i).sum) != nil }

	// Nothing is found but what was added.
	for i := range uint64(100) {
		if find(i) {
			t.Fatalf("%d is there", i)
		}
	}
	c.add(0, sumOf(1))
	c.add(0, sumOf(1))
	if !find(1) || find(2) || c.size() != 1 {
		t.Errorf("%d tokens", c.size())
	}
	if c.find(&sumOf(1).sum).sum != sumOf(1).sum {
		t.Error("another token")
	}

	// A token that comes again and again stays, whatever comes once; and the size is fixed.
	for i := range uint64(20_000) {
		c.add(0, sumOf(1000+i))
		if i%50 == 0 && !find(1) {
			t.Fatalf("forgotten after %d others", i)
		}
	}
	if c.size() > 16*ways {
		t.Errorf("%d tokens, want at most %d", c.size(), 16*ways)
	}
	// What has not come again is forgotten in the end, for others that do.
	for range 20 {
		for i := range uint64(64) {
			if !find(2_000_000 + i) {
				c.add(0, sumOf(2_000_000+i))
			}
		}
	}
	kept := 0
	for i := range uint64(64) {
		if find(2_000_000 + i) {
			kept++
		}
	}
	if kept < 50 {
		t.Errorf("%d of 64 tokens that come again are kept", kept)
	}
	// What has expired makes room first.
	c = newCache(ways)
	for i := range uint64(ways) {
		r := sumOf(i)
		r.until = 100
		if i == 3 {
			r.until = 10
		}
		c.add(0, r)
		find(i)
	}
	c.add(10, sumOf(99))
	for i := range uint64(ways) {
		if find(i) != (i != 3) {
			t.Errorf("%d is there: %v", i, find(i))
		}
	}
	// Where all come again, one has to go.
	c.add(0, sumOf(98))
	if !find(98) || c.size() != ways {
		t.Errorf("%d tokens", c.size())
	}
}

// A token is known by the whole of its sum: one whose place and tag are those of another is another.
func TestCacheKnowsByTheWholeSum(t *testing.T) {
	c := newCache(ways)
	c.add(0, sumOf(1))
	other := sumOf(2)
	other.sum = sumOf(1).sum
	for i := range other.sum {
		other.sum[i] ^= 1
		_, tag := c.at(&other.sum)
		for way := range c.sets[0].tags {
			c.sets[0].tags[way].Store(tag)
		}
		if c.find(&other.sum) != nil {
			t.Errorf("a token that differs in byte %d is taken for another", i)
		}
		other.sum[i] ^= 1
	}
}

// The memory of a source: what a full cache of tokens with long tenants takes.
func TestCacheIsSmall(t *testing.T) {
	set := int(unsafe.Sizeof(cacheSet{})) / ways
	each := set + int(unsafe.Sizeof(remembered{})) + 128
	if total := maxRemembered * each; total > 16<<20 {
		t.Errorf("%d bytes for each of %d tokens are %d", each, maxRemembered, total)
	}
	t.Logf("%d bytes for a token with a tenant of 8 bytes, %d for each place", each-120, set)
}

func TestVerifierAllocatesNothing(t *testing.T) {
	key := tokentest.New("", "EdDSA")
	v := verifierOf(t, settingsOf(), key)
	f := func(name string, now int64, token []byte, fault Fault) {
		t.Helper()
		if _, got := v.Tenant(0, token); got != fault && got != None {
			t.Fatalf("%s: got %s, want %s", name, got, fault)
		}
		if n := testing.AllocsPerRun(100, func() {
			if _, got := v.Tenant(now, token); got != fault {
				t.Fatalf("%s: got %s, want %s", name, got, fault)
			}
		}); n != 0 {
			t.Errorf("%s: unexpected allocations: got %v, want 0", name, n)
		}
	}
	f("remembered", 1, []byte(key.Token(good)), None)
	f("remembered and expired", int64(time.Hour), []byte(key.Token(good)), Expired)
	f("too long", 0, []byte(strings.Repeat("a", maxBytes+1)), Malformed)
}

// Many requests at a time: each gets its own tenant, whoever is verified, found or forgotten meanwhile.
func TestVerifierRace(t *testing.T) {
	key := tokentest.New("", "EdDSA")
	v := verifierOf(t, settingsOf(), key)
	v.verified = newCache(2 * ways) // so that tokens are forgotten all the time
	var tokens [64][]byte
	for i := range tokens {
		tokens[i] = []byte(key.Token(strings.Replace(good, "acme", fmt.Sprintf("tenant-%d", i), 1)))
	}
	var running sync.WaitGroup
	for worker := range 4 {
		running.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(worker)))
			for range 150 {
				i := random.IntN(len(tokens))
				if got, fault := v.Tenant(0, tokens[i]); string(got) != fmt.Sprintf("tenant-%d", i) {
					t.Errorf("token %d is of %q (%s)", i, got, fault)
				}
			}
		})
	}
	running.Wait()
}

// Verifying a token, by algorithm, and finding one that was verified among many.
func BenchmarkVerifier(b *testing.B) {
	algorithms := []string{"RS256", "PS256", "RS512", "ES256", "ES384", "ES512", "EdDSA"}
	const payload = `{"iss":"https://id.example.com","aud":["orders","billing"],"exp":1700003600,"nbf":1699999999,"iat":1699999999,` +
		`"sub":"248289761001","jti":"5a4e8b4e-0c2b-4a39-8a55-1c1a3c1d8a1e","scope":"openid profile orders:read orders:write","tenant":"acme"}`
	for _, algorithm := range algorithms {
		key := tokentest.New("key-1", algorithm)
		v := verifierOf(b, settingsOf(algorithms...), key)
		token := []byte(key.Token(payload))
		b.Run("new/"+algorithm, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, fault := v.verify(0, string(token), [sha256.Size]byte{}); fault != None {
					b.Fatal(fault)
				}
			}
		})
		forged := slices.Clone(token)
		if at := len(forged) - 10; forged[at] == 'A' {
			forged[at] = 'B'
		} else {
			forged[at] = 'A'
		}
		b.Run("forged/"+algorithm, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, fault := v.Tenant(0, forged); fault != Signature {
					b.Fatal(fault)
				}
			}
		})
		b.Run("known/"+algorithm, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, fault := v.Tenant(0, token); fault != None {
					b.Fatal(fault)
				}
			}
		})
	}
	key := tokentest.New("key-1", "EdDSA")
	v := verifierOf(b, settingsOf(), key)
	tokens := make([][]byte, 4096)
	for i := range tokens {
		tokens[i] = []byte(key.Token(strings.Replace(payload, "acme", fmt.Sprintf("tenant-%d", i), 1)))
		if _, fault := v.Tenant(0, tokens[i]); fault != None {
			b.Fatal(fault)
		}
	}
	b.Run("known among 4096", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			i++
			if _, fault := v.Tenant(0, tokens[i&4095]); fault != None {
				b.Fatal(fault)
			}
		}
	})
}
