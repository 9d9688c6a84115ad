package upstream

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"weir/policy"
	"weir/proxy/wire"
)

// checkTimeout bounds a check from the dial to the answer's head, if its interval is not shorter.
const checkTimeout = 2 * time.Second

// checkEnd is how a check ended; err is nil when it was good.
type checkEnd struct{ err error }

// check begins checks of the endpoints whose time has come.
func (b *Backend) check(now int64) {
	h, s := b.settings.Health, b.shared
	if h == nil || h.Path == "" {
		return
	}
	r := b.roster.Load()
	for i := range r.all {
		e := r.all[i].endpoint
		v := &e.vitals
		if now < v.checkDue || v.checking.Swap(true) {
			continue
		}
		v.checkDue = now + int64(jittered(h.Interval))
		s.jobs.Go(func() {
			defer s.recovered("check")
			defer v.checking.Store(false)
			ctx, cancel := context.WithTimeout(s.ctx, min(checkTimeout, h.Interval))
			defer cancel()
			err := b.ask(ctx, e, h.Path)
			if s.ctx.Err() == nil {
				v.checked.Store(&checkEnd{err})
				s.poke()
			}
		})
	}
}

// takeCheck counts the end of a check, if there is one, and returns whether it brought the endpoint in or out.
func (b *Backend) takeCheck(e *endpoint, h *policy.HealthSettings) (changed bool) {
	v, log := &e.vitals, &b.shared.logger
	out := v.out.Load()&unhealthy != 0
	end := v.checked.Swap(nil)
	switch {
	case h == nil || h.Path == "":
		v.good, v.bad = 0, 0
		v.out.And(^unhealthy)
		return out
	case end == nil:
		return false
	case end.err == nil:
		v.good, v.bad = v.good+1, 0
		if !out || v.good < h.Healthy {
			return false
		}
		v.out.And(^unhealthy)
		log.Info().Str("backend", b.settings.Name).Str("endpoint", e.address).Int("checks", v.good).
			Msg("endpoint is healthy: checks succeeded in a row")
		return true
	}
	v.good, v.bad = 0, v.bad+1
	if out || v.bad < h.Unhealthy {
		return false
	}
	v.out.Or(unhealthy)
	log.Warn().Str("backend", b.settings.Name).Str("endpoint", e.address).Int("checks", v.bad).Err(end.err).
		Msg("endpoint is unhealthy: checks failed in a row")
	return true
}

// ask makes one check, over a connection of its own that no request and no bound knows of.
func (b *Backend) ask(ctx context.Context, e *endpoint, path string) error {
	nc, err := b.open(ctx, e)
	if err != nil {
		return fmt.Errorf("cannot connect: %w", err)
	}
	defer nc.Close()
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(aLongTimeAgo()) })
	defer stop()
	status, err := b.exchange(nc, "GET "+path+" HTTP/1.1\r\nHost: "+b.host(e)+"\r\nUser-Agent: weir-health\r\nConnection: close\r\n\r\n")
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("cannot get an answer in time: %w", context.Cause(ctx))
	case err != nil:
		return fmt.Errorf("cannot get an answer: %w", err)
	case status < 200 || status > 399:
		return fmt.Errorf("cannot take status %d for healthy, want 200 to 399", status)
	}
	return nil
}

// exchange sends a request and returns the status of the final answer.
func (b *Backend) exchange(nc net.Conn, request string) (int, error) {
	if _, err := io.WriteString(nc, request); err != nil {
		return 0, err
	}
	buf := make([]byte, smallHead)
	var head wire.ResponseHead
	for end, interim := 0, 0; ; {
		n, err := nc.Read(buf[end:])
		if end += n; n == 0 {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF // as when the buffer is full
			}
			return 0, err
		}
		for end > 0 {
			used, err := wire.ScanResponseHead(&head, buf[:end], wire.Asked{}, &b.shared.bounds)
			if err != nil {
				return 0, err
			}
			if used == 0 {
				break
			}
			if !head.Interim {
				return head.Status, nil
			}
			if interim++; interim > maxInterim {
				return 0, errInterim
			}
			end = copy(buf, buf[used:end])
			head.Reset()
		}
	}
}

// host is what a check says in Host: the name or the address as it is written.
func (b *Backend) host(e *endpoint) string {
	switch {
	case b.settings.DNS != nil:
		_, port, _ := net.SplitHostPort(e.address)
		return strings.TrimSuffix(b.settings.DNS.Name, ".") + ":" + port
	case e.network == "unix":
		return "localhost"
	}
	return e.address
}
