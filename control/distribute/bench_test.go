package distribute

import (
	"fmt"
	"testing"

	"weir/control/etcd"
)

// BenchmarkChange is what one change of one of 10,000 documents costs for one cluster that gets all of them, besides what etcd does: to
// make out what is wanted, to judge it and to compare.
func BenchmarkChange(b *testing.B) {
	texts := make(map[string]string)
	for i := range 10_000 {
		name := fmt.Sprintf("t%d", i)
		texts["TenantPolicy/"+name] = policyText(name, 100)
	}
	r := rules(b, "")
	before := sourceOf(etcd.Change{}, nil, texts)
	was := r.want(before, nil)
	have, ours := make(map[string]etcd.Item), make(map[string]int64)
	for key, text := range texts {
		have[key], ours[key] = etcd.Item{Value: []byte(text), Modified: 7}, 7
	}
	delete(texts, "TenantPolicy/t7")
	texts["TenantPolicy/t7@11"] = policyText("t7", 50)
	after := sourceOf(etcd.Change{}, before, texts)
	b.ResetTimer()
	for b.Loop() {
		w := r.want(after, was)
		if v := r.judge(w, nil, documents(was.texts), 0); v.held != "" {
			b.Fatal(v.held)
		}
		if n := len(compare(w, have, ours)); n != 1 {
			b.Fatalf("%d differences", n)
		}
	}
}
