package upstream

// Upgraded says that the connection no longer carries HTTP, after the head of a 101: timeouts.response and the deadline of
// the request end here, and ReadBody and Write wait as long as it takes, unless within is not 0: that is then the deadline
// of everything that follows. What has come with the head is in Buffered. One goroutine may read while another writes, and
// the connection is never used again.
func (c *Conn) Upgraded(within int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.upgraded, c.deadline = true, within
	c.requestDue.Store(0)
	if within != 0 {
		c.requestDue.Store(due(within, RequestTimeout))
	}
}

// CloseWrite ends what is sent on an upgraded connection, and leaves what is received open. Where the transport cannot
// end one direction alone it ends both.
func (c *Conn) CloseWrite() error {
	half, ok := c.nc.(interface{ CloseWrite() error })
	if !ok {
		c.Cancel(c.use)
		return nil
	}
	if err := half.CloseWrite(); err != nil {
		return c.writeFailure(c.causeOf(err, NoCause), err)
	}
	return nil
}

// Abort makes Release close with a reset where the transport can, so that the backend takes nothing it got for whole.
func (c *Conn) Abort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t, ok := c.socket().(interface{ SetLinger(int) error }); ok {
		_ = t.SetLinger(0)
	}
	c.cancelLocked(Canceled)
}
