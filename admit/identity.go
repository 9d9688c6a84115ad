package admit

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

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
// The headers of apiKey sources are not among them: they are credentials, which the backend may want to see.
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
// but is no tenant (empty, longer than 128 bytes, not visible ASCII, sent in two fields, an unknown key) never falls
// through to the next source: otherwise a client could break its own claim to be taken for the tenant of a more generous
// source. What is not a claim does: a header of a peer that is not believed, a host or path of another shape, an address
// in no network.
type identifier struct {
	trusted []netip.Prefix
	sources []identitySource
}

type identityKind uint8

const (
	fromHeader identityKind = iota
	fromAPIKey
	fromHost
	fromPath
	fromClient
)

type identitySource struct {
	kind     identityKind
	header   string // fromHeader, fromAPIKey
	anyPeer  bool   // fromHeader: believed from whomever
	keys     map[[sha256.Size]byte][]byte
	template template // fromHost, fromPath
	networks networks
}

// newIdentifier compiles the identity sources of a snapshot.
func newIdentifier(s *policy.SidecarSettings) (*identifier, error) {
	id := &identifier{trusted: slices.Clone(s.TrustedProxies), sources: make([]identitySource, len(s.Identity))}
	keyTables := s.APIKeys
	for i := range s.Identity {
		var keys policy.APIKeyTable
		if s.Identity[i].APIKey != nil {
			if len(keyTables) == 0 {
				return nil, fmt.Errorf("cannot use identity[%d]: want a table of keys for every apiKey source, have %d", i, len(s.APIKeys))
			}
			keys, keyTables = keyTables[0], keyTables[1:]
		}
		source, err := newIdentitySource(&s.Identity[i], keys)
		if err != nil {
			return nil, fmt.Errorf("cannot use identity[%d]: %w", i, err)
		}
		id.sources[i] = source
	}
	return id, nil
}

func newIdentitySource(s *policy.IdentitySource, keys policy.APIKeyTable) (source identitySource, err error) {
	switch {
	case s.Header != "":
		return identitySource{kind: fromHeader, header: s.Header, anyPeer: s.Trust == "any"}, nil
	case s.APIKey != nil:
		source = identitySource{kind: fromAPIKey, header: s.APIKey.Header}
		source.keys, err = newKeys(keys)
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
		err = errors.New("want one of header, apiKey, host, path and clientCIDR")
	}
	return source, err
}

// tenant returns who the request is from and the index of the identity source that said so. There are two ways of having no tenant:
//
//	nil, -1   no source found a claim: the request has no identity, and `unknownTenant` decides
//	nil, i    source i found a claim that is no tenant: the request is refused whatever `unknownTenant` says, see refusal
//
// The tenant has 1 to 128 bytes, all visible ASCII. It points into the request or into the identifier and must not be changed.
// Nothing is allocated, but for the host label that template.label speaks of.
func (id *identifier) tenant(req *Request) (tenant []byte, source int) {
	for i := range id.sources {
		claim, found := id.sources[i].claim(req, id.trusted)
		if !found {
			continue
		}
		if !validTenant(claim) {
			return nil, i
		}
		return claim, i
	}
	return nil, -1
}

// refusal returns the reason of a request without tenant, by the source that tenant returned. A key that nobody gave out is
// an unauthenticated request (401); any other broken claim is a broken request (400).
func (id *identifier) refusal(source int) Reason {
	if source < 0 || id.sources[source].kind == fromAPIKey {
		return NoIdentity
	}
	return BadRequest
}

// claim returns what the source read from the request, and whether there was anything to read. A claim that cannot be read as
// one value is found and nil, which is no tenant.
func (s *identitySource) claim(req *Request, trusted []netip.Prefix) (claim []byte, found bool) {
	switch s.kind {
	case fromHeader:
		if !s.anyPeer && !contains(trusted, req.Peer) {
			return nil, false
		}
		return onlyField(req.Header, s.header)
	case fromAPIKey:
		key, found := onlyField(req.Header, s.header)
		if len(key) == 0 {
			return nil, found
		}
		// The time of the look-up tells something of the hash at most, and a hash says nothing of keys near it.
		return s.keys[sha256.Sum256(key)], true
	case fromHost:
		return s.template.label(req.Host)
	case fromPath:
		return s.template.segment(req.Path)
	case fromClient:
		return s.networks.lookup(req.Client)
	}
	panic("BUG: identity source of no kind")
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
