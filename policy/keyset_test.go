package policy

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Public keys whose private ones nobody kept.
const (
	modulus    = "vcvihBHs1-xVrFg-FxVWmJkmvmCx1WJStAYMACXQCj1kV_jaM6OuzCuPdHmfPgXZTUMdB-lrF4W5Y1pEuUatCKGazGVR4uZyp50VOZpT687hR3m8gOnsrczKtSpn5y53nLJdWsJ6b4w1ylYtp-IywF3BmAMBsODqE6PTm8CzYJ6xdUrd5G8jD_LmxnQ5_VLT5NU-70mgZ2OKeXIGzaYUWUrMzOCbd0Yfw2OuSOFwaWJie5mhYjoPrbKeYuFKveCchxCLXefhXWjL_DKE2z5Osw4w_n6ruJoweTSIP1TeflFZV7Y2sXGQxkDOtE1p7TPTWQ4hZ5HFDfLcqeZFB1J73w"
	jwkRSA     = `{"kty":"RSA","alg":"RS256","use":"sig","n":"` + modulus + `","e":"AQAB"}`
	jwkRSAAll  = `{"kty":"RSA","n":"` + modulus + `","e":"AQAB"}`
	jwkEC      = `{"kty":"EC","kid":"ec","crv":"P-256","x":"aQo645rOZEkVAf810jJhjQLYde3XB1a6GYo_t9bUkGY","y":"dTdP0yuvaw9PwYAAOEnW14rEVrOzAMeyie_ZjHOgxiM"}`
	jwkEC384   = `{"kty":"EC","crv":"P-384","x":"4mrpAvYoFeyB-czqzo1XXsfa8G4F3-FYTJpU8o_kk45Irvuwe9thI555Xe-SYAFO","y":"v4vL0u3GlzI3ggVtcLO5GafahlqsCJ4iSLLqGrPwj1de3ztq8xx2dRyf-3r4n-c-"}`
	jwkEC521   = `{"kty":"EC","crv":"P-521","x":"ABsTaNY7_E3TWHuPT8QltonFSOdqNjSdl_5bfQwHmItyOfnzvtnqPvdxbXxgBVTRrE-eTI9Fttb2d2jvvjIMAMqq","y":"AaooS-9PQlz4jdSsQYS-SQEl3jyAbFCK54axMkeeb0U_zv4PR2g9KxznMH6VELicAMmaUL0Yr4trzPUA_nDS6aKD"}`
	jwkEd      = `{"kty":"OKP","crv":"Ed25519","x":"j-0goCcQUq1WOJNjaKBiIEm1XrIhlIStEnK60y1u45Y"}`
	jwkEdNamed = `{"kty":"OKP","kid":"ed","crv":"Ed25519","x":"j-0goCcQUq1WOJNjaKBiIEm1XrIhlIStEnK60y1u45Y"}`
)

func mustParseKeySet(t testing.TB, text string) KeySet {
	t.Helper()
	keys, problems := ParseKeySet("jwks", []byte(text))
	if keys == nil || len(problems) > 0 {
		t.Fatalf("cannot parse %s:\n%s", text, said(problems))
	}
	return keys
}

// shownSet is a set as one line for each key: its name, its algorithms and its type.
func shownSet(s KeySet) []string {
	var lines []string
	for _, k := range s {
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %s %T", k.ID, strings.Join(k.Algorithms, ","), k.Key)))
	}
	return lines
}

func TestParseKeySet(t *testing.T) {
	const all = "RS256,RS384,RS512,PS256,PS384,PS512 *rsa.PublicKey"
	f := func(text string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, shownSet(mustParseKeySet(t, text))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}

	// Each type is for algorithms of its own, and a key's alg for one.
	f(`{"keys": [`+jwkRSAAll+`,`+jwkRSA+`]}`, all, "RS256 *rsa.PublicKey")
	f(`{"keys": [`+jwkEC+`,`+jwkEC384+`,`+jwkEC521+`]}`, "ec ES256 *ecdsa.PublicKey", "ES384 *ecdsa.PublicKey", "ES512 *ecdsa.PublicKey")
	f(`{"keys": [`+jwkEdNamed+`]}`, "ed EdDSA ed25519.PublicKey")
	// What else the set and the keys say does not matter.
	f(` { "keys" : [`+strings.Replace(jwkEd, "{", `{"x-note": [1], "key_ops": ["verify"], `, 1)+`], "issuer": "me" } `, "EdDSA ed25519.PublicKey")
	// Keys for encryption are of no interest, even those that are of no use.
	f(`{"keys": [{"kty": "RSA", "use": "enc", "alg": "RSA-OAEP"}, {"kty": "EC", "key_ops": ["deriveKey"]}, `+jwkEd+`]}`, "EdDSA ed25519.PublicKey")
	// One name for several keys.
	f(`{"keys": [`+jwkEC+`,`+jwkEC+`]}`, "ec ES256 *ecdsa.PublicKey", "ec ES256 *ecdsa.PublicKey")

	// The keys are those of the file.
	set := mustParseKeySet(t, `{"keys": [`+jwkRSA+`,`+jwkEC+`,`+jwkEd+`]}`)
	if k := set[0].Key.(*rsa.PublicKey); k.N.BitLen() != 2048 || k.E != 65537 {
		t.Errorf("an RSA key of %d bits with the exponent %d", k.N.BitLen(), k.E)
	}
	if k := set[1].Key.(*ecdsa.PublicKey); k.Curve.Params().Name != "P-256" {
		t.Errorf("an EC key on %s", k.Curve.Params().Name)
	}
	if k := set[2].Key.(ed25519.PublicKey); k[0] != 0x8f || len(k) != ed25519.PublicKeySize {
		t.Errorf("an Ed25519 key of %d bytes that begins with %x", len(k), k[0])
	}
	if !set.Equal(mustParseKeySet(t, `{"keys": [`+jwkRSA+`, `+jwkEC+`, `+jwkEd+`]}`)) || set.Equal(set[:2]) ||
		set.Equal(mustParseKeySet(t, `{"keys": [`+jwkRSAAll+`,`+jwkEC+`,`+jwkEd+`]}`)) ||
		set.Equal(mustParseKeySet(t, `{"keys": [`+jwkRSA+`,`+jwkEC+`,`+jwkEdNamed+`]}`)) {
		t.Error("sets are equal that are not, or the other way about")
	}
	if !set[0].Verifies("RS256") || set[0].Verifies("RS384") || set[0].Verifies("none") {
		t.Error("the key verifies other algorithms than its own")
	}
}

// A key that cannot be used does not keep the others from being used.
func TestParseKeySetWarning(t *testing.T) {
	f := func(key, want string) {
		t.Helper()
		set, problems := ParseKeySet("jwks", []byte(`{"keys": [`+jwkEd+`,`+key+`]}`))
		if got := said(problems); len(set) != 1 || got != "jwks: warning: keys[1]: passed over: "+want {
			t.Errorf("%d keys and %q, want %q", len(set), got, want)
		}
	}
	const unknown = "a key of a type that is not known here: want RSA, EC with P-256, P-384 or P-521, or OKP with Ed25519"

	// types
	f(`{"kty":"XYZ"}`, unknown)
	f(`{"kty":"OKP","crv":"X25519","x":"j-0goCcQUq1WOJNjaKBiIEm1XrIhlIStEnK60y1u45Y"}`, unknown)
	f(`{"kty":"EC","crv":"secp256k1","x":"AA","y":"AA"}`, "unsupported elliptic curve 'secp256k1'")
	f(`{}`, "missing json web key type")
	// a name whose case is another is another name
	f(`{"KTY":"RSA"}`, "missing json web key type")
	// sizes
	f(`{"kty":"RSA","n":"ssrjZ9RXJ96sqQuXAwf7VzaMoXo2LbcS93AB4nugyJRIM_0jq0rDqI_-5xJ6CN2MH52JEmO9u5K2uC0ICQYeWMuFl_NbCfrocFpKnTVax5icfw_leWFym93sNaniNKdoMl44Tad59-u5TUgussiVblNYexFvDchF-n8D01oRu7k","e":"AQAB"}`,
		"an RSA key of 1024 bits: want at least 2048")
	f(`{"kty":"RSA","e":"AQAB","n":"`+strings.Repeat("_", 1376)+`"}`, "invalid RSA key, modulus too large")
	f(`{"kty":"RSA","e":"AQ","n":"`+modulus+`"}`, "invalid RSA key, bad e value")
	f(`{"kty":"RSA","e":"Ag","n":"`+modulus+`"}`, "an RSA key with the exponent 2: want an odd one of at least 3")
	// algorithms of another type of key
	f(strings.Replace(jwkRSA, "RS256", "HS256", 1), "its alg is none that its key can verify: want RS256, RS384, RS512, PS256, PS384 or PS512")
	f(strings.Replace(jwkEC, "{", `{"alg": "ES384", `, 1), "its alg is none that its key can verify: want ES256")
	f(strings.Replace(jwkEd, "{", `{"alg": "none", `, 1), "its alg is none that its key can verify: want EdDSA")
}

func TestParseKeySetPassesOverWhatIsNoKey(t *testing.T) {
	f := func(key string) {
		t.Helper()
		set, problems := ParseKeySet("jwks", []byte(`{"keys": [`+key+`,`+jwkEd+`]}`))
		if len(set) != 1 || len(problems) != 1 || problems[0].Severity != Warning {
			t.Errorf("%d keys and %q", len(set), said(problems))
		}
	}
	// not on the curve
	f(`{"kty":"EC","crv":"P-256","x":"aQo645rOZEkVAf810jJhjQLYde3XB1a6GYo_t9bUkGY","y":"dTdP0yuvaw9PwYAAOEnW14rEVrOzAMeyie_ZjHOgxiA"}`)
	// of another curve
	f(strings.Replace(jwkEC384, "P-384", "P-256", 1))
	// too short, no base64, of another type, missing
	f(`{"kty":"OKP","crv":"Ed25519","x":"j-0g"}`)
	f(`{"kty":"OKP","crv":"Ed25519","x":"+/=="}`)
	f(`{"kty":"OKP","crv":"Ed25519","x":7}`)
	f(`{"kty":"OKP","crv":"Ed25519"}`)
	f(`{"kty":"RSA","n":"` + modulus + `"}`)
	// no mapping
	f(`7`)
	f(`[]`)
	// a member that is there twice
	f(strings.Replace(jwkEC, "{", `{"kid": "other", `, 1))
}

func TestParseKeySetFailure(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		set, problems := ParseKeySet("jwks", []byte(text))
		if got := said(problems); set != nil || got != want {
			t.Errorf("%s: %d keys and %q, want %q", text, len(set), got, want)
		}
	}
	const form = `jwks: no JSON Web Key Set: want {"keys": […]} with at least one public key`
	secret := func(i int) string {
		return fmt.Sprintf("jwks: keys[%d]: a secret: want public keys only; make a new key, since this one has been given away", i)
	}

	// no JSON
	f("", "jwks:1:1: no JSON: unexpected end of JSON input")
	f("{\n  \"keys\": [x]\n}", "jwks:2:12: no JSON: invalid character 'x' looking for beginning of value")
	f("-----BEGIN PUBLIC KEY-----", "jwks:1:2: no JSON: invalid character '-' in numeric literal")
	// no set
	f("{}", form)
	f("null", form)
	f("[]", form)
	f(jwkEd, form)
	f(`{"keys": null}`, form)
	f(`{"keys": {}}`, form)
	f(`{"Keys": [`+jwkEd+`]}`, form)
	f(`{"keys": [`+jwkEd+`], "keys": []}`, form)
	// nothing in it
	f(`{"keys": []}`, "jwks: keys: none of the 0 keys can verify a signature")
	f(`{"keys": [{"kty": "RSA", "use": "enc"}]}`, "jwks: keys: none of the 1 keys can verify a signature")
	// secrets, wherever they are and whatever for
	f(`{"keys": [`+strings.Replace(jwkEd, "{", `{"d": "c2VjcmV0", `, 1)+`]}`, secret(0))
	f(`{"keys": [`+jwkEd+`,`+strings.Replace(jwkRSA, "{", `{"p": "c2VjcmV0", `, 1)+`]}`, secret(1))
	f(`{"keys": [`+jwkEd+`,{"kty": "oct", "k": "c2VjcmV0"}]}`, secret(1))
	f(`{"keys": [`+jwkEd+`,{"kty": "oct", "k": "c2VjcmV0", "use": "enc"}]}`, secret(1))
}

func FuzzParseKeySet(f *testing.F) {
	f.Add([]byte(`{"keys": [` + jwkRSA + `,` + jwkEC + `,` + jwkEd + `]}`))
	f.Add([]byte(`{"keys": [` + jwkEC384 + `,` + jwkEC521 + `,{"kty":"oct","k":"AA"}]}`))
	f.Add([]byte(`{"keys": [{"kty":"RSA","n":"AQ","e":"AQ","x5c":["AA"],"x5u":"::"},{"kty":"EC","crv":"P-256","x":"","y":""}]}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, data []byte) {
		set, problems := ParseKeySet("jwks", data)
		failed := slices.ContainsFunc(problems, func(p Problem) bool { return p.Severity == Error })
		if failed != (set == nil) || set != nil && len(set) == 0 {
			t.Fatalf("%d keys, errors %v", len(set), failed)
		}
		for _, k := range set {
			if len(k.Algorithms) == 0 || k.Verifies("none") || k.Verifies("HS256") || len(k.der) == 0 {
				t.Errorf("a key of type %T for %q", k.Key, k.Algorithms)
			}
		}
		lines := strings.Split(string(data), "\n")
		for _, p := range problems {
			if p.Origin.Line > len(lines) || p.Origin.Line > 0 && p.Origin.Column > len(lines[p.Origin.Line-1])+1 {
				t.Errorf("%s is not within the file", p)
			}
		}
	})
}
