package proxy

import "time"

// Clock is the proxy's one source of time: nanoseconds on a monotonic clock, and the wall time at which they began.
// A request reads it at the door and at its end; every room between gets the reading as an argument.
type Clock struct {
	// Start is the wall time at which Now returned 0.
	Start time.Time
	// Now returns the nanoseconds since Start. It is safe for concurrent use and never goes back.
	Now func() int64
	// Set returns the wall time as the machine has it now, in which it may have been set since Start. It is for what is rare and has to
	// agree with others, such as the expiry of a token. nil means the time of Now.
	Set func() time.Time
}

// SystemClock returns a clock that begins now.
func SystemClock() Clock {
	start := time.Now()
	return Clock{Start: start, Now: func() int64 { return int64(time.Since(start)) }, Set: time.Now}
}

// Wall returns the wall time of a reading, as the wall clock was set at Start.
func (c Clock) Wall(now int64) time.Time { return c.Start.Add(time.Duration(now)) }

// agreed returns the wall time of a reading that was taken just now, as the wall clock is set now.
func (c Clock) agreed(now int64) time.Time {
	if c.Set == nil {
		return c.Wall(now)
	}
	return c.Set()
}
