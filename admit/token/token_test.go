package token

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"weir/admit/token/tokentest"
	"weir/policy"
)

// epoch is the wall time at which the clock of now began: a round number in the tokens below.
const epoch = 1_700_000_000

func wallOf(now int64) time.Time { return time.Unix(epoch, now) }

// good are the claims of a token that settingsOf takes for a minute.
const good = `{"iss":"https://id.example.com","aud":"orders","exp":1700000060,"tenant":"acme"}`

// settingsOf are those of a source that asks for everything.
func settingsOf(algorithms ...string) *policy.JWTIdentity {
	if len(algorithms) == 0 {
		algorithms = []string{"RS256", "ES256", "EdDSA"}
	}
	return &policy.JWTIdentity{
		Header: "Authorization", Claim: "tenant", Algorithms: algorithms,
		Issuer: "https://id.example.com", Audience: "orders", Leeway: policy.Duration(10 * time.Second),
	}
}

func keySet(t testing.TB, text []byte) policy.KeySet {
	t.Helper()
	set, problems := policy.ParseKeySet("jwks", text)
	if set == nil || len(problems) > 0 {
		t.Fatalf("cannot parse %s: %v", text, problems)
	}
	return set
}

func verifierOf(t testing.TB, s *policy.JWTIdentity, keys ...*tokentest.Key) *Verifier {
	t.Helper()
	return New(s, keySet(t, tokentest.Set(keys...)), wallOf)
}

// check asks twice, since the second time may be answered from memory.
func check(t *testing.T, v *Verifier, now int64, token, want string, fault Fault) {
	t.Helper()
	for range 2 {
		if got, why := v.Tenant(now, []byte(token)); string(got) != want || why != fault || (got == nil) != (fault != None) {
			t.Errorf("unexpected outcome of %q: got %q, %s, want %q, %s", token, got, why, want, fault)
		}
	}
}

func TestVerifier(t *testing.T) {
	algorithms := []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
	rsa := tokentest.New("", "RS256")
	for _, algorithm := range algorithms {
		key := tokentest.New("", algorithm)
		if algorithm[1] == 'S' && algorithm[0] != 'E' {
			key = rsa.For("", algorithm)
		}
		check(t, verifierOf(t, settingsOf(algorithms...), key), 0, key.Token(good), "acme", None)
		// One that is not listed is not taken, whatever the key can do.
		other := "EdDSA"
		if algorithm == other {
			other = "RS256"
		}
		check(t, verifierOf(t, settingsOf(other), key), 0, key.Token(good), "", Algorithm)
	}

	// A key that says what it is for is for nothing else.
	only := []byte(strings.Replace(string(tokentest.Set(rsa)), `{"use"`, `{"alg":"PS256","use"`, 1))
	v := New(settingsOf(algorithms...), keySet(t, only), wallOf)
	check(t, v, 0, rsa.For("", "PS256").Token(good), "acme", None)
	check(t, v, 0, rsa.Token(good), "", UnknownKey)
}

func TestVerifierKeys(t *testing.T) {
	one, two, nameless := tokentest.New("one", "EdDSA"), tokentest.New("two", "EdDSA"), tokentest.New("", "EdDSA")
	f := func(token string, fault Fault, set ...*tokentest.Key) {
		t.Helper()
		want := "acme"
		if fault != None {
			want = ""
		}
		check(t, verifierOf(t, settingsOf(), set...), 0, token, want, fault)
	}

	// The name picks the key.
	f(one.Token(good), None, two, one)
	f(two.For("one", "EdDSA").Token(good), Signature, two, one)
	f(one.Token(good), UnknownKey, two)
	// Without one every key is tried, and a key without one is tried for every token.
	f(one.For("", "EdDSA").Token(good), None, two, one)
	f(nameless.Token(good), Signature, two, one)
	f(nameless.For("three", "EdDSA").Token(good), None, two, nameless)
	// One name for two keys.
	f(one.Token(good), None, two.For("one", "EdDSA"), one)
	// A name is a name, and no path or query.
	for _, kid := range []string{"../../../dev/null", "one' OR '1'='1", "*", "ONE", "one\\u0000", "%6fne"} {
		f(two.For("", "EdDSA").Sign(`{"alg":"EdDSA","kid":"`+kid+`"}`, good), UnknownKey, one)
	}
	f(one.Sign(`{"alg":"EdDSA","kid":1}`, good), Malformed, one)
	f(one.Sign(`{"alg":"EdDSA","kid":["one"]}`, good), Malformed, one)
	// Not as many as somebody else pleases.
	many := make([]*tokentest.Key, 0, maxKeys+1)
	for range maxKeys {
		many = append(many, tokentest.New("", "EdDSA"))
	}
	f(many[maxKeys-1].Token(good), None, many...)
	f(one.For("", "EdDSA").Token(good), Signature, append(many, one)...)
}

// The confusions that libraries have fallen for: what a token says of itself must never choose how it is verified.
func TestVerifierForgery(t *testing.T) {
	rsa, ec, ec384, evil := tokentest.New("rsa", "RS256"), tokentest.New("ec", "ES256"), tokentest.New("ec384", "ES384"), tokentest.New("evil", "ES256")
	all := settingsOf("RS256", "PS256", "ES256", "ES384", "EdDSA")
	v := verifierOf(t, all, rsa, ec, ec384)
	f := func(token string, fault Fault) {
		t.Helper()
		check(t, v, 0, token, "", fault)
	}
	encode := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

	// No signature.
	for _, none := range []string{"none", "None", "NONE", "nOnE", ""} {
		text := encode(`{"alg":"`+none+`"}`) + "." + encode(good)
		f(text+".", Malformed)
		f(text+"."+encode("x"), Algorithm)
	}
	f(encode(`{"typ":"JWT"}`)+"."+encode(good)+"."+encode("x"), Algorithm)
	f(encode(`{"alg":["ES256"]}`)+"."+encode(good)+"."+encode("x"), Algorithm)
	f(encode(`{"alg":null}`)+"."+encode(good)+"."+encode("x"), Algorithm)
	f(encode(`{"ALG":"ES256"}`)+"."+encode(good)+"."+encode("x"), Algorithm)
	// The public key as the secret of an HMAC, in the forms that it is had in.
	der, err := x509.MarshalPKIXPublicKey(rsa.Public())
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range [][]byte{der, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), tokentest.Set(rsa), []byte(rsa.JWK()), nil} {
		text := encode(`{"alg":"HS256","kid":"rsa"}`) + "." + encode(good)
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(text))
		f(text+"."+base64.RawURLEncoding.EncodeToString(mac.Sum(nil)), Algorithm)
	}
	// A key for another algorithm, another curve, another padding.
	f(ec384.For("ec384", "ES256").Token(good), UnknownKey)
	f(ec384.For("ec", "ES256").Token(good), Signature)
	f(ec.For("ec384", "ES384").Token(good), Signature)
	f(rsa.Sign(`{"alg":"PS256","kid":"rsa"}`, good), Signature)
	f(rsa.Sign(`{"alg":"EdDSA","kid":"rsa"}`, good), UnknownKey)
	// Keys that the token brings along, or says where to get.
	f(evil.Sign(`{"alg":"ES256","jwk":`+evil.JWK()+`}`, good), Signature)
	f(evil.Sign(`{"alg":"ES256","kid":"ec","jwk":`+evil.JWK()+`}`, good), Signature)
	f(evil.Sign(`{"alg":"ES256","kid":"ec","jku":"https://evil.example.com/jwks.json"}`, good), Signature)
	f(evil.Sign(`{"alg":"ES256","kid":"ec","x5u":"https://evil.example.com/x"}`, good), Signature)
	// What must be understood and is not; a payload that is not encoded; an encrypted token; a token in a token; another form.
	f(ec.Sign(`{"alg":"ES256","crit":["exp"],"exp":1}`, good), Malformed)
	f(ec.Sign(`{"alg":"ES256","crit":["b64"],"b64":true}`, good), Malformed)
	f(ec.Sign(`{"alg":"ES256","crit":[]}`, good), Malformed)
	f(ec.Sign(`{"alg":"ES256","b64":false}`, good), Malformed)
	f(ec.SignText(encode(`{"alg":"ES256","crit":["b64"],"b64":false}`)+"."+good), Malformed)
	f(encode(`{"alg":"dir","enc":"A128GCM"}`)+".."+encode("iv")+"."+encode("text")+"."+encode("tag"), Malformed)
	f(ec.Sign(`{"alg":"ES256","cty":"JWT"}`, ec.Token(good)), Claims)
	f(`{"payload":"`+encode(good)+`","protected":"`+encode(`{"alg":"ES256"}`)+`","signature":"AA"}`, Malformed)
	// The header's members twice, and what is no header.
	f(ec.Sign(`{"alg":"none","alg":"ES256"}`, good), Malformed)
	f(ec.Sign(`{"alg":"ES256","kid":"evil","kid":"ec"}`, good), Malformed)
	f(ec.Sign(`[]`, good), Malformed)
	f(ec.Sign(`{"alg":"ES256"`, good), Malformed)
	f(ec.Sign(`{"alg":"ES256"} {}`, good), Malformed)
}

func TestVerifierSignature(t *testing.T) {
	key := tokentest.New("", "ES256")
	v := verifierOf(t, settingsOf(), key)
	token := key.Token(good)
	part := strings.Split(token, ".")
	signature, err := base64.RawURLEncoding.DecodeString(part[2])
	if err != nil {
		t.Fatal(err)
	}
	f := func(signature []byte) {
		t.Helper()
		check(t, v, 0, part[0]+"."+part[1]+"."+base64.RawURLEncoding.EncodeToString(signature), "", Signature)
	}
	changed := func(i int) []byte {
		s := []byte(string(signature))
		s[i] ^= 1
		return s
	}

	f(changed(0))
	f(changed(63))
	f(signature[:63])
	f(append([]byte{0}, signature...))
	f(make([]byte, 64)) // the zero that a library took for any key's
	// In the form of other protocols.
	der := append([]byte{0x30, 68, 2, 32}, signature[:32]...)
	f(append(append(der, 2, 32), signature[32:]...))
	// Of other claims.
	other := strings.Split(key.Token(strings.Replace(good, "acme", "evil", 1)), ".")
	check(t, v, 0, part[0]+"."+other[1]+"."+part[2], "", Signature)
	check(t, v, 0, other[0]+"."+other[1]+"."+part[2], "", Signature)
	// ECDSA has two signatures for each (r, s and r, n-s), which say the same of the same claims: nothing is gained by the other one.
	order, _ := new(big.Int).SetString("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", 16)
	twin := order.Sub(order, new(big.Int).SetBytes(signature[32:])).FillBytes(make([]byte, 32))
	twin = append([]byte(string(signature[:32])), twin...)
	check(t, v, 0, part[0]+"."+part[1]+"."+base64.RawURLEncoding.EncodeToString(twin), "acme", None)
	// And the token itself.
	check(t, v, 0, token, "acme", None)
}

// There is one way to write a token.
func TestVerifierEncoding(t *testing.T) {
	key := tokentest.New("", "EdDSA")
	v := verifierOf(t, settingsOf(), key)
	f := func(token string) {
		t.Helper()
		check(t, v, 0, token, "", Malformed)
	}
	encode := base64.RawURLEncoding.EncodeToString
	text := func(encode func([]byte) string, payload string) string {
		return encode([]byte(`{"alg":"EdDSA"}`)) + "." + encode([]byte(payload))
	}

	// Nothing, too few and too many parts.
	f("")
	f(".")
	f("..")
	f("a.b")
	f(text(encode, good))
	f(text(encode, good) + ".")
	token := key.Token(good)
	f(token + ".")
	f("." + token)
	f(token + "." + token)
	f(strings.Replace(token, ".", "..", 1))
	// White space, also such as decoders pass over.
	for _, space := range []string{" ", "\t", "\n", "\r\n", "\x00"} {
		f(token + space)
		f(space + token)
		f(strings.Replace(token, ".", space+".", 1))
		f(key.SignText(text(encode, good) + space))
	}
	// Padding, the other alphabet, bits that nobody reads, a length that none has.
	f(key.SignText(text(base64.URLEncoding.EncodeToString, strings.TrimSuffix(good, "}")+`,"x":1}`)))
	f(key.SignText(text(base64.RawStdEncoding.EncodeToString, strings.TrimSuffix(good, "}")+`,"x":"???>>>"}`)))
	f(token + "=")
	f(token[:len(token)-1] + string(token[len(token)-1]+1)) // 64 bytes leave four bits
	f(key.SignText(encode([]byte(`{"alg":"EdDSA"}`)) + ".AAAAA"))
	// JSON may have white space.
	check(t, v, 0, key.Sign(" {\n\t\"alg\" : \"EdDSA\" }\r\n", " "+good+"\n"), "acme", None)

	// As long as a token may be, and longer.
	padded := func(size int) string {
		for n := size / 2; ; n++ {
			if token := key.Token(strings.Replace(good, "{", `{"pad":"`+strings.Repeat("x", n)+`",`, 1)); len(token) >= size {
				return token
			}
		}
	}
	if token := padded(maxBytes - 1); len(token) > maxBytes {
		t.Errorf("%d bytes are no test", len(token))
	} else {
		check(t, v, 0, token, "acme", None)
	}
	f(padded(maxBytes + 1))
}

func TestVerifierClaims(t *testing.T) {
	key := tokentest.New("", "EdDSA")
	v := verifierOf(t, settingsOf(), key)
	f := func(payload, want string, fault Fault) {
		t.Helper()
		check(t, v, 0, key.Token(payload), want, fault)
	}
	with := func(name, value string) string {
		var claims map[string]json.RawMessage
		if err := json.Unmarshal([]byte(good), &claims); err != nil {
			t.Fatal(err)
		}
		text, sep := "{", ""
		for _, known := range []string{"iss", "aud", "exp", "tenant"} {
			if known != name {
				text, sep = text+sep+fmt.Sprintf("%q:%s", known, claims[known]), ","
			}
		}
		if value != "" {
			text += fmt.Sprintf("%s%q:%s", sep, name, value)
		}
		return text + "}"
	}

	f(good, "acme", None)
	// What is no payload.
	for _, payload := range []string{"", "null", "[]", "7", `"` + good + `"`, good + good, good + ",", "{", "\xef\xbb\xbf" + good, strings.Repeat("[", 3000)} {
		fault := Claims
		if payload == "" {
			fault = Malformed
		}
		f(payload, "", fault)
	}
	// A claim twice: of two readers each may take another.
	for _, twice := range []string{`"tenant":"evil"`, `"exp":1`, `"aud":"orders"`, `"iss":"x"`} {
		f(strings.Replace(good, "{", "{"+twice+",", 1), "", Claims)
	}
	// A name whose case is another is another claim.
	f(with("tenant", `"acme","Tenant":"evil"`), "acme", None)

	// The tenant is a string of visible ASCII, however it is written.
	f(with("tenant", `"\u0061c\u006de"`), "acme", None)
	f(with("tenant", `"`+strings.Repeat("a", 128)+`"`), strings.Repeat("a", 128), None)
	for _, value := range []string{"", "null", "true", "7", "7.0", `["acme"]`, `{"id":"acme"}`, `""`, `" "`, `"a b"`, `"ü"`, `"a\u0000"`, `"\ud800"`, "\"a\xff\"",
		`"` + strings.Repeat("a", 129) + `"`} {
		f(with("tenant", value), "", Tenant)
	}
	// The issuer, exactly.
	for _, value := range []string{"", "null", "7", `""`, `"https://id.example.com/"`, `"HTTPS://id.example.com"`, `["https://id.example.com"]`, `"https://evil.example.com"`} {
		f(with("iss", value), "", Issuer)
	}
	// The audience, exactly, or one of several.
	f(with("aud", `["billing","orders"]`), "acme", None)
	f(with("aud", `["orders"]`), "acme", None)
	for _, value := range []string{"", "null", "7", `""`, `[]`, `"Orders"`, `"orders "`, `"billing"`, `["billing"]`, `["orders",7]`, `{"orders":true}`, `[["orders"]]`} {
		f(with("aud", value), "", Audience)
	}

	// Who asks for none takes any, and none.
	open := settingsOf()
	open.Issuer, open.Audience = "", ""
	v = verifierOf(t, open, key)
	f(`{"exp":1700000060,"tenant":"acme"}`, "acme", None)
	f(`{"exp":1700000060,"tenant":"acme","iss":7,"aud":{}}`, "acme", None)
	// The claim may be any that is at the top.
	named := settingsOf()
	named.Claim = "https://example.com/org.id"
	v = verifierOf(t, named, key)
	f(with("https://example.com/org.id", `"globex"`), "globex", None)
	f(good, "", Tenant)
}

func TestVerifierTime(t *testing.T) {
	key := tokentest.New("", "EdDSA")
	f := func(at time.Duration, claims string, fault Fault) {
		t.Helper()
		want := "acme"
		if fault != None {
			want = ""
		}
		token := key.Token(`{"iss":"https://id.example.com","aud":"orders","tenant":"acme"` + claims + `}`)
		check(t, verifierOf(t, settingsOf(), key), int64(at), token, want, fault)
	}
	const past, soon = `,"exp":1699999999`, `,"exp":1700000060`

	// The expiry is required, and the leeway of 10 s is given once it has come, to the nanosecond.
	f(0, ``, Claims)
	f(0, past, None)
	f(8*time.Second, past, None)
	f(9*time.Second, past, Expired)
	f(70*time.Second-time.Microsecond, soon, None)
	f(70*time.Second, soon, Expired)
	f(time.Hour, soon, Expired)
	// The beginning is not, and has the leeway before it.
	f(0, soon+`,"nbf":1700000010`, None)
	f(0, soon+`,"nbf":1700000011`, NotYet)
	f(time.Second, soon+`,"nbf":1700000011`, None)
	f(0, soon+`,"nbf":0`, None)
	f(0, soon+`,"iat":1700000010`, None)
	f(0, soon+`,"iat":1700000011`, NotYet)
	// What has expired before it begins.
	f(0, past+`,"nbf":1700000060`, NotYet)
	// Numbers, as JSON writes them.
	f(0, `,"exp":1700000000.5`, None)
	f(0, `,"exp":1.7e9`, None)
	f(10*time.Second, `,"exp":1700000000.5`, None)
	f(11*time.Second, `,"exp":1700000000.5`, Expired)
	f(0, `,"exp":0`, Expired)
	f(0, `,"exp":1e3`, Expired)
	f(100*365*24*time.Hour, `,"exp":253402300799`, None)
	// And what is no time.
	for _, none := range []string{"null", `"1700000060"`, `"never"`, "true", "[]", "{}", "[1700000060]", "-1", "-0.5", "1e400", "1e300", "253402300800", "9223372036854775807",
		"18446744073709551616", "NaN", "Infinity", "0x7fffffff", "1_700_000_060", "+1700000060", "01700000060"} {
		f(0, `,"exp":`+none, Claims)
		f(0, soon+`,"nbf":`+none, Claims)
		f(0, soon+`,"iat":`+none, Claims)
	}
}

// Each fault has a name and a text of its own, which need no escape where they are sent.
func TestFault(t *testing.T) {
	seen := make(map[string]bool)
	for fault := range faultCount {
		for _, s := range []string{fault.String(), fault.Text()} {
			if s == "" || seen[s] || strings.ContainsAny(s, `"\`) || strings.ToValidUTF8(s, "") != s {
				t.Errorf("fault %d is %q", fault, s)
			}
			seen[s] = true
		}
	}
}

// No one else's token becomes valid, however it is changed.
func FuzzVerifier(f *testing.F) {
	key, rsa := tokentest.New("a", "EdDSA"), tokentest.New("b", "RS256") // whose signatures have no twins
	v := verifierOf(f, settingsOf(), key, rsa)
	valid := []string{key.Token(good), rsa.Token(good), key.For("", "EdDSA").Token(good)}
	for _, token := range valid {
		f.Add([]byte(token))
		f.Add([]byte(token + "="))
		f.Add([]byte(strings.Replace(token, ".", "..", 1)))
	}
	f.Add([]byte("eyJhbGciOiJub25lIn0.e30."))
	f.Add([]byte("eyJhbGciOiJFZERTQSIsImNyaXQiOlsiYjY0Il19.e30.AA"))
	f.Fuzz(func(t *testing.T, token []byte) {
		tenant, fault := v.Tenant(0, token)
		known := false
		for _, s := range valid {
			known = known || s == string(token)
		}
		if (fault == None) != known || (tenant != nil) != known {
			t.Fatalf("%q is %s, of %q", token, fault, tenant)
		}
	})
}

func FuzzClaims(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(`{"exp":1e308,"nbf":-0.0,"iat":0.1,"aud":["orders",null],"iss":"\u0000","tenant":"\ud83d"}`))
	f.Add([]byte(`{"exp":1700000060,"exp":1}`))
	f.Add([]byte(`[[[`))
	settings := settingsOf()
	settings.Issuer, settings.Audience = "", ""
	f.Fuzz(func(t *testing.T, payload []byte) {
		tenant, left, fault := judge(payload, settings, wallOf(0))
		if (fault == None) != policy.ValidTenant(tenant) || (fault == None) != (left > 0) || left > longest {
			t.Fatalf("%q is %s, of %q for %s", payload, fault, tenant, left)
		}
	})
}
