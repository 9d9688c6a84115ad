package etcd

import (
	"testing"

	"weir/policy"
)

// A key that is taken for a document's is the key of that document, and of no other.
func FuzzDocumentOf(f *testing.F) {
	layout := LayoutAt("/weir/")
	for _, key := range []string{layout.Document(policy.KindRoute, "a"), layout.Policy(), layout.Change(), layout.Policy() + "a/b/c", "/weir/v1/policyx/a/b", ""} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		kind, name, err := layout.DocumentOf(key)
		if err == nil && (layout.Document(kind, name) != key || key == layout.Change()) {
			t.Errorf("%q is taken for %s %q", key, kind, name)
		}
	})
}
