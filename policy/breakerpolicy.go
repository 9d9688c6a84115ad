package policy

// BreakerPolicySpec sheds or stops traffic to a target that leaves its baseline or fails.
// The kind belongs to a later version: documents of it are refused.
type BreakerPolicySpec struct {
	// Target is what the breaker watches and protects.
	Target BreakerTarget `yaml:"target" weir:"required"`
	// PerTenant gives each tenant a breaker of its own.
	PerTenant bool `yaml:"perTenant"`
	// Scope is this process alone, or all sidecars of the service with one level.
	Scope string `yaml:"scope" weir:"enum=Sidecar|Fleet,default=Sidecar"`
	// QPSBaseline degrades when the offered rate leaves its baseline.
	QPSBaseline *QPSBaseline `yaml:"qpsBaseline"`
	// Failures opens when too many calls fail or are slow.
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

// QPSBaseline compares the offered rate with its own past.
type QPSBaseline struct {
	// Sample is the length of one sample.
	Sample Duration `yaml:"sample" weir:"default=5s,min=100ms"`
	// Baseline is how far back the past reaches.
	Baseline Duration `yaml:"baseline" weir:"default=5m,min=1s"`
	// Deviation from the baseline that counts.
	Deviation Percent `yaml:"deviation" weir:"default=35%"`
	// Periods is how many samples in a row must deviate.
	Periods int `yaml:"periods" weir:"default=3,min=1"`
	// Direction that counts.
	Direction string `yaml:"direction" weir:"enum=Rise|Fall|Both,default=Rise"`
	// MinRate in requests a second is the floor under which nothing is judged.
	MinRate int `yaml:"minRate" weir:"default=20,min=0"`
	// Recover is how many samples in a row must be back.
	Recover int `yaml:"recover" weir:"default=3,min=1"`
}

// Failures counts failed and slow calls in a sliding window.
type Failures struct {
	// Window is how far back calls count.
	Window Duration `yaml:"window" weir:"default=10s,min=1s"`
	// Ratio of failed calls that opens.
	Ratio Percent `yaml:"ratio" weir:"default=10%"`
	// MinRequests in the window before anything is judged.
	MinRequests int `yaml:"minRequests" weir:"default=20,min=1"`
	// Statuses that count as failures: "5xx" or single ones.
	Statuses []string `yaml:"statuses"`
	// SlowerThan makes a call slow.
	SlowerThan Duration `yaml:"slowerThan" weir:"default=0s,min=0s"`
	// SlowRatio of slow calls that opens.
	SlowRatio Percent `yaml:"slowRatio" weir:"default=50%"`
	// Consecutive hard failures that open. 0 means none do.
	Consecutive int `yaml:"consecutive" weir:"default=0,min=0"`
}

// BreakerOpen says how an open breaker tries again.
type BreakerOpen struct {
	// For is how long it stays open before it probes.
	For Duration `yaml:"for" weir:"default=5s,min=1ms"`
	// MaxFor is the longest, after doubling.
	MaxFor Duration `yaml:"maxFor" weir:"default=1m,min=1ms"`
	// Probes let through half-open.
	Probes int `yaml:"probes" weir:"default=3,min=1"`
	// Ramp is how long traffic takes to rise to the whole after closing.
	Ramp Duration `yaml:"ramp" weir:"default=10s,min=0s"`
}
