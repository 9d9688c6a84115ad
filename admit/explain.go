package admit

import (
	"slices"
	"strconv"
	"strings"

	"weir/admit/token"
	"weir/limit"
	"weir/policy"
)

// Question is a request to be explained.
type Question struct {
	// Request is as the proxy would make it.
	Request *Request
	// Tenant, unless it is empty, is taken for the identity, and the Sidecar's sources are not asked.
	Tenant string
}

// Explain says how a request would be decided at now, without deciding it: nothing is spent, made, moved or counted. The answer
// comes from Match and Decide themselves, asked about copies of the cells; see rehearse. Trace.At is left to whoever has a
// wall clock.
//
// It allocates, and its time grows with the policies that cover the tenant. Safe for concurrent use.
func (t *Table) Explain(now int64, q Question) Trace {
	identity, source, fault := []byte(q.Tenant), -1, token.None
	if q.Tenant == "" {
		identity, source, fault = t.identifier.tenant(now, q.Request)
	}
	r, cell := t.rehearse(now, string(identity))
	m := r.match(now, q.Request, identity, source)
	f := facts{
		identity: string(identity), given: q.Tenant != "", source: source, fault: fault, known: m.Tenant != t.nobody && m.Tenant != r.unknown,
		nobody: m.Tenant == t.nobody, route: m.Route.index, backend: m.Backend, cost: max(m.Cost, 0),
		inFlight: m.Tenant.seat.gate.InFlight(), waiting: int64(m.Tenant.seat.waiting.Load()),
	}
	if !f.nobody {
		f.cell = cell.String()
	}
	if m.Backend >= 0 {
		f.place = t.backends[m.Backend].told()
	}
	if m.Reason == Passed {
		f.levels = m.Tenant.levels(m.Tenant.plan.on(m.Route.index), now, nil, -1)
		f.breakers = t.breakersOf(now, &m)
	}
	f.verdict = r.Decide(now, &m)
	if f.verdict.Waits() {
		f.waits = waitsForGate
		if f.verdict.AtBackend() {
			f.waits = waitsForBackend
		}
		if t.rejects(&m, &f.verdict) {
			f.verdict.Reason, f.verdict.firm = Concurrency, true
			if f.waits == waitsForBackend {
				f.verdict.Reason = Overload
			}
			f.waits = ""
		}
	}
	f.would = m.Tenant.would(&f.verdict, m.Route.index, now, f.cost)
	f.status = t.statusOf(&m, f.verdict.Reason)
	trace := t.trace(&f, &m.Tenant.plan.terms)
	trace.Request = traceRequest(q.Request)
	trace.Request.Cost = f.cost
	if m.Cost == noCost {
		trace.Notes = append(trace.Notes, "the header that says the cost of the request has no number from 0 to 1000000000, or is there twice")
	}
	if f.route >= 0 {
		t.explainRoute(&trace.Route, f.route, q.Request)
	}
	return trace
}

// faultText says what is wrong with a token; empty for nothing.
func faultText(f token.Fault) string {
	if f == token.None {
		return ""
	}
	return f.Text()
}

func traceRequest(req *Request) TraceRequest {
	told := TraceRequest{Method: string(req.Method), Host: string(req.Host), Path: string(req.Path)}
	if req.Client.IsValid() {
		told.Client = req.Client.String()
	}
	return told
}

// status is what a client of the tenant is told with; 0 for Passed.
func (tn *Tenant) status(r Reason) int {
	switch r {
	case Limited, TooCostly, Concurrency:
		return tn.plan.terms.Reject.Status
	}
	return r.Status()
}

// statusOf is what the client of a request is told with; 0 for Passed.
func (t *Table) statusOf(m *Match, r Reason) int {
	if fallback := t.fallbackOf(m.Route.index, r); fallback != nil {
		return fallback.Status
	}
	return m.Tenant.status(r)
}

// facts are what is known of one decision, made now or remembered.
type facts struct {
	identity       string
	given          bool
	source         int
	fault          token.Fault // of the token by which it was to be identified
	known, nobody  bool        // known by policy; else the tenant is unknown, and nobody where such are refused
	cell           string
	route, backend int // -1: none
	cost, inFlight int64
	breakers       []metBreaker
	levels         []level
	verdict, would Verdict      // would: of the limits in shadow
	waits          string       // for what, before there is a verdict
	waiting        int64        // of its tenant's, before the gate
	place          TraceBackend // as full as its backend is
	status         int
}

// would is the verdict of the limits in shadow that v names the limit of. As it refused the request, nothing was spent on it.
func (tn *Tenant) would(v *Verdict, route int, now, n int64) Verdict {
	if v.Shadow == nil {
		return Verdict{}
	}
	for _, c := range tn.plan.on(route).shadow {
		if c.limit == v.Shadow {
			would := Verdict{Reason: Limited, Limit: v.Shadow}
			b := tn.bucket(c.limit, c.slot)
			if d := b.Ask(now, n); !d.OK { // refunded since, at most
				would.Reason, would.RetryAfter = reasonOf(b, d), d.RetryAfter
			}
			return would
		}
	}
	panic("BUG: a limit in shadow has answered on a route that it does not apply to")
}

// level is how one limit stood that was asked, or would have been.
type level struct {
	limit *Limit
	limit.Level
}

// levels appends the levels of the limits to ask on one route, the enforced ones first and those in bytes last, until dst has as
// many as it may.
func (tn *Tenant) levels(list *checks, now int64, dst []level, most int) []level {
	for _, checks := range [...][]check{list.enforced, list.shadow, list.bytes} {
		for i := range checks {
			if len(dst) == most {
				return dst
			}
			b := tn.bucket(checks[i].limit, checks[i].slot)
			dst = append(dst, level{checks[i].limit, b.Level(now)})
		}
	}
	return dst
}

// refuses says whether the bucket has not what a request costs. A limit in bytes refuses nothing.
func (l *level) refuses(cost int64) bool {
	return l.limit.rule.Unit == policy.UnitRequests && (l.limit.rate.Blocks() || l.Available < cost)
}

func (l *level) told(cost int64) *TraceLevel {
	return &TraceLevel{Available: l.Available, FullIn: Span(l.Full), Refuses: l.refuses(cost)}
}

// state is the level as answers tell it.
func (l *level) state() LimitState {
	r := &l.limit.rule
	return LimitState{
		Name: r.Name, Policy: r.Policy, Unit: r.Unit, Requests: r.Requests, Per: r.Per, Burst: l.limit.rate.Burst(),
		Available: l.Available, Next: l.Next, Reset: l.Full, Shadow: r.Shadow,
	}
}

// trace puts facts beside the documents that they follow from.
func (t *Table) trace(f *facts, terms *policy.Plan) Trace {
	s := t.snapshot
	trace := Trace{Limits: []TraceLimit{}, Terms: []TraceTerm{}}
	trace.Identity = TraceIdentity{Given: f.given, Tenant: f.identity, Source: f.source, Fault: faultText(f.fault), Origin: t.placeOf(policy.KindSidecar, s.Sidecar.Name)}
	for i := range s.Sidecar.Identity {
		if f.given || f.source >= 0 && i > f.source {
			break
		}
		source := &s.Sidecar.Identity[i]
		kind, detail := source.Describe()
		asked := strings.TrimSpace(kind + " " + detail)
		if source.Header != "" && source.Trust != "any" {
			asked += " (of trusted proxies)"
		}
		trace.Identity.Asked = append(trace.Identity.Asked, asked)
		if i == f.source {
			trace.Identity.Kind, trace.Identity.Detail = kind, detail
		}
	}
	policies := t.policiesOf(f)
	trace.Tenant = TraceTenant{
		Known: f.known, Policies: []string{}, Cell: f.cell, InFlight: f.inFlight, Concurrency: terms.Concurrency, Waiting: f.waiting,
	}
	for _, i := range s.MostSpecificFirst(policies) {
		trace.Tenant.Policies = append(trace.Tenant.Policies, s.Policies[i].Name+" ("+s.Policies[i].Selector()+")")
	}
	if f.route >= 0 {
		name := s.Routes[f.route].Name
		trace.Route = TraceRoute{Name: name, Origin: t.placeOf(policy.KindRoute, name)}
	}
	told := s.Provenance(policies)
	for i := range told.Limits {
		trace.Limits = append(trace.Limits, t.traceLimit(&told.Limits[i], f))
	}
	for i := range told.Terms {
		o := &told.Terms[i]
		trace.Terms = append(trace.Terms, TraceTerm{o.Term, o.Value, o.Policy, o.Selector, Place(o.Origin), replacement(o.Replaced)})
	}
	if f.backend >= 0 {
		trace.Backend = f.place
		trace.Backend.Name, trace.Backend.Why = s.Backends[f.backend].Name, t.whyBackend(f, terms, trace.Terms)
	}
	for i := range f.breakers {
		b := f.breakers[i].told()
		b.Origin = t.placeOf(policy.KindBreakerPolicy, b.Name)
		trace.Breakers = append(trace.Breakers, b)
	}
	f.tell(&trace, terms)
	if fallback := t.fallbackOf(f.route, f.verdict.Reason); fallback != nil {
		trace.Verdict.Fallback = fallbackText(fallback)
		if fallback.Status < 300 { // nobody is told when to come back with an answer that went well
			trace.Verdict.Headers = nil
		}
	}
	return trace
}

// tell adds the verdicts.
func (f *facts) tell(trace *Trace, terms *policy.Plan) {
	v := &f.verdict
	trace.Verdict = verdictOf(v)
	if f.waits != "" {
		trace.Verdict = TraceVerdict{WaitsFor: f.waits}
		return
	}
	trace.Verdict.Status, trace.Verdict.Headers = f.status, f.headers(terms)
	inShadow := func(l policy.LimitRule) bool { return l.Shadow && l.Unit == policy.UnitRequests }
	if !v.firm && slices.ContainsFunc(terms.Limits, inShadow) && v.decided() {
		would := verdictOf(&f.would)
		trace.Shadow = &would
	}
}

// headers are the fields that tell a refused client of its limits, without the part of Retry-After that is chance.
func (f *facts) headers(terms *policy.Plan) (fields []string) {
	switch f.verdict.Reason {
	case Limited, TooCostly, Concurrency:
	case Overload:
		return []string{"Retry-After: " + SoonRetry}
	case Shed, BreakerOpen:
		return []string{"Retry-After: " + strconv.FormatInt(RetryAfter(f.verdict.RetryAfter, 0), 10)}
	default:
		return nil
	}
	var states []LimitState
	for i := range f.levels {
		if l := &f.levels[i]; !l.limit.rule.Shadow {
			states = append(states, l.state())
		}
	}
	if terms.Concurrency > 0 {
		states = append(states, gateState(terms.Concurrency, f.inFlight))
	}
	f.verdict.TellRefused(nil, terms.Reject.Headers, states, 0, func(name string, value []byte) {
		fields = append(fields, name+": "+string(value))
	})
	return fields
}

// decided says whether limits had a say.
func (v *Verdict) decided() bool { return v.Reason == Passed || v.Limit != nil }

func verdictOf(v *Verdict) TraceVerdict {
	told := TraceVerdict{Passes: v.Reason == Passed, Reason: v.Reason.String(), Breaker: v.Breaker, RetryAfter: Span(v.RetryAfter)}
	if v.Limit != nil {
		told.Policy, told.Limit = v.Limit.rule.Policy, v.Limit.rule.Name
	}
	return told
}

// policiesOf returns the policies that applied, as indexes.
func (t *Table) policiesOf(f *facts) []int {
	switch {
	case f.known:
		return t.snapshot.Covering(f.identity, nil)
	case f.nobody:
		return nil
	case t.snapshot.Sidecar.UnknownTenant == policy.UnknownShared:
		return t.snapshot.AnyPolicies()
	}
	return t.snapshot.UnknownPolicies()
}

// traceLimit says what became of one limit.
func (t *Table) traceLimit(o *policy.LimitOrigin, f *facts) TraceLimit {
	told := ruleOf(&o.LimitRule)
	told.Selector, told.ReplacedBy = o.Selector, replacement(o.Replaced)
	for _, route := range o.Routes {
		told.Routes = append(told.Routes, t.snapshot.Routes[route].Name)
	}
	switch {
	case o.Replaced != nil:
		told.State = RuleReplaced
	case f.route >= 0 && len(o.Routes) > 0 && !slices.Contains(o.Routes, f.route):
		told.State = RuleOtherRoute
	case !f.verdict.decided():
		told.State = RuleNotAsked
	default:
		told.State = RuleAsked
	}
	for i := range f.levels {
		if l := &f.levels[i]; l.limit.key() == (limitKey{o.Policy, o.Name}) {
			told.Level = l.told(f.cost)
		}
	}
	return told
}

// ruleOf is a limit without what its table knows of it.
func ruleOf(r *policy.LimitRule) TraceLimit {
	return TraceLimit{
		Policy: r.Policy, Name: r.Name, Origin: Place(r.Origin), Unit: r.Unit.String(), Requests: r.Requests, Per: Span(r.Per), Burst: r.Burst,
		Bucket: r.Bucket.String(), Shadow: r.Shadow, Final: r.Final,
	}
}

func replacement(r *policy.Replacement) *TraceReplacement {
	if r == nil {
		return nil
	}
	return &TraceReplacement{r.Policy, Place(r.Origin), r.Why}
}

// whyBackend says which of the rules of Route.target chose the backend.
func (t *Table) whyBackend(f *facts, plan *policy.Plan, terms []TraceTerm) string {
	route := t.routes[f.route]
	if _, pinned := route.pinned[f.identity]; pinned {
		return "the route's split lists the tenant"
	}
	if plan.Backend >= 0 {
		for i := range terms {
			if terms[i].Term == "backend" && terms[i].ReplacedBy == nil {
				return "TenantPolicy " + terms[i].Policy + " (" + terms[i].Origin.String() + ")"
			}
		}
	}
	if len(route.split) > 0 {
		return "the route's split, by weight"
	}
	return "the route's"
}

// placeOf is where a document is written; zero for what is implied.
func (t *Table) placeOf(kind policy.Kind, name string) Place {
	for i := range t.snapshot.Documents {
		if d := &t.snapshot.Documents[i]; d.Kind == kind && d.Name == name {
			return Place(d.Origin)
		}
	}
	return Place{}
}
