package control

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"weir/admit"
)

// whyParameters are what /why takes.
const whyParameters = "tenant, path, method, host, header, client, spiffe-id, request-id and o"

// why explains the decision on a request that is described, or on a recent denial.
func (a *admin) why(w http.ResponseWriter, r *http.Request) {
	q, err := inquiryOf(r)
	if err != nil {
		a.fail(w, r, http.StatusBadRequest, err.Error())
		return
	}
	trace, err := a.o.Why(q)
	var gone *admit.NotRecentError
	switch {
	case errors.As(err, &gone):
		a.fail(w, r, http.StatusNotFound, err.Error())
	case err != nil:
		a.fail(w, r, http.StatusBadRequest, err.Error())
	case wantsJSON(r):
		writeJSON(w, http.StatusOK, trace)
	default:
		writeText(w, http.StatusOK, trace.Text())
	}
}

// inquiryOf reads the question. What it does not know is refused: a parameter that is spelled wrong would change the answer.
func inquiryOf(r *http.Request) (admit.Inquiry, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return admit.Inquiry{}, fmt.Errorf("cannot read the query: %w", err)
	}
	q := admit.Inquiry{RequestID: r.Header.Get("X-Request-Id")}
	into := map[string]*string{
		"tenant": &q.Tenant, "path": &q.Path, "method": &q.Method, "host": &q.Host, "client": &q.Client,
		"spiffe-id": &q.SPIFFE, "request-id": &q.RequestID, "o": new(string),
	}
	for name, given := range values {
		field := into[name]
		switch {
		case name == "header":
			q.Headers = given
		case field == nil:
			return q, fmt.Errorf("cannot use parameter %q, want %s", name, whyParameters)
		case len(given) > 1:
			return q, fmt.Errorf("cannot use parameter %q %d times, want it once", name, len(given))
		default:
			*field = given[0]
		}
	}
	if q.RequestID == "" && q.Path == "" {
		return q, errors.New("cannot explain nothing: want ?path=/… with tenant=… or what identifies one, or ?request-id=…; the parameters are " + whyParameters)
	}
	return q, nil
}

// WhyQuery writes a question as the query of /why.
func WhyQuery(q admit.Inquiry) url.Values {
	values := url.Values{}
	for name, value := range map[string]string{
		"tenant": q.Tenant, "path": q.Path, "method": q.Method, "host": q.Host, "client": q.Client,
		"spiffe-id": q.SPIFFE, "request-id": q.RequestID,
	} {
		if value != "" {
			values.Set(name, value)
		}
	}
	if len(q.Headers) > 0 {
		values["header"] = slices.Clone(q.Headers)
	}
	return values
}
