package policy

import (
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// checkSPIFFEPattern takes a path of the SPIFFE ID standard, section 2.2, with the tenant in the place of a segment.
func checkSPIFFEPattern(s string) error {
	if err := checkPathTemplate(s); err != nil {
		return no("spiffepattern", s, "")
	}
	base, _ := strings.CutSuffix(s, "/*")
	if spiffeid.ValidatePath(strings.Replace(base, tenantVariable, "t", 1)) == nil {
		return nil
	}
	if plain := strings.TrimRight(base, "/"); plain != base { // an ID never ends in /
		return no("spiffepattern", s, plain+"/*")
	}
	return refuse("", "%s would never match, since paths of SPIFFE IDs are made of letters, digits, ., - and _", quote(s))
}

// checkTrustDomain is the SPIFFE ID standard, section 2.1.
func checkTrustDomain(s string) error {
	domain, err := spiffeid.TrustDomainFromString(s)
	if err == nil && domain.Name() == s && len(s) <= 255 {
		return nil
	}
	meant := strings.ToLower(strings.TrimPrefix(s, "spiffe://"))
	meant, _, _ = strings.Cut(meant, "/")
	return no("trustdomain", s, meant)
}
