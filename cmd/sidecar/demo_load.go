package main

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	// loadInFlight is how many requests of one tenant may be under way; an arrival beyond that counts as failed.
	loadInFlight = 256
	// loadTimeout is when a request counts as failed.
	loadTimeout = 5 * time.Second
)

// schedule is an open-loop plan: arrivals come at a constant rate, whatever became of the ones before. So a slow answer
// cannot hide itself by keeping the next request from being sent.
type schedule struct {
	interval time.Duration
}

// every returns the schedule of so many arrivals a second.
func every(perSecond int) schedule { return schedule{interval: time.Second / time.Duration(perSecond)} }

// due is when arrival i comes, counted from the start of the load.
func (s schedule) due(i int) time.Duration { return time.Duration(i) * s.interval }

// arrivals calls arrive for every arrival when it is due, with the time it was due, until ctx ends. Arrivals that are late
// because the machine was busy come at once and keep their due time.
func (s schedule) arrivals(ctx context.Context, start time.Time, arrive func(due time.Time)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i := 0; ; i++ {
		due := start.Add(s.due(i))
		if wait := time.Until(due); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
		}
		if ctx.Err() != nil {
			return
		}
		arrive(due)
	}
}

// tenantLoad is one tenant of the demo and what became of its requests.
type tenantLoad struct {
	name      string
	perSecond int
	meter     *meter
}

// loader sends the tenants' requests to one proxy.
type loader struct {
	client *http.Client
	url    string
}

func newLoader(url string) *loader {
	return &loader{
		url: url,
		client: &http.Client{
			Timeout:   loadTimeout,
			Transport: &http.Transport{MaxIdleConnsPerHost: loadInFlight},
		},
	}
}

// run offers every tenant's load until ctx ends, and returns when the last answer came.
func (l *loader) run(ctx context.Context, tenants []tenantLoad) {
	defer l.client.CloseIdleConnections()
	start := time.Now()
	var wg sync.WaitGroup
	for _, t := range tenants {
		wg.Go(func() {
			inFlight := make(chan struct{}, loadInFlight)
			every(t.perSecond).arrivals(ctx, start, func(due time.Time) {
				select {
				case inFlight <- struct{}{}:
				default:
					t.meter.record(failed, 0)
					return
				}
				wg.Go(func() {
					defer func() { <-inFlight }()
					outcome := l.send(t.name)
					t.meter.record(outcome, time.Since(due))
				})
			})
		})
	}
	wg.Wait()
}

// send asks once in the name of a tenant. Requests under way outlive the load's end, so that none is cut.
func (l *loader) send(tenant string) outcome {
	req, err := http.NewRequest(http.MethodGet, l.url, nil)
	if err != nil {
		return failed
	}
	req.Header.Set("X-Tenant-ID", tenant)
	resp, err := l.client.Do(req)
	if err != nil {
		return failed
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return failed
	}
	switch {
	case resp.StatusCode == http.StatusTooManyRequests:
		return limited
	case resp.StatusCode < 300:
		return admitted
	}
	return failed
}
