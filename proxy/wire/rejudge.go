package wire

// Settings returns what the current message was judged by.
func (c *Conn) Settings() *Settings { return c.settings }

// Settings returns what further messages are judged by.
func (g *Guard) Settings() *Settings { return g.settings.Load() }

// Judge scans the current head again under s, which is Guard.Settings of some time: the settings may have changed between the
// scan and the handler, who must not see fields classed by one policy and decide by another. A head that was refused stays
// refused. Nothing of the body may have been read.
func (c *Conn) Judge(s *Settings) {
	h := &c.blk.head
	if c.settings == s || h.Fault != None {
		return
	}
	closing := !h.KeepAlive
	raw := h.raw
	h.reset()
	ScanRequest(h, raw, s)
	c.settings = s
	h.KeepAlive = h.KeepAlive && !closing
	c.flags.fault, c.flags.keepAlive = h.Fault != None, h.KeepAlive
	c.body.Start(h.Body, h.Length, s.BodyBytes)
}

// SendBy ends writing to the client at that time of the guard's clock, with SendTimeout, even while the client takes bytes; 0
// is no end. It holds for the current message.
func (c *Conn) SendBy(at int64) { c.sendBy.Store(at) }
