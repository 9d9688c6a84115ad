package policy

import (
	"encoding/json"
	"fmt"
	"strings"
)

// JSON is the document as it was written, without its comments: defaults are not filled in, and fields keep their order. What [Decode]
// makes of it is equal to the document.
func (d *Document) JSON() json.RawMessage {
	var b strings.Builder
	writeNode(&b, d.tree)
	return json.RawMessage(b.String())
}

func writeNode(b *strings.Builder, n *node) {
	switch n.kind {
	case mappingNode:
		b.WriteByte('{')
		for i, e := range n.fields {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(jsonString(e.key.text) + ":")
			writeNode(b, e.value)
		}
		b.WriteByte('}')
	case sequenceNode:
		b.WriteByte('[')
		for i, item := range n.items {
			if i > 0 {
				b.WriteByte(',')
			}
			writeNode(b, item)
		}
		b.WriteByte(']')
	default:
		b.WriteString(jsonScalar(n))
	}
}

// jsonScalar writes numbers and booleans as such where JSON has them, and all else as a string. A decoded document has no number that JSON
// has not but in the place of a value with a unit, which is taken from a string, too.
func jsonScalar(n *node) string {
	switch n.scalar {
	case boolScalar:
		return strings.ToLower(n.text)
	case nullScalar:
		return "null"
	case intScalar, floatScalar:
		if json.Valid([]byte(n.text)) {
			return n.text
		}
	}
	return jsonString(n.text)
}

// jsonString also escapes what [Decode] takes in no other form.
func jsonString(s string) string {
	var encoded, b strings.Builder
	enc := json.NewEncoder(&encoded)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		panic("BUG: cannot encode a string: " + err.Error())
	}
	for _, c := range strings.TrimSuffix(encoded.String(), "\n") {
		if c >= 0x7f && c < 0xa0 || c == '\ufeff' || c == 0xfffe || c == 0xffff {
			fmt.Fprintf(&b, "\\u%04x", c)
			continue
		}
		b.WriteRune(c)
	}
	return b.String()
}
