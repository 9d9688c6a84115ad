// Package token verifies JSON Web Tokens (RFC 7519) and remembers those that it has verified.
//
// # Contract
//
// A [Verifier] takes a token for what one identity source allows: one signature in the compact form of RFC 7515, by an algorithm
// that is listed, with a key of the set that is for this algorithm; an expiry that has not come; and the issuer and the audience
// that are asked for. Nothing in the token says how it is to be verified: keys that it brings along, or addresses of keys, are not
// looked at. What is not understood, such as a critical header, makes it invalid.
//
// Verifying allocates and takes about a tenth of a millisecond, with ES384 and ES512 some milliseconds. A token seen before costs one SHA-256 and neither allocates nor locks. The
// memory of the remembered is bounded, and what was not valid takes none of it. Time is an argument.
//
// # Trade-off
//
// A token is remembered until it expires: one that its issuer revoked is believed until then. Keep the lifetime of tokens short, or
// take the key out of the set, which forgets all tokens.
//
// # When not to use it
//
// It takes no encrypted tokens, and no shared secrets (HS256): who can verify with one can also sign.
package token

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"reflect"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"weir/policy"
)

const (
	// maxBytes is the longest token that is looked at.
	maxBytes = 8 << 10
	// maxKeys is how many keys are tried for one token, so that tokens that name no key cannot make each request expensive.
	maxKeys = 8
)

// Fault says why a token is not valid. None is the zero value.
type Fault uint8

// The faults, in the order in which a token is checked.
const (
	None       Fault = iota
	Malformed        // no signed token in compact form, longer than 8 KiB, sent twice, or with a critical header
	Algorithm        // signed by an algorithm that is not listed
	UnknownKey       // no key of the set is for it
	Signature        // changed, or signed by somebody else
	Claims           // no JSON object, without expiry, or with a time that is none
	Expired          // exp is past
	NotYet           // nbf or iat is to come
	Issuer           // another iss
	Audience         // aud does not have ours
	Tenant           // the claim is missing, or no tenant
	faultCount
)

// FaultCount is the number of faults, None included: the length of an array indexed by Fault.
const FaultCount = int(faultCount)

// String returns the snake_case name used in metrics and logs.
func (f Fault) String() string {
	return [faultCount]string{"none", "token_malformed", "token_algorithm", "token_key", "token_signature", "token_claims",
		"token_expired", "token_not_yet", "token_issuer", "token_audience", "token_tenant"}[f]
}

// Text says in words what is wrong. It has none of the characters that a quoted string (RFC 9110, section 5.6.4) would escape.
func (f Fault) Text() string {
	return [faultCount]string{"The token is valid", "This is no signed token in compact form", "The algorithm of the signature is not accepted",
		"No known key is for this token", "The signature is not valid", "The claims are not valid, or there is no expiry",
		"The token has expired", "The token is not valid yet", "The issuer is not accepted", "The token is for another audience",
		"The token names no tenant"}[f]
}

// Verifier verifies the tokens of one identity source. It is safe for concurrent use.
type Verifier struct {
	settings   *policy.JWTIdentity
	set        policy.KeySet
	wall       func(now int64) time.Time
	algorithms []jose.SignatureAlgorithm
	keys       map[string][]policy.VerificationKey // by algorithm, of those listed
	verified   *cache
}

// New returns a verifier that has seen no token. The settings are those of a snapshot, with at least one algorithm. wall tells the
// wall time, by which tokens expire, of a reading of the clock of now.
func New(settings *policy.JWTIdentity, set policy.KeySet, wall func(now int64) time.Time) *Verifier {
	v := &Verifier{
		settings: settings, set: set, wall: wall,
		keys: make(map[string][]policy.VerificationKey), verified: newCache(maxRemembered),
	}
	for _, algorithm := range settings.Algorithms {
		v.algorithms = append(v.algorithms, jose.SignatureAlgorithm(algorithm))
		for _, key := range set {
			if key.Verifies(algorithm) {
				v.keys[algorithm] = append(v.keys[algorithm], key)
			}
		}
	}
	return v
}

// Serves says whether a verifier made of these would decide like v, which can then go on with what it remembers.
func (v *Verifier) Serves(settings *policy.JWTIdentity, set policy.KeySet) bool {
	return reflect.DeepEqual(v.settings, settings) && v.set.Equal(set)
}

// Tenant returns the tenant that a token names, or why it is not valid. The tenant must not be changed.
func (v *Verifier) Tenant(now int64, token []byte) ([]byte, Fault) {
	if len(token) > maxBytes {
		return nil, Malformed
	}
	sum := sha256.Sum256(token)
	if r := v.verified.find(&sum); r != nil {
		if now >= r.until {
			return nil, Expired // and stays so
		}
		return r.tenant, None
	}
	return v.verify(now, string(token), sum)
}

// verify does what is left to do for a token that is not remembered.
func (v *Verifier) verify(now int64, token string, sum [sha256.Size]byte) ([]byte, Fault) {
	if !wellFormed(token) {
		return nil, Malformed
	}
	signed, err := jose.ParseSignedCompact(token, v.algorithms)
	if err != nil {
		if _, ok := errors.AsType[*jose.ErrUnexpectedSignatureAlgorithm](err); ok {
			return nil, Algorithm
		}
		return nil, Malformed
	}
	header := &signed.Signatures[0].Protected
	if header.ExtraHeaders["crit"] != nil || header.ExtraHeaders["b64"] != nil {
		return nil, Malformed // we understand none of them (RFC 7515, section 4.1.11)
	}
	payload, fault := v.open(signed, header)
	if fault != None {
		return nil, fault
	}
	tenant, left, fault := judge(payload, v.settings, v.wall(now))
	if fault != None {
		return nil, fault
	}
	r := &remembered{sum: sum, tenant: []byte(tenant), until: now + int64(left)}
	v.verified.add(now, r)
	return r.tenant, None
}

// open returns the payload of a token that one of the keys has signed.
func (v *Verifier) open(signed *jose.JSONWebSignature, header *jose.Header) ([]byte, Fault) {
	tried := 0
	for _, key := range v.keys[header.Algorithm] {
		// A token that names no key fits every key, and a key without a name every token.
		if header.KeyID != "" && key.ID != "" && header.KeyID != key.ID {
			continue
		}
		if tried++; tried > maxKeys {
			break
		}
		if payload, err := signed.Verify(key.Key); err == nil {
			return payload, None
		}
	}
	if tried == 0 {
		return nil, UnknownKey
	}
	return nil, Signature
}

// wellFormed says whether a token is three parts in base64url, each written in the only way that RFC 7515 allows: without padding,
// white space, and bits that decoding would drop. So there are not many tokens with one signature.
func wellFormed(token string) bool {
	parts := 0
	for part := range strings.SplitSeq(token, ".") {
		if parts++; parts > 3 || part == "" || strings.ContainsAny(part, "\r\n") { // which the decoder passes over
			return false
		}
		if _, err := base64.RawURLEncoding.Strict().DecodeString(part); err != nil {
			return false
		}
	}
	return parts == 3
}
