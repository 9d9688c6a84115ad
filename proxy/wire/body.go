package wire

// Decoder reads a body of any framing from the caller's buffers, in either direction. The zero value is a message without
// body; Start begins another. It allocates nothing and holds no bytes.
type Decoder struct {
	body  Body
	done  bool
	cause Cause
	left  int64 // BodyLength: bytes to come
	max   int64 // decoded bytes allowed; 0: no bound
	total int64 // decoded bytes so far
	chunk chunkDecoder
}

// Start begins a body. max bounds the decoded bytes, 0 is no bound.
func (d *Decoder) Start(body Body, length, max int64) {
	*d = Decoder{body: body, left: length, max: max, done: body == BodyNone || body == BodyLength && length == 0}
}

// Decode takes the next bytes of the connection. The decoded ones are moved to p[:n]; used is how many bytes of p belonged
// to the body, less than len(p) only when the verified end was reached and what follows is no part of it. The error is a
// Cause and stays.
func (d *Decoder) Decode(p []byte) (n, used int, err error) {
	if d.cause != None {
		return 0, 0, d.cause
	}
	if d.done {
		return 0, 0, nil
	}
	switch d.body {
	case BodyLength:
		n = int(min(int64(len(p)), d.left))
		used = n
		d.left -= int64(n)
		d.done = d.left == 0
	case BodyChunked:
		n, used, d.cause = d.chunk.decode(p)
		d.done = d.chunk.state == chunkDone
	default:
		n, used = len(p), len(p)
	}
	d.total += int64(n)
	if d.max > 0 && d.total > d.max && d.cause == None {
		d.cause = BodyTooLong
	}
	if d.cause != None {
		d.done = false
		return 0, used, d.cause
	}
	return n, used, nil
}

// Done reports whether the verified end was reached.
func (d *Decoder) Done() bool { return d.done }

// Total is the number of decoded bytes so far.
func (d *Decoder) Total() int64 { return d.total }

// Want returns how many bytes of the connection are known to belong to the body, at least 1 while it is not done: reading no
// more than that never takes a byte of the next message. 0 when done.
func (d *Decoder) Want() int64 {
	switch {
	case d.done || d.cause != None:
		return 0
	case d.body == BodyLength:
		return d.left
	case d.body == BodyChunked:
		return d.chunk.want()
	}
	return 1 << 62
}

// End tells the decoder that the peer has closed. It returns nil when that is the end of the body, else BodyCut.
func (d *Decoder) End() error {
	if d.body == BodyToClose && d.cause == None {
		d.done = true
	}
	if d.done {
		return nil
	}
	if d.cause == None {
		d.cause = BodyCut
	}
	return d.cause
}

type chunkState uint8

const (
	chunkSize      chunkState = iota // in the hex digits
	chunkExtension                   // after `;`
	chunkSizeLF                      // after the CR of a size line
	chunkData
	chunkDataCR
	chunkDataLF
	trailerStart // at the start of a line of the trailer section
	trailerName
	trailerValue
	trailerLF // after the CR of a trailer line
	chunkEndLF
	chunkDone
)

const (
	maxChunkDigits    = 16
	maxChunkSize      = 1<<31 - 1 // what the narrowest parser behind us can count
	maxExtension      = 256
	maxExtensionExtra = 4 << 10 // extension bytes allowed above the bytes of data
	maxTrailer        = 4 << 10
)

// chunkDecoder is the strict state machine of RFC 9112 section 7.1. Extensions are checked and ignored, trailers are
// checked and dropped.
type chunkDecoder struct {
	state    chunkState
	digits   uint8
	quoted   bool  // inside a quoted string of an extension
	left     int64 // the size so far, then bytes of data to come
	line     int   // bytes of this extension
	extra    int64 // extension bytes so far, less the data
	trailers int   // bytes of the trailer section
}

// want is a lower bound of the bytes to the end of the body.
func (d *chunkDecoder) want() int64 {
	switch d.state {
	case chunkSize, chunkExtension, trailerStart:
		return 2
	case chunkData:
		return d.left + int64(len("\r\n0\r\n\r\n"))
	case chunkDataCR:
		return int64(len("\r\n0\r\n\r\n"))
	case chunkDataLF:
		return int64(len("\n0\r\n\r\n"))
	case trailerName, trailerValue:
		return 4
	case chunkSizeLF, trailerLF:
		return 3
	}
	return 1
}

func (d *chunkDecoder) decode(p []byte) (n, used int, cause Cause) {
	i := 0
	for i < len(p) {
		if d.state == chunkData {
			size := int(min(d.left, int64(len(p)-i)))
			if n != i {
				copy(p[n:], p[i:i+size])
			}
			n, i = n+size, i+size
			d.extra -= int64(size)
			if d.left -= int64(size); d.left == 0 {
				d.state = chunkDataCR
			}
			continue
		}
		if cause = d.step(p[i]); cause != None {
			return n, i, cause
		}
		i++
		if d.state == chunkDone {
			break
		}
	}
	return n, i, None
}

// step takes one byte that is not data.
func (d *chunkDecoder) step(c byte) Cause {
	if d.state >= trailerStart {
		return d.stepTrailer(c)
	}
	switch d.state {
	case chunkSize:
		return d.stepSize(c)
	case chunkExtension:
		return d.stepExtension(c)
	case chunkSizeLF:
		if c != '\n' {
			return BadChunk
		}
		d.state = chunkData
		if d.left == 0 {
			d.state = trailerStart
		}
		d.digits, d.line = 0, 0
	case chunkDataCR:
		if c != '\r' {
			return BadChunk
		}
		d.state = chunkDataLF
	case chunkDataLF:
		if c != '\n' {
			return BadChunk
		}
		d.state = chunkSize
	}
	return None
}

func (d *chunkDecoder) stepSize(c byte) Cause {
	if v := unhex(c); v >= 0 {
		if d.digits++; d.digits > maxChunkDigits {
			return BadChunk
		}
		if d.left = d.left<<4 | int64(v); d.left > maxChunkSize {
			return BadChunk
		}
		return None
	}
	if d.digits == 0 {
		return BadChunk
	}
	switch c {
	case '\r':
		d.state = chunkSizeLF
	case ';':
		d.state = chunkExtension
	default:
		return BadChunk
	}
	return None
}

func (d *chunkDecoder) stepExtension(c byte) Cause {
	switch {
	case c == '\r':
		if d.quoted {
			return BadChunk
		}
		d.state = chunkSizeLF
		return None
	case c == '"':
		d.quoted = !d.quoted
	case c < ' ' && c != '\t' || c == 0x7f:
		return BadChunk
	}
	d.line++
	d.extra++
	if d.line > maxExtension || d.extra > maxExtensionExtra {
		return ExtensionTooLong
	}
	return None
}

func (d *chunkDecoder) stepTrailer(c byte) Cause {
	if d.trailers++; d.trailers > maxTrailer {
		return TrailerTooLarge
	}
	switch d.state {
	case trailerStart:
		switch {
		case c == '\r':
			d.state = chunkEndLF
		case isToken(c):
			d.state = trailerName
		default:
			return BadTrailer
		}
	case trailerName:
		switch {
		case c == ':':
			d.state = trailerValue
		case !isToken(c):
			return BadTrailer
		}
	case trailerValue:
		switch {
		case c == '\r':
			d.state = trailerLF
		case c < ' ' && c != '\t' || c == 0x7f:
			return BadTrailer
		}
	case trailerLF:
		if c != '\n' {
			return BadTrailer
		}
		d.state = trailerStart
	case chunkEndLF:
		if c != '\n' {
			return BadTrailer
		}
		d.state = chunkDone
	}
	return None
}
