package care

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"weir/control/etcd"
)

// From here on a finding is a warning or a failure. The page on care says the same to people.
const (
	slowRead     = 100 * time.Millisecond // of one read that a majority confirms
	verySlowRead = time.Second
	clockApart   = 2 * time.Second // more than the resolution of what is compared
	clockWrong   = time.Minute
	nearlyFull   = 0.80 // of the quota
	almostFull   = 0.95
	behind       = 1000 // raft entries
	farBehind    = 5000 // etcd refuses writes from here on
	expiresSoon  = 30 * 24 * time.Hour
)

// Findings judges facts: the connection to each endpoint, the cluster, what our user may do, and certificates. It is pure.
func (f Facts) Findings() []Finding {
	list := f.setup()
	if f.SetupErr == nil {
		for i, e := range f.Endpoints {
			list = append(list, f.connection(e, f.latency(i))...)
		}
		if f.ClientErr != nil {
			list = append(list, f.notAsked())
		} else if len(f.Survey.Members) > 0 {
			list = append(list, f.Survey.Findings()...)
			list = append(list, f.permissions()...)
		}
	}
	return append(append(list, f.certificates()...), f.unseen(list)...)
}

// unseen are findings about the categories of which nothing could be found out, so that nobody takes silence for health.
func (f Facts) unseen(list []Finding) []Finding {
	reason := "no endpoint can be reached"
	switch {
	case f.SetupErr != nil:
		reason = f.SetupErr.Error()
	case f.ClientErr != nil:
		reason = f.ClientErr.Error()
	}
	var more []Finding
	for _, c := range []Category{Connection, Etcd, Permissions} {
		if !slices.ContainsFunc(list, func(f Finding) bool { return f.Category == c }) {
			more = append(more, bad(Failure, c, "looked at", "", "See what fails before it: 'sidecar check --only setup,connection,permissions'.", checkPage, "could not be looked at: %s", reason))
		}
	}
	return more
}

func (f Facts) latency(i int) time.Duration {
	if i < len(f.Latencies) {
		return f.Latencies[i]
	}
	return 0
}

func (f Facts) setup() []Finding {
	if f.SetupErr != nil {
		return []Finding{bad(Failure, Setup, "files", "", "Name files that are there and may be read, or mend them.", checkPage, "%v", f.SetupErr)}
	}
	return []Finding{good(Setup, "files", "", "the options fit together, and their files can be read")}
}

// whenSilent is how bad an endpoint is that does not answer: one of several is a warning, since the others serve.
func (f Facts) whenSilent() Level {
	if reachable(f.Endpoints) {
		return Warning
	}
	return Failure
}

// connection judges what was found on the way to one endpoint.
func (f Facts) connection(e Endpoint, read time.Duration) []Finding {
	level := f.whenSilent()
	if e.Err != nil {
		return []Finding{bad(level, Connection, "connection", e.URL,
			"See that the member runs, and that its address is right and open from this machine. Sidecars go on with what they have.",
			checkPage, "%s: %v", e.URL, e.Err)}
	}
	list := []Finding{good(Connection, "connection", e.URL, "%s: connected in %s", e.URL, span(e.Connect))}
	if len(e.Chain) == 0 && !local(e.URL) {
		list = append(list, bad(Warning, Connection, "encryption", e.URL, "Give etcd a certificate and name it with https.", checkPage,
			"%s: neither passwords nor policies are encrypted on the way", e.URL))
	}
	switch {
	case read == 0 && f.ClientErr == nil:
		list = append(list, bad(level, Connection, "latency", e.URL, "What fails below says why.", checkPage, "%s: a read that a majority confirms does not come back", e.URL))
	case read > slowRead:
		level := Warning
		if read > verySlowRead {
			level = Failure
		}
		list = append(list, bad(level, Connection, "latency", e.URL,
			"Look at the members' disks (etcd_disk_wal_fsync_duration_seconds) and at the network between them and to here.", checkPage,
			"%s: a read that a majority confirms takes %s, want under %s", e.URL, span(read), span(slowRead)))
	case read > 0:
		list = append(list, good(Connection, "latency", e.URL, "%s: a read that a majority confirms takes %s", e.URL, span(read)))
	}
	return append(list, clockFinding(e))
}

func clockFinding(e Endpoint) Finding {
	if e.ClockErr != nil {
		return good(Connection, "clock", e.URL, "%s: its clock is not known: %v", e.URL, e.ClockErr)
	}
	apart := e.Clock.Certain()
	level, direction := OK, "ahead of"
	if apart < 0 {
		apart, direction = -apart, "behind"
	}
	switch {
	case apart > clockWrong:
		level = Failure
	case apart > clockApart:
		level = Warning
	default:
		return good(Connection, "clock", e.URL, "%s: its clock is in step with ours, as far as whole seconds tell", e.URL)
	}
	return bad(level, Connection, "clock", e.URL,
		"Let NTP or chrony run on both machines. Certificates and tokens are judged by the clock; limits are not.", checkPage,
		"%s: its clock is at least %s %s ours", e.URL, span(apart), direction)
}

// local reports whether an endpoint is on this machine.
func local(endpoint string) bool {
	network, address, err := place(endpoint)
	return err == nil && (network == "unix" || strings.HasPrefix(address, "127.") || strings.HasPrefix(address, "localhost:") || strings.HasPrefix(address, "[::1]:"))
}

// notAsked is the finding that members are there and do not talk to us.
func (f Facts) notAsked() Finding {
	switch {
	case refused(f.ClientErr) && f.Access.User == "":
		return bad(Failure, Permissions, "login", "", "Name a user with --etcd-username and --etcd-password-file.", checkPage, "etcd asks who we are, and nobody logs in: %v", f.ClientErr)
	case refused(f.ClientErr):
		return bad(Failure, Permissions, "login", "", "See that the user exists and that the password file has its password. Sidecars read a changed file by themselves.",
			checkPage, "etcd refuses our login: %v", f.ClientErr)
	}
	return bad(Failure, Etcd, "answer", "", "See what fails above.", checkPage, "the cluster does not answer: %v", f.ClientErr)
}

// permissions judges what our user may do.
func (f Facts) permissions() []Finding {
	a := f.Access
	var list []Finding
	who := "nobody logs in"
	if a.User != "" {
		who = a.User + " is logged in"
		if len(a.Roles) > 0 {
			who += ", with the role " + strings.Join(a.Roles, ", ")
		}
	}
	const grants = "docs/policies-from-etcd.md"
	switch {
	case a.Login == LoginOff:
		list = append(list, bad(Warning, Permissions, "login", "",
			"Create a user for sidecars and one for people, then run 'etcdctl auth enable'.", grants,
			"etcd does not ask who we are: whoever reaches it may change every limit"))
	default:
		list = append(list, good(Permissions, "login", "", "%s", who))
	}
	list = append(list, allowed(a.ReadPolicy, "read policies", "Grant the user's role to read the prefix of policies.", grants))
	member := allowed(a.WriteMember, "register a sidecar", "Grant the user's role to read and write below its fleet.", grants)
	if f.Service == "" && etcd.Denied(a.WriteMember) {
		member = bad(Warning, Permissions, member.Check, "", "Say which service it is about with --service.", grants, "cannot tell whether a sidecar may register: no service is named")
	}
	list = append(list, member)
	switch {
	case a.WritePolicy == nil:
		list = append(list, good(Permissions, "change policies", "", "may change policies, which sidecars need not"))
	case etcd.Denied(a.WritePolicy):
		list = append(list, good(Permissions, "change policies", "", "may not change policies, as is right for a sidecar"))
	}
	if a.Written > 0 {
		list = append(list, good(Permissions, "write", "", "a write that changes nothing takes %s", span(a.Written)))
	}
	return list
}

// allowed is the finding about one thing that the user must be able to do.
func allowed(err error, what, grant, page string) Finding {
	switch {
	case err == nil:
		return good(Permissions, what, "", "may %s", what)
	case etcd.Denied(err):
		return bad(Failure, Permissions, what, "", grant, page, "may not %s: %v", what, err)
	case full(err):
		return bad(Failure, Permissions, what, "", "Make space first.", spacePage, "cannot %s: the store has no space left", what)
	}
	return bad(Failure, Permissions, what, "", "See what fails above.", checkPage, "cannot %s: %v", what, err)
}

// certificates judges those that the members show and those in our files.
func (f Facts) certificates() []Finding {
	var list []Finding
	for _, e := range f.Endpoints {
		if len(e.Chain) == 0 {
			if strings.HasPrefix(e.URL, "https://") {
				list = append(list, bad(f.whenSilent(), Certificates, "expiry", e.URL, "See what fails about the connection.", checkPage, "%s: its certificate could not be seen", e.URL))
			}
			continue
		}
		first := e.Chain[0]
		for _, c := range e.Chain[1:] {
			if c.Expires.Before(first.Expires) {
				first = c
			}
		}
		expiry := expires(f.Now, first, e.URL, e.URL+" shows the certificate "+first.Subject, "Renew the member's certificate; etcd reads it anew for each connection.")
		list = append(list, expiry)
		if e.Distrust != nil && expiry.Level != Failure {
			list = append(list, bad(Failure, Certificates, "trust", e.URL,
				"Name the authority with --etcd-ca-file, and an endpoint that the certificate is for.", checkPage, "%s: its certificate is not believed: %v", e.URL, e.Distrust))
		}
	}
	for _, file := range f.Files {
		if file.Err != nil {
			list = append(list, bad(Failure, Certificates, "expiry", file.Path, "Name a file that is there and may be read.", checkPage, "%s: %v", file.Holds, file.Err))
			continue
		}
		list = append(list, expires(f.Now, file.Certificate, file.Path, fmt.Sprintf("%s, %s in %s", file.Holds, file.Certificate.Subject, file.Path),
			"Put a renewed one in its place; a running sidecar reads it by itself."))
	}
	return list
}

// expires judges the time that a certificate has left.
func expires(now time.Time, c Certificate, of, what, next string) Finding {
	left := c.Expires.Sub(now)
	until := c.Expires.UTC().Format("2006-01-02")
	switch {
	case now.Before(c.Begins):
		return bad(Failure, Certificates, "expiry", of, "See that the clock of this machine is right.", checkPage, "%s: not valid before %s", what, c.Begins.UTC().Format(time.RFC3339))
	case left <= 0:
		return bad(Failure, Certificates, "expiry", of, next, checkPage, "%s: expired %s ago, on %s", what, span(left), until)
	case left < expiresSoon:
		return bad(Warning, Certificates, "expiry", of, next, checkPage, "%s: expires in %s, on %s", what, span(left), until)
	}
	return good(Certificates, "expiry", of, "%s: valid for %s", what, span(left))
}

// called is a member by the name that it has, or else by its number.
func called(members []Member, id uint64) string {
	for _, m := range members {
		if m.ID == id {
			return cmp.Or(m.Name, m.Endpoint)
		}
	}
	return fmt.Sprintf("%x", id)
}
