// Package tokentest makes keys and signs tokens for tests, good ones and bad ones.
//
// # Contract
//
// It uses nothing of what verifies tokens: signatures, encodings and key sets are made here from RFC 7515, 7517 and 7518 with the
// standard library alone. A failure to sign is a defect of the test, and panics.
//
// # When not to use it
//
// Outside of tests: it signs whatever it is told to, also what no honest issuer would.
package tokentest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // the hashes of the algorithms
	_ "crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/big"
	"strings"
)

// Key signs tokens.
type Key struct {
	ID        string // kid; empty: none
	Algorithm string
	private   crypto.Signer
}

// New makes a key of that name for an algorithm, RSA keys with 2048 bits.
func New(id, algorithm string) *Key {
	k := &Key{ID: id, Algorithm: algorithm}
	var err error
	switch algorithm {
	case "ES256":
		k.private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		k.private, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		k.private, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "EdDSA":
		_, k.private, err = ed25519.GenerateKey(rand.Reader)
	default:
		k.private, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	must(err)
	return k
}

// For is the same key, said to be of another name and to sign by another algorithm of its type.
func (k *Key) For(id, algorithm string) *Key { return &Key{id, algorithm, k.private} }

// Set is a JSON Web Key Set of the public keys.
func Set(keys ...*Key) []byte {
	var all []string
	for _, k := range keys {
		all = append(all, k.JWK())
	}
	return []byte(`{"keys":[` + strings.Join(all, ",") + `]}`)
}

// JWK is the public key.
func (k *Key) JWK() string {
	jwk := `{"use":"sig"`
	if k.ID != "" {
		jwk += fmt.Sprintf(`,"kid":%q`, k.ID)
	}
	switch public := k.private.Public().(type) {
	case *rsa.PublicKey:
		exponent := binary.BigEndian.AppendUint32(nil, uint32(public.E))[1:]
		jwk += `,"kty":"RSA","n":"` + encode(public.N.Bytes()) + `","e":"` + encode(exponent) + `"`
	case *ecdsa.PublicKey:
		point, err := public.Bytes() // 4, then both coordinates
		must(err)
		half := (len(point) - 1) / 2
		jwk += fmt.Sprintf(`,"kty":"EC","crv":%q,"x":"%s","y":"%s"`, public.Params().Name, encode(point[1:1+half]), encode(point[1+half:]))
	case ed25519.PublicKey:
		jwk += `,"kty":"OKP","crv":"Ed25519","x":"` + encode(public) + `"`
	}
	return jwk + "}"
}

// Public is the public key as its bytes in the set: what a forger has.
func (k *Key) Public() crypto.PublicKey { return k.private.Public() }

// Token signs a payload under the usual header.
func (k *Key) Token(payload string) string {
	header := fmt.Sprintf(`{"typ":"JWT","alg":%q`, k.Algorithm)
	if k.ID != "" {
		header += fmt.Sprintf(`,"kid":%q`, k.ID)
	}
	return k.Sign(header+"}", payload)
}

// Sign signs a payload under any header.
func (k *Key) Sign(header, payload string) string {
	return k.SignText(encode([]byte(header)) + "." + encode([]byte(payload)))
}

// SignText signs a text that need not be of two parts in base64url.
func (k *Key) SignText(text string) string { return text + "." + encode(k.signature(text)) }

func (k *Key) signature(text string) []byte {
	hash := hashOf(k.Algorithm)
	if hash == 0 { // Ed25519 has one of its own
		signature, err := k.private.Sign(nil, []byte(text), crypto.Hash(0))
		must(err)
		return signature
	}
	h := hash.New()
	h.Write([]byte(text))
	digest := h.Sum(nil)
	var signature []byte
	var err error
	switch private := k.private.(type) {
	case *ecdsa.PrivateKey: // both numbers, each as long as the curve's order (RFC 7518, section 3.4)
		var r, s *big.Int
		r, s, err = ecdsa.Sign(rand.Reader, private, digest)
		size := (private.Params().BitSize + 7) / 8
		signature = append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
	case *rsa.PrivateKey:
		if k.Algorithm[0] == 'P' {
			signature, err = rsa.SignPSS(rand.Reader, private, hash, digest, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		} else {
			signature, err = rsa.SignPKCS1v15(rand.Reader, private, hash, digest)
		}
	}
	must(err)
	return signature
}

func hashOf(algorithm string) crypto.Hash {
	switch algorithm[len(algorithm)-3:] {
	case "256":
		return crypto.SHA256
	case "384":
		return crypto.SHA384
	case "512":
		return crypto.SHA512
	}
	return 0
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func must(err error) {
	if err != nil {
		panic("BUG: cannot make a token: " + err.Error())
	}
}
