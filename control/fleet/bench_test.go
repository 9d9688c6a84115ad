package fleet

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"weir/control/etcd"
	"weir/control/etcd/etcdtest"
	"weir/policy"
)

// BenchmarkAcknowledge is one change that every member of a fleet acknowledges: how long until the last one has, and what it costs etcd.
func BenchmarkAcknowledge(b *testing.B) {
	for _, size := range []int{50, 200, 1000} {
		b.Run(fmt.Sprintf("members=%d", size), func(b *testing.B) {
			cluster := etcdtest.Start(b, etcdtest.Options{})
			c := open(b, cluster.Endpoint(0))
			sidecars := make([]*sidecar, size)
			for i := range sidecars {
				sidecars[i] = join(b, c, fmt.Sprintf("web-%d", i))
			}
			eventually(b, "all know how many they are", func() bool {
				return !slices.ContainsFunc(sidecars, func(s *sidecar) bool { return int(s.size.Load()) < size*9/10 }) && len(members(b, c)) == size
			})
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			watch := cluster.Client().Watch(ctx, membersPrefix(layout, "orders"), clientv3.WithPrefix())
			writes := 0
			var took []time.Duration
			b.ResetTimer()
			for i := range b.N {
				b.StopTimer()
				pause(ctx, 2*pace(size)) // a change that comes alone
				b.StartTimer()
				revision := int64(1_000_000 + i)
				begun := time.Now()
				for _, s := range sidecars {
					s.Report(applied(revision))
				}
				for waiting := size; waiting > 0; {
					answer := <-watch
					writes += len(answer.Events)
					for _, e := range answer.Events {
						m := decodeMember("", "", e.Kv.Value)
						if here := m.Here(); here != nil && here.Revision == revision {
							took = append(took, time.Since(begun))
							waiting--
						}
					}
				}
			}
			b.StopTimer()
			slices.Sort(took)
			b.ReportMetric(took[len(took)/2].Seconds()*1000, "p50-ms")
			b.ReportMetric(took[len(took)*95/100].Seconds()*1000, "p95-ms")
			b.ReportMetric(took[len(took)-1].Seconds()*1000, "last-ms")
			b.ReportMetric(float64(writes)/float64(b.N*size), "writes/member")
		})
	}
}

// BenchmarkJudge is one look of the coordinator at a large fleet.
func BenchmarkJudge(b *testing.B) {
	view := etcd.View{Revision: 1000}
	s := applied(1000)
	for i := range 500 {
		name := fmt.Sprintf("p%d", i)
		view.Items = append(view.Items, etcd.Item{Key: layout.Document(policy.KindTenantPolicy, name), Value: []byte(text(name, "1")), Modified: 900})
		s.Objects = append(s.Objects, applied(0, name+"=1").Objects...)
	}
	var m Member
	m.tell(s, "platform")
	fleet := slices.Repeat([]Member{m}, 10_000)
	want := WantOf(layout, view)
	b.ReportAllocs()
	for b.Loop() {
		for _, v := range Judge(fleet, want) {
			if v.State != StateInSync {
				b.Fatal(v)
			}
		}
	}
}
