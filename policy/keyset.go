package policy

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json" // refuses a member that is there twice, and compares names by case
)

// minRSABits is the size of the smallest RSA key (RFC 7518, section 3.3). The largest that the library takes has 8192.
const minRSABits = 2048

// jwk is what is looked at of a key before it is parsed (RFC 7517, section 4, and RFC 7518, section 6).
type jwk struct {
	Type       string   `json:"kty"`
	Use        string   `json:"use"`
	Operations []string `json:"key_ops"`
	Algorithm  string   `json:"alg"`
	ID         string   `json:"kid"`

	// Of private keys and shared secrets.
	D    json.RawMessage `json:"d"`
	P    json.RawMessage `json:"p"`
	Q    json.RawMessage `json:"q"`
	K    json.RawMessage `json:"k"`
	Priv json.RawMessage `json:"priv"`
}

func (k *jwk) secret() bool {
	return k.D != nil || k.P != nil || k.Q != nil || k.K != nil || k.Priv != nil
}

// Verifies says whether the key is for signatures by an algorithm.
func (k *VerificationKey) Verifies(algorithm string) bool {
	return slices.Contains(k.Algorithms, algorithm)
}

// Equal says whether two sets hold the same keys, by the same names, for the same algorithms, in the same order.
func (s KeySet) Equal(other KeySet) bool {
	return slices.EqualFunc(s, other, func(a, b VerificationKey) bool {
		return a.ID == b.ID && slices.Equal(a.Algorithms, b.Algorithms) && bytes.Equal(a.der, b.der)
	})
}

// ParseKeySet reads a JSON Web Key Set (RFC 7517) of public keys. Keys for encryption are passed over; so are, with a warning, keys
// that this version cannot use, as section 5 of the RFC asks. A set that holds a secret is refused: it would lie about in a process
// that has no use for it. So is one without any key to verify signatures with.
//
// No problem quotes the file. With a problem of severity Error the set is nil.
func ParseKeySet(file string, data []byte) (KeySet, []Problem) {
	var problems []Problem
	report := func(severity Severity, path, format string, args ...any) {
		problems = append(problems, Problem{
			Severity: severity, Origin: Origin{File: file}, Path: path, Message: fmt.Sprintf(format, args...),
		})
	}
	var document struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &document); err != nil {
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			report(Error, "", "no JSON: %v", err)
			problems[0].Origin = originOf(file, data, int(syntax.Offset))
			return nil, problems
		}
		document.Keys = nil
	}
	if document.Keys == nil {
		report(Error, "", `no JSON Web Key Set: want {"keys": […]} with at least one public key`)
		return nil, problems
	}
	set := make(KeySet, 0, len(document.Keys))
	secret := false
	for i, text := range document.Keys {
		at := joinIndex("keys", i)
		var k jwk
		if err := json.Unmarshal(text, &k); err != nil {
			report(Warning, at, "passed over: %v", err)
			continue
		}
		if k.secret() {
			secret = true
			report(Error, at, "a secret: want public keys only; make a new key, since this one has been given away")
			continue
		}
		if k.Use != "" && k.Use != "sig" || k.Operations != nil && !slices.Contains(k.Operations, "verify") {
			continue
		}
		key, err := k.parse(text)
		if err != nil {
			report(Warning, at, "passed over: %s", strings.TrimPrefix(err.Error(), "go-jose/go-jose: "))
			continue
		}
		set = append(set, key)
	}
	if secret {
		return nil, problems
	}
	if len(set) == 0 {
		report(Error, "keys", "none of the %d keys can verify a signature", len(document.Keys))
		return nil, problems
	}
	return set, problems
}

// parse reads a public key.
func (k *jwk) parse(text []byte) (VerificationKey, error) {
	var parsed jose.JSONWebKey
	if err := json.Unmarshal(text, &parsed); err != nil {
		if errors.Is(err, jose.ErrUnsupportedKeyType) {
			return VerificationKey{}, errors.New("a key of a type that is not known here: want RSA, EC with P-256, P-384 or P-521, or OKP with Ed25519")
		}
		return VerificationKey{}, err
	}
	key := VerificationKey{ID: k.ID, Key: parsed.Key}
	var err error
	if key.Algorithms, err = algorithmsOf(key.Key); err != nil {
		return VerificationKey{}, err
	}
	if k.Algorithm != "" {
		if !slices.Contains(key.Algorithms, k.Algorithm) {
			return VerificationKey{}, fmt.Errorf("its alg is none that its key can verify: want %s", list(key.Algorithms, "or"))
		}
		key.Algorithms = []string{k.Algorithm}
	}
	key.der, err = x509.MarshalPKIXPublicKey(key.Key)
	return key, err
}

// algorithmsOf returns the signatures that a key can verify (RFC 7518, section 3.1, and RFC 8037).
func algorithmsOf(key crypto.PublicKey) ([]string, error) {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < minRSABits {
			return nil, fmt.Errorf("an RSA key of %d bits: want at least %d", bits, minRSABits)
		}
		if key.E < 3 || key.E%2 == 0 {
			return nil, fmt.Errorf("an RSA key with the exponent %d: want an odd one of at least 3", key.E)
		}
		return []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}, nil
	case *ecdsa.PublicKey:
		switch key.Params().Name {
		case "P-256":
			return []string{"ES256"}, nil
		case "P-384":
			return []string{"ES384"}, nil
		case "P-521":
			return []string{"ES512"}, nil
		}
	case ed25519.PublicKey:
		return []string{"EdDSA"}, nil
	}
	return nil, fmt.Errorf("a key of type %T", key)
}

// originOf is the place of a byte in a text.
func originOf(file string, text []byte, offset int) Origin {
	before := text[:min(max(offset-1, 0), len(text))]
	return Origin{File: file, Line: 1 + bytes.Count(before, []byte("\n")), Column: len(before) - bytes.LastIndexByte(before, '\n')}
}
