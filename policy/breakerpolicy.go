package policy

// BreakerPolicySpec sheds or stops traffic to a target that leaves its baseline or fails. At least one of qpsBaseline and failures
// is set.
type BreakerPolicySpec struct {
	// Target is what the breaker watches and protects.
	Target BreakerTarget `yaml:"target" weir:"required"`
	// PerTenant gives each tenant a breaker of its own, so that no tenant's garbage or broken backend touches the others.
	PerTenant bool `yaml:"perTenant"`
	// Scope is this process alone, or all sidecars of the service with one level.
	Scope string `yaml:"scope" weir:"enum=Sidecar|Fleet,default=Sidecar,later=Fleet"`
	// QPSBaseline degrades when the rate of requests leaves its baseline: routes with criticality NonCore are shed.
	QPSBaseline *QPSBaseline `yaml:"qpsBaseline"`
	// Failures opens when too many calls fail or are slow: nothing but a few probes gets through.
	Failures *Failures `yaml:"failures"`
	// Open says how an open breaker tries again.
	Open BreakerOpen `yaml:"open"`
}

// BreakerTarget names a Backend or a Route.
type BreakerTarget struct {
	// Kind of the target.
	Kind string `yaml:"kind" weir:"required,enum=Backend|Route"`
	// Name of the target.
	Name string `yaml:"name" weir:"required,format=dnslabel"`
}

// QPSBaseline compares the rate of requests that passed their tenants' limits with its own past.
type QPSBaseline struct {
	// Sample is the length of one sample.
	Sample Duration `yaml:"sample" weir:"default=5s,min=100ms,max=744h"`
	// Baseline is how far back the past reaches: at least five samples.
	Baseline Duration `yaml:"baseline" weir:"default=5m,min=1s,max=744h"`
	// Deviation from the baseline that counts.
	Deviation Percent `yaml:"deviation" weir:"default=35%,min=1%"`
	// Periods is how many samples in a row must deviate.
	Periods int `yaml:"periods" weir:"default=3,min=1,max=1000"`
	// Direction that counts.
	Direction string `yaml:"direction" weir:"enum=Rise|Fall|Both,default=Rise"`
	// MinRate in requests a second is the floor under which nothing is judged.
	MinRate int `yaml:"minRate" weir:"default=20,min=0,max=1000000000"`
	// Recover is how many samples in a row must be back.
	Recover int `yaml:"recover" weir:"default=3,min=1,max=1000"`
}

// Failures counts failed and slow calls in a sliding window.
type Failures struct {
	// Window is how far back calls count.
	Window Duration `yaml:"window" weir:"default=10s,min=1s,max=744h"`
	// Ratio of failed calls that opens. 0% means none does.
	Ratio Percent `yaml:"ratio" weir:"default=10%"`
	// MinRequests in the window before a ratio is judged.
	MinRequests int `yaml:"minRequests" weir:"default=20,min=1,max=1000000000"`
	// Statuses of the backend that count as failures: classes as "5xx", or single ones. Empty means 5xx. What breaks the call
	// itself, as no connection, a reset or a timeout of the backend, counts always; what a client causes, never.
	Statuses []string `yaml:"statuses" weir:"format=statuses"`
	// SlowerThan makes a call slow that has no answer's head by then. 0 means that none is slow.
	SlowerThan Duration `yaml:"slowerThan" weir:"default=0s,min=0s"`
	// SlowRatio of slow calls that opens. Goes with slowerThan.
	SlowRatio Percent `yaml:"slowRatio" weir:"default=50%"`
	// Consecutive failures that open, whatever the ratio. 0 means none do.
	Consecutive int `yaml:"consecutive" weir:"default=0,min=0,max=1000000000"`
}

// BreakerOpen says how an open breaker tries again. It goes with failures.
type BreakerOpen struct {
	// For is how long it stays open before it probes. It doubles each time that the probes fail.
	For Duration `yaml:"for" weir:"default=5s,min=1ms,max=744h"`
	// MaxFor is the longest, after doubling.
	MaxFor Duration `yaml:"maxFor" weir:"default=1m,min=1ms,max=744h"`
	// Probes is how many requests are let through then, to see whether the target has recovered.
	Probes int `yaml:"probes" weir:"default=3,min=1,max=1000000"`
	// Ramp is how long traffic takes to rise to the whole after closing.
	Ramp Duration `yaml:"ramp" weir:"default=10s,min=0s,max=744h"`
}
