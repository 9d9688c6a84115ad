package upstream

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"weir/proxy/wire"
)

func TestCollector(t *testing.T) {
	var current *Set
	collector := NewCollector(func() *Set { return current })
	if n := testutil.CollectAndCount(collector); n != 0 {
		t.Errorf("%d series without a set", n)
	}
	current = build(t, nil, backendOf("a", listen(t, always(ok))), backendOf("b", unixPath(t)))
	a, b := current.Backend(0), current.Backend(1)
	held, idle := acquire(t, a), acquire(t, a)
	defer held.Release()
	succeed(t, idle)
	for range 2 {
		_, err := b.Acquire(Call{Now: b.shared.clock()})
		wantCause(t, err, ConnectRefused)
	}
	c := acquire(t, a)
	if _, err := c.Exchange([]byte(get), nil, wire.Asked{}); err != nil {
		t.Fatal(err)
	}
	c.Release() // given up before the body was read
	want := `
# HELP weir_upstream_connections Connections to the endpoints of a backend: idle ones wait in the pool, active ones are being dialled or serve a request.
# TYPE weir_upstream_connections gauge
weir_upstream_connections{backend="a",state="active"} 1
weir_upstream_connections{backend="a",state="idle"} 0
weir_upstream_connections{backend="b",state="active"} 0
weir_upstream_connections{backend="b",state="idle"} 0
# HELP weir_upstream_dials_total Attempts to connect to an endpoint of a backend, failed ones included.
# TYPE weir_upstream_dials_total counter
weir_upstream_dials_total{backend="a"} 2
weir_upstream_dials_total{backend="b"} 2
`
	if err := testutil.CollectAndCompare(collector, strings.NewReader(want), "weir_upstream_connections", "weir_upstream_dials_total"); err != nil {
		t.Error(err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		if f.GetName() == "weir_upstream_requests_total" {
			for _, m := range f.GetMetric() {
				if v := m.GetCounter().GetValue(); v != 0 {
					got[m.GetLabel()[0].GetValue()+" "+m.GetLabel()[1].GetValue()] = v
				}
			}
		}
	}
	for series, want := range map[string]float64{"a 2xx": 1, "a canceled": 1, "b connect_refused": 2} {
		if got[series] != want {
			t.Errorf("%s is %v, want %v", series, got[series], want)
		}
	}
	if len(got) != 3 {
		t.Errorf("got %v, want 3 series above 0", got)
	}
	problems, err := testutil.CollectAndLint(collector)
	if err != nil || len(problems) != 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
}

func TestCausesHaveNames(t *testing.T) {
	seen := map[string]Cause{}
	for c := range causeCount {
		name := c.String()
		if other, taken := seen[name]; taken || name == "invalid" || name == "" {
			t.Errorf("cause %d is called %q, like %d", c, name, other)
		}
		seen[name] = c
	}
}
