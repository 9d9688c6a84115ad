package policy

// APIVersion is the only version of the resource group this build reads and writes.
const APIVersion = "weir.dev/v1alpha1"

// Kind names one sort of document.
type Kind string

// The kinds of the resource group.
const (
	KindSidecar       Kind = "Sidecar"
	KindBackend       Kind = "Backend"
	KindRoute         Kind = "Route"
	KindTenantPolicy  Kind = "TenantPolicy"
	KindBreakerPolicy Kind = "BreakerPolicy"
	KindPolicyTest    Kind = "PolicyTest"
	KindDistribution  Kind = "Distribution"
)

// Metadata identifies a document within its kind.
type Metadata struct {
	// Name is a DNS label, unique within the kind.
	Name string `yaml:"name" weir:"required,format=dnslabel"`
	// Labels are free key-value pairs. A Distribution selects documents by them; a sidecar gives them no meaning.
	Labels map[string]string `yaml:"labels"`
	// Annotations are free key-value pairs for notes. Weir gives them no meaning.
	Annotations map[string]string `yaml:"annotations"`
}

// Field tags. The decoder, the validator, docs/reference.md, the JSON Schema and `sidecar explain` all
// read the same tags, so they cannot disagree:
//
//	yaml:"name"                 the field's name in a document
//	weir:"required"             absence is an error
//	weir:"default=5s"           what absence means; applied before the document is decoded
//	weir:"enum=A|B|C"           the legal values
//	weir:"min=0" weir:"max=100" the legal range, in the field's own unit
//	weir:"format=dnslabel"      a named format, see formats.go
//	weir:"later"                the whole field belongs to a later version: any use is refused
//	weir:"later=B|C"            these enum values belong to a later version and are refused
//
// Options are separated by commas.
