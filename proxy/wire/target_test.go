package wire

import "testing"

// An encoded slash in a parameter is a part of it for servers that leave parameters out first, and a separator for those that
// decode first. Where both come to one path it does not matter.
func TestEncodedSlashInAParameter(t *testing.T) {
	f := func(sent string, want Cause) {
		t.Helper()
		if h := scan("GET "+sent+" HTTP/1.1\r\nHost: h\r\n\r\n", DefaultSettings()); h.Fault != want {
			t.Errorf("%s: %v, want %v", sent, h.Fault, want)
		}
	}
	f("/a;x%2fb", BadEscape)
	f("/a;%2F", BadEscape)
	f("/a;x%3by%2fb", BadEscape)
	f("/x%2fa;y%2f..", BadEscape)
	f("/..;x%2fa", BadEscape)
	// Outside of a parameter, behind it, after an encoded semicolon, and in the query.
	f("/a%2fb;x", None)
	f("/a;x/b%2fc", None)
	f("/a%3bx%2fb", None)
	f("/a;x?b;%2f", None)
}
