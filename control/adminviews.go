package control

import (
	"fmt"
	stdlog "log"
	"net/http"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/rs/zerolog"

	"weir/policy"
)

// TenantList is what /tenants shows. Whoever owns the live table fills it in.
type TenantList struct {
	// Tenants are sorted by name.
	Tenants []Tenant `json:"tenants"`
	// OnDemand is the number of tenants that have state without being named, and Capacity how many there can be.
	OnDemand int `json:"onDemand"`
	// Overflow is the number of cells in use that newcomers share because there was no room for their own.
	Overflow int `json:"overflow"`
	Capacity int `json:"capacity"`
}

// Tenant is one tenant's terms, and what is left of them.
type Tenant struct {
	Name     string `json:"name"`
	InFlight int64  `json:"inFlight"`
	// Waiting are requests that wait for the tenant's gate or for a backend; the latter are in flight as well.
	Waiting int64 `json:"waiting"`
	// Concurrency is the most requests in flight. 0 means no bound.
	Concurrency int `json:"concurrency"`
	// Weight is the tenant's part of a backend that is full, relative to that of others.
	Weight int `json:"weight"`
	// Limits are the effective ones, in the order in which they are asked.
	Limits []TenantLimit `json:"limits"`
}

// TenantLimit is one effective limit of a tenant.
type TenantLimit struct {
	Policy   string `json:"policy"`
	Name     string `json:"name"`
	Requests int64  `json:"requests"`
	Bytes    int64  `json:"bytes,omitempty"` // in place of Requests, which is 0 then; Burst and Available are bytes too
	// Per is a Go duration.
	Per   string `json:"per"`
	Burst int64  `json:"burst"`
	// Available is the number of tokens left now.
	Available int64 `json:"available"`
	Shadow    bool  `json:"shadow,omitempty"`
}

func (a *admin) status(w http.ResponseWriter, r *http.Request) {
	s := a.o.Status()
	if wantsJSON(r) {
		s.Problems = orEmpty(s.Problems)
		writeJSON(w, http.StatusOK, s)
		return
	}
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "revision\t%d\n", s.Revision)
	fmt.Fprintf(t, "hash\t%s\n", s.Hash)
	fmt.Fprintf(t, "applied\t%s\n", stamp(s.AppliedAt))
	fmt.Fprintf(t, "documents\t%d applied, %d last good, %d refused\n", s.Counts.Applied, s.Counts.LastGood, s.Counts.Refused)
	fmt.Fprintf(t, "problems\t%d\n", len(s.Problems))
	for _, source := range s.Sources {
		state := "healthy"
		if source.Error != "" {
			state = "unreadable: " + source.Error
		} else if !source.Healthy {
			state = "unreadable in part, see /policy/problems"
		}
		where := "in " + count(source.Files, "file")
		if source.Revision > 0 {
			where = fmt.Sprintf("at revision %d", source.Revision)
		}
		fmt.Fprintf(t, "source %s\t%s; %s %s, read %s\n", source.Name, state, count(source.Documents, "document"), where, stamp(source.ReadAt))
		if n := len(source.HeldRemovals); n > 0 {
			fmt.Fprintf(t, "\tthe removal of %s is held back, see /policy/problems\n", count(n, "tenant"))
		}
	}
	if g := s.LastGood; g.Path != "" || g.InUse > 0 {
		fmt.Fprintf(t, "last good\t%s, written %s; %s in force from it\n", g.Path, stamp(g.WrittenAt), count(g.InUse, "document"))
		if g.Error != "" {
			fmt.Fprintf(t, "\tnot written: %s\n", g.Error)
		}
	} else if s.Remote() {
		fmt.Fprint(t, "last good\tnot kept: a start without etcd would have to do without its documents; name a file with --last-good\n")
	}
	_ = t.Flush()
	writeText(w, http.StatusOK, b.String())
}

// orEmpty makes JSON say [] where nil would be null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// stamp is a time for people.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format(time.RFC3339)
}

func (a *admin) policy(w http.ResponseWriter, r *http.Request) {
	s := a.o.Status()
	if wantsJSON(r) {
		writeJSON(w, http.StatusOK, struct {
			Revision  uint64   `json:"revision"`
			Hash      string   `json:"hash"`
			Documents []Object `json:"documents"`
		}{s.Revision, s.Hash, orEmpty(s.Objects)})
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# revision: %d\n# hash: %s\n", s.Revision, s.Hash)
	for _, o := range s.Objects {
		if o.Text == "" {
			fmt.Fprintf(&b, "# refused: %s %q, see /policy/problems\n", o.Kind, o.Name)
			continue
		}
		fmt.Fprintf(&b, "---\n# origin: %q\n# digest: %s\n", o.Origin, o.Digest)
		if o.Stored {
			b.WriteString("# read from the last-good file\n")
		}
		if o.State != Applied {
			fmt.Fprintf(&b, "# state: %s, see /policy/problems\n", o.State)
		}
		b.WriteString(o.Text)
	}
	w.Header().Set("Content-Type", "application/yaml; charset=utf-8")
	_, _ = w.Write([]byte(b.String()))
}

func (a *admin) problems(w http.ResponseWriter, r *http.Request) {
	s := a.o.Status()
	if wantsJSON(r) {
		writeJSON(w, http.StatusOK, orEmpty(s.Problems))
		return
	}
	if len(s.Problems) == 0 {
		writeText(w, http.StatusOK, "no problems\n")
		return
	}
	var b strings.Builder
	for _, p := range s.Problems {
		_ = p.Render(&b, false) // a Builder takes everything
	}
	writeText(w, http.StatusOK, b.String())
}

func (a *admin) tenants(w http.ResponseWriter, r *http.Request) {
	list := a.o.Tenants(r.URL.Query().Get("tenant"))
	if wantsJSON(r) {
		list.Tenants = orEmpty(list.Tenants)
		writeJSON(w, http.StatusOK, list)
		return
	}
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TENANT\tWEIGHT\tIN FLIGHT\tLIMIT\tRATE\tBURST\tAVAILABLE")
	for _, tenant := range list.Tenants {
		inFlight := fmt.Sprint(tenant.InFlight)
		if tenant.Concurrency > 0 {
			inFlight += fmt.Sprintf(" of %d", tenant.Concurrency)
		}
		if tenant.Waiting > 0 {
			inFlight += fmt.Sprintf(", %d waiting", tenant.Waiting)
		}
		if len(tenant.Limits) == 0 {
			fmt.Fprintf(t, "%s\t%d\t%s\tnone\n", tenant.Name, tenant.Weight, inFlight)
		}
		for i, limit := range tenant.Limits {
			name, weight, flight := tenant.Name, fmt.Sprint(tenant.Weight), inFlight
			if i > 0 {
				name, weight, flight = "", "", ""
			}
			shadow := ""
			if limit.Shadow {
				shadow = " (shadow)"
			}
			rate := strconv.FormatInt(limit.Requests, 10)
			if limit.Bytes > 0 {
				rate = policy.Size(limit.Bytes).String()
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s/%s%s\t%s/%s\t%d\t%d\n",
				name, weight, flight, limit.Policy, limit.Name, shadow, rate, limit.Per, limit.Burst, limit.Available)
		}
	}
	_ = t.Flush()
	fmt.Fprintf(&b, "and %d tenants on demand, of at most %d\n", list.OnDemand, list.Capacity)
	if list.Overflow > 0 {
		b.WriteString("newcomers share buckets, since there is no room for more; name your tenants, or let their names come from what cannot be made up\n")
	}
	writeText(w, http.StatusOK, b.String())
}

// stdLogger is a standard logger that writes into the log.
func stdLogger(log zerolog.Logger) *stdlog.Logger {
	return stdlog.New(logWriter{log}, "", 0)
}

// logWriter turns the lines of a standard logger into log lines.
type logWriter struct{ log zerolog.Logger }

func (w logWriter) Write(p []byte) (int, error) {
	w.log.Warn().Msg("admin port: " + strings.TrimSpace(string(p)))
	return len(p), nil
}

// count is a number of things in words, as in "1 file" and "2 files".
func count(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}
