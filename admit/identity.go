package admit

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unsafe"

	"weir/admit/token"
	"weir/policy"
)

// maxTenantBytes is the longest tenant.
const maxTenantBytes = 128

// defaultIdentityHeader tells the backend the tenant when no identity source is a header.
const defaultIdentityHeader = "X-Tenant-ID"

// IdentityHeaders returns the request headers that carry a claim of who the tenant is: those of every `header` source, and
// the canonical one. They are stripped from what goes to the backend, whoever sent them, and exactly one canonical header
// takes their place. Each name is listed once, in the spelling of the document; names compare without case.
//
// The headers of apiKey and jwt sources are not among them: they are credentials, which the backend may want to see.
func IdentityHeaders(s *policy.SidecarSettings) []string {
	names := []string{CanonicalIdentityHeader(s)}
	for i := range s.Identity {
		name := s.Identity[i].Header
		if name != "" && !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) }) {
			names = append(names, name)
		}
	}
	return names
}

// CanonicalIdentityHeader returns the name of the one header that tells the backend the tenant: that of the first `header`
// source, else X-Tenant-ID.
func CanonicalIdentityHeader(s *policy.SidecarSettings) string {
	for i := range s.Identity {
		if s.Identity[i].Header != "" {
			return s.Identity[i].Header
		}
	}
	return defaultIdentityHeader
}

// identifier finds out who the tenant of a request is. It is immutable and safe for concurrent use.
//
// The sources are asked in the order of the document, and the first one that finds a claim decides. A claim that is there
// but is no tenant (empty, longer than 128 bytes, not visible ASCII, sent in two fields, an unknown key, a token that is not
// valid) never falls through to the next source: otherwise a client could break its own claim to be taken for the tenant of
// a more generous source. What is not a claim does: a header of a peer that is not believed, credentials of a scheme other than
// Bearer, a host, path or SPIFFE ID of another shape, an address in no network.
type identifier struct {
	trusted []netip.Prefix
	sources []identitySource
	// challenges are the values of WWW-Authenticate, by what is wrong with the token.
	challenges [token.FaultCount]string
}

type identityKind uint8

const (
	fromHeader identityKind = iota
	fromAPIKey
	fromJWT
	fromSPIFFE
	fromHost
	fromPath
	fromClient
)

type identitySource struct {
	kind     identityKind
	header   string // fromHeader, fromAPIKey, fromJWT
	anyPeer  bool   // fromHeader: believed from whomever
	keys     map[[sha256.Size]byte][]byte
	tokens   *token.Verifier
	domain   string   // fromSPIFFE: the trust domain; empty: any
	template template // fromHost, fromPath, fromSPIFFE
	networks networks
}

// newIdentifier compiles the identity sources of a snapshot. What prev, which may be nil, remembers of tokens is kept where the source
// and its keys are the same.
func newIdentifier(prev *identifier, s *policy.SidecarSettings, wall func(now int64) time.Time) (*identifier, error) {
	id := &identifier{trusted: slices.Clone(s.TrustedProxies), sources: make([]identitySource, len(s.Identity))}
	id.challenges[token.None] = `Weir realm="tenant"`
	keyTables, keySets := s.APIKeys, s.KeySets
	for i := range s.Identity {
		var err error
		switch source := &s.Identity[i]; {
		case source.APIKey != nil && len(keyTables) == 0:
			err = fmt.Errorf("want a table of keys for every apiKey source, have %d", len(s.APIKeys))
		case source.APIKey != nil:
			id.sources[i] = identitySource{kind: fromAPIKey, header: source.APIKey.Header}
			id.sources[i].keys, err = newKeys(keyTables[0])
			keyTables = keyTables[1:]
		case source.JWT != nil && len(keySets) == 0:
			err = fmt.Errorf("want a key set for every jwt source, have %d", len(s.KeySets))
		case source.JWT != nil && wall == nil:
			err = errors.New("want a wall clock for jwt, have none")
		case source.JWT != nil:
			id.sources[i] = identitySource{kind: fromJWT, header: source.JWT.Header, tokens: prev.verifier(source.JWT, keySets[0], wall)}
			id.challenges = bearerChallenges()
			keySets = keySets[1:]
		default:
			id.sources[i], err = newIdentitySource(source)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot use identity[%d]: %w", i, err)
		}
	}
	return id, nil
}

// bearerChallenges are those of RFC 6750, section 3: who sent no token is not told of an error.
func bearerChallenges() (all [token.FaultCount]string) {
	const scheme = `Bearer realm="tenant"`
	for fault := range all {
		all[fault] = scheme + `, error="invalid_token", error_description="` + token.Fault(fault).Text() + `"`
	}
	all[token.None] = scheme
	return all
}

// verifier returns the one of a source with these settings and keys, or a new one.
func (id *identifier) verifier(s *policy.JWTIdentity, set policy.KeySet, wall func(now int64) time.Time) *token.Verifier {
	if id != nil {
		for i := range id.sources {
			if v := id.sources[i].tokens; v != nil && v.Serves(s, set) {
				return v
			}
		}
	}
	return token.New(s, set, wall)
}

// newIdentitySource makes a source that needs no keys.
func newIdentitySource(s *policy.IdentitySource) (source identitySource, err error) {
	switch {
	case s.Header != "":
		return identitySource{kind: fromHeader, header: s.Header, anyPeer: s.Trust == "any"}, nil
	case s.SPIFFE != nil:
		source = identitySource{kind: fromSPIFFE, domain: s.SPIFFE.TrustDomain}
		source.template, err = parseSPIFFEPattern(s.SPIFFE.PathPattern)
	case s.Host != "":
		source.kind = fromHost
		source.template, err = parseHostTemplate(s.Host)
	case s.Path != "":
		source.kind = fromPath
		source.template, err = parsePathTemplate(s.Path)
	case len(s.ClientCIDR) > 0:
		source.kind = fromClient
		source.networks, err = newNetworks(s.ClientCIDR)
	default:
		err = errors.New("want one of header, jwt, apiKey, spiffe, host, path and clientCIDR")
	}
	return source, err
}

// tenant returns who the request is from and the index of the identity source that said so. There are two ways of having no tenant:
//
//	nil, -1   no source found a claim: the request has no identity, and `unknownTenant` decides
//	nil, i    source i found a claim that is no tenant: the request is refused whatever `unknownTenant` says, see refusal;
//	          when the claim is a token, the fault says why
//
// The tenant has 1 to 128 bytes, all visible ASCII. It points into the request or into the identifier and must not be changed.
// Nothing is allocated, but for a token that is new, and the host label that template.label speaks of.
func (id *identifier) tenant(now int64, req *Request) (tenant []byte, source int, fault token.Fault) {
	for i := range id.sources {
		claim, found, fault := id.sources[i].claim(now, req, id.trusted)
		if !found {
			continue
		}
		if !validTenant(claim) {
			return nil, i, fault
		}
		return claim, i, token.None
	}
	return nil, -1, token.None
}

// refusal returns the reason of a request without tenant, by the source that tenant returned. Credentials that nobody gave out are
// an unauthenticated request (401); any other broken claim is a broken request (400).
func (id *identifier) refusal(source int) Reason {
	if source < 0 {
		return NoIdentity
	}
	switch id.sources[source].kind {
	case fromAPIKey, fromJWT, fromSPIFFE:
		return NoIdentity
	}
	return BadRequest
}

// claim returns what the source read from the request, and whether there was anything to read. A claim that cannot be read as
// one value is found and nil, which is no tenant.
func (s *identitySource) claim(now int64, req *Request, trusted []netip.Prefix) (claim []byte, found bool, fault token.Fault) {
	switch s.kind {
	case fromHeader:
		if !s.anyPeer && !contains(trusted, req.Peer) {
			return nil, false, token.None
		}
		claim, found = onlyField(req.Header, s.header)
	case fromAPIKey:
		var key []byte
		if key, found = onlyField(req.Header, s.header); len(key) > 0 {
			// The time of the look-up tells something of the hash at most, and a hash says nothing of keys near it.
			claim = s.keys[sha256.Sum256(key)]
		}
	case fromJWT:
		var field []byte
		if field, found = onlyField(req.Header, s.header); found {
			if field, found = bearer(field); found {
				claim, fault = s.tokens.Tenant(now, field)
			}
		}
	case fromSPIFFE:
		claim, found = s.member(req.SPIFFE)
	case fromHost:
		claim, found = s.template.label(req.Host)
	case fromPath:
		claim, found = s.template.segment(req.Path)
	case fromClient:
		claim, found = s.networks.lookup(req.Client)
	default:
		panic("BUG: identity source of no kind")
	}
	return claim, found, fault
}

// bearer returns the token in a field's value (RFC 6750, section 2.1), and false when the value is credentials of another scheme. A
// value without a scheme is a token; nil stands for two fields.
func bearer(field []byte) (credentials []byte, found bool) {
	scheme, rest, spaced := bytes.Cut(field, []byte(" "))
	switch {
	case equalsLower(scheme, "bearer"):
		return bytes.TrimLeft(rest, " "), true
	case spaced:
		return nil, false
	}
	return field, true
}

// schemeSPIFFE begins every SPIFFE ID.
const schemeSPIFFE = "spiffe://"

// member returns the segment of a SPIFFE ID in the pattern's place, and false when the ID is of another trust domain or shape. What is
// there and no SPIFFE ID is a broken claim.
func (s *identitySource) member(id string) (tenant []byte, found bool) {
	if id == "" {
		return nil, false
	}
	rest, ok := strings.CutPrefix(id, schemeSPIFFE)
	if !ok {
		return nil, true
	}
	slash := strings.IndexByte(rest, '/')
	if slash < 0 || s.domain != "" && rest[:slash] != s.domain {
		return nil, false
	}
	path := rest[slash:]
	return s.template.segment(unsafe.Slice(unsafe.StringData(path), len(path))) // nobody changes the tenant
}

// onlyField returns the value of a header that must not be repeated: of two fields, the backend or a proxy before us may
// have read the other one.
func onlyField(h Headers, name string) (value []byte, found bool) {
	value, count := h.Lookup(name)
	if count > 1 {
		return nil, true
	}
	return value, count == 1
}

// ValidTenant reports whether s can be a tenant: 1 to 128 bytes of visible ASCII.
func ValidTenant(s string) bool { return validTenant(s) }

// validTenant reports whether s is 1 to 128 bytes of visible ASCII.
func validTenant[T string | []byte](s T) bool {
	if len(s) == 0 || len(s) > maxTenantBytes {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func invalidTenant(tenant string) error {
	return fmt.Errorf("cannot use tenant %q: want 1 to %d bytes of visible ASCII", tenant, maxTenantBytes)
}

// newKeys copies the table to one whose tenants can be handed out as bytes.
func newKeys(table policy.APIKeyTable) (map[[sha256.Size]byte][]byte, error) {
	keys := make(map[[sha256.Size]byte][]byte, len(table))
	for hash, tenant := range table {
		if !validTenant(tenant) {
			return nil, invalidTenant(tenant)
		}
		keys[hash] = []byte(tenant)
	}
	return keys, nil
}

// networks maps addresses to tenants, the longest prefix first: one look-up for each length that occurs.
type networks struct {
	lengths4, lengths6 []int // descending
	tenants            map[netip.Prefix][]byte
}

func newNetworks(entries []policy.CIDRTenant) (networks, error) {
	n := networks{tenants: make(map[netip.Prefix][]byte, len(entries))}
	for i := range entries {
		network, tenant := entries[i].CIDR.Prefix().Masked(), entries[i].Tenant
		if !network.IsValid() {
			return networks{}, fmt.Errorf("cannot use clientCIDR[%d]: want a network such as 10.1.0.0/16", i)
		}
		if !validTenant(tenant) {
			return networks{}, invalidTenant(tenant)
		}
		if other, ok := n.tenants[network]; ok && string(other) != tenant {
			return networks{}, fmt.Errorf("cannot give network %s to tenant %q: it is %q's, want one tenant for each network", network, tenant, other)
		}
		n.tenants[network] = []byte(tenant)
		lengths := &n.lengths6
		if network.Addr().Is4() {
			lengths = &n.lengths4
		}
		if !slices.Contains(*lengths, network.Bits()) {
			*lengths = append(*lengths, network.Bits())
		}
	}
	descending := func(a, b int) int { return cmp.Compare(b, a) }
	slices.SortFunc(n.lengths4, descending)
	slices.SortFunc(n.lengths6, descending)
	return n, nil
}

func (n *networks) lookup(addr netip.Addr) (tenant []byte, found bool) {
	addr = plain(addr)
	lengths := n.lengths6
	if addr.Is4() {
		lengths = n.lengths4
	}
	for _, length := range lengths {
		network, err := addr.Prefix(length)
		if err != nil {
			return nil, false
		}
		if tenant, found = n.tenants[network]; found {
			return tenant, true
		}
	}
	return nil, false
}
