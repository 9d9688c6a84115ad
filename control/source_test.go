package control

import (
	"testing"

	"weir/policy"
)

// Tests and distributions of policies may stand beside them: good or broken, they are nothing that could be in force, nor a problem of what is.
func TestPolicyTestsArePassedOver(t *testing.T) {
	const text = "apiVersion: weir.dev/v1alpha1\nkind: Backend\nmetadata: {name: orders}\nspec: {endpoints: [{address: \"127.0.0.1:9000\"}]}\n" +
		"---\napiVersion: weir.dev/v1alpha1\nkind: PolicyTest\nmetadata: {name: good}\n" +
		"spec: {cases: [{name: x, requests: [{tenant: acme}], expect: [{allowed: 1}]}]}\n" +
		"---\napiVersion: weir.dev/v1alpha1\nkind: PolicyTest\nmetadata: {name: broken}\nspec: {cases: []}\n" +
		"---\napiVersion: weir.dev/v1alpha1\nkind: Distribution\nmetadata: {name: broken}\nspec: {to: []}\n"
	d := decodeFile("files", File{Path: "a.yaml", Data: []byte(text)})
	if len(d.objects) != 1 || d.objects[0].doc.Kind != policy.KindBackend || len(d.problems) > 0 {
		t.Errorf("got %d documents and the problems %v, want the Backend alone", len(d.objects), d.problems)
	}
}
