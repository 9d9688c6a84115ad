package wire

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

type requestCase struct {
	ID          string   `json:"id"`
	Name        string   `json:"name"`
	Raw         string   `json:"raw"`
	Parts       [][2]any `json:"parts"`
	Expect      string   `json:"expect"`
	MaxRequests int      `json:"max_backend_requests"`
	MustNotSee  []string `json:"backend_must_not_see_request"`
	MustSee     []string `json:"backend_must_see"`
	MustClose   bool     `json:"client_conn_must_close"`
}

type responseCase struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Raw    string `json:"backend_raw"`
	Expect string `json:"expect"`
}

type corpus struct {
	Requests  []requestCase  `json:"request_cases"`
	Responses []responseCase `json:"response_cases"`
}

func loadCorpus(t testing.TB) corpus {
	t.Helper()
	b, err := os.ReadFile("../../testdata/wire/wire_cases.json")
	if err != nil {
		t.Fatal(err)
	}
	var c corpus
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// latin1 makes every character one byte.
func latin1(s string) []byte {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		b = append(b, byte(r))
	}
	return b
}

func (c requestCase) bytes() []byte {
	if c.Parts == nil {
		return latin1(c.Raw)
	}
	var b []byte
	for _, p := range c.Parts {
		b = append(b, strings.Repeat(string(latin1(p[0].(string))), int(p[1].(float64)))...)
	}
	return b
}

// corpusSettings are the defaults, with the bound on bodies that one case supposes.
func corpusSettings() Settings {
	s := DefaultSettings()
	s.BodyBytes = 1 << 30
	s.Identity = []string{"X-Tenant-Id"}
	return s
}

// Cases that the rooms behind the guard decide; here they only show that the guard says what is needed.
var decidedLater = map[string]func(h *Head) error{
	"hdr-38": func(h *Head) error {
		if _, n := h.Lookup("x-tenant-id"); n != 2 {
			return fmt.Errorf("%d identity fields, want 2", n)
		}
		return nil
	},
	"hdr-41": func(h *Head) error {
		if v, _ := h.Get(KindIdentity); len(v) != 10240 {
			return fmt.Errorf("identity of %d bytes, want 10240", len(v))
		}
		return nil
	},
	"deny-01": isDenied, "deny-02": isDenied, "deny-04": isDenied,
}

func isDenied(h *Head) error {
	if v, _ := h.Get(KindIdentity); string(v) != "denied" {
		return fmt.Errorf("identity is %q", v)
	}
	return nil
}

func TestCorpusRequests(t *testing.T) {
	const front = "GET /front1 HTTP/1.1\r\nHost: a.test\r\n\r\nGET /front2 HTTP/1.1\r\nHost: a.test\r\n\r\n"
	for _, c := range loadCorpus(t).Requests {
		raw := c.bytes()
		sizes := []int{0, 5, 1}
		if len(raw) > 100<<10 {
			sizes = []int{0, 1000}
		}
		for _, size := range sizes {
			t.Run(fmt.Sprintf("%s/%d", c.ID, size), func(t *testing.T) {
				checkRequestCase(t, c, receive(t, corpusSettings(), pieces(raw, size)))
			})
			t.Run(fmt.Sprintf("%s/pipelined/%d", c.ID, size), func(t *testing.T) {
				all := receive(t, corpusSettings(), pieces(append([]byte(front), raw...), size))
				if len(all) < 2 || all[0].path != "/front1" || all[1].path != "/front2" {
					t.Fatalf("the requests in front were seen as %+v", all)
				}
				checkRequestCase(t, c, all[2:])
			})
		}
	}
}

func checkRequestCase(t *testing.T, c requestCase, all []seen) {
	t.Helper()
	forwarded, status, sent := 0, 0, ""
	for i, m := range all {
		if m.fault == None && m.bodyErr == nil {
			forwarded++
			sent += m.wireForm()
			checkForwarded(t, m)
			continue
		}
		if i != len(all)-1 {
			t.Fatalf("%q: the connection went on after a fault: %+v", c.Name, all)
		}
		status = m.fault.Status()
		if m.fault == None {
			var cause Cause
			if !errors.As(m.bodyErr, &cause) {
				t.Fatalf("body error %v is no Cause", m.bodyErr)
			}
			status = cause.Status()
		}
	}
	if _, later := decidedLater[c.ID]; !later {
		switch {
		case strings.HasPrefix(c.Expect, "reject:"):
			if !slices.Contains(statuses(t, c.Expect), status) {
				t.Fatalf("%q: status %d, want %s: %+v", c.Name, status, c.Expect, all)
			}
		case c.Expect == "forward":
			if status != 0 || forwarded == 0 {
				t.Fatalf("%q: refused with %d, want it forwarded: %+v", c.Name, status, all)
			}
		case c.Expect == "wait":
			if forwarded != 0 {
				t.Fatalf("%q: forwarded as whole", c.Name)
			}
		case c.Expect != "either":
			t.Fatalf("unknown expectation %q", c.Expect)
		}
		if forwarded > c.MaxRequests {
			t.Fatalf("%q: %d requests forwarded, at most %d allowed: %+v", c.Name, forwarded, c.MaxRequests, all)
		}
	}
	for name, parse := range map[string]func(string) []string{"strict": parseStrict, "lenient": parseLenient} {
		lines := parse(sent)
		if len(lines) != forwarded {
			t.Fatalf("%q: a %s parser sees %d requests in what is forwarded, want %d:\n%q", c.Name, name, len(lines), forwarded, sent)
		}
		for _, l := range lines {
			for _, bad := range c.MustNotSee {
				if strings.HasPrefix(l, bad) {
					t.Fatalf("%q: a %s parser sees %q", c.Name, name, l)
				}
			}
		}
	}
	for _, want := range c.MustSee {
		if !strings.Contains(sent, string(latin1(want))) {
			t.Fatalf("%q: the backend does not see %q in %q", c.Name, want, sent)
		}
	}
}

func TestCorpusDecidedLater(t *testing.T) {
	left := len(decidedLater)
	for _, c := range loadCorpus(t).Requests {
		check := decidedLater[c.ID]
		if check == nil {
			continue
		}
		left--
		var h Head
		s := corpusSettings()
		ScanRequest(&h, c.bytes(), &s)
		if err := check(&h); h.Fault != None || err != nil {
			t.Errorf("%s: fault %v, %v", c.ID, h.Fault, err)
		}
	}
	if left != 0 {
		t.Errorf("%d cases are no longer in the corpus", left)
	}
}

// statuses reads `reject:400,431 (…)`.
func statuses(t *testing.T, expect string) []int {
	t.Helper()
	list, _, _ := strings.Cut(strings.TrimPrefix(expect, "reject:"), " ")
	var out []int
	for _, s := range strings.Split(list, ",") {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, n)
	}
	return out
}

// hopNames must not be in what is forwarded.
var hopNames = regexp.MustCompile(`(?i)\r\n(connection|keep-alive|proxy-connection|proxy-authorization|te|trailer|upgrade|expect|proxy|x_tenant_id):`)

// checkForwarded holds one forwarded head to the invariants.
func checkForwarded(t *testing.T, m seen) {
	t.Helper()
	head := strings.ToLower(m.forward)
	if !strings.HasSuffix(head, "\r\n") || strings.Count(head, "\n") != strings.Count(head, "\r\n") ||
		strings.Count(head, "\r") != strings.Count(head, "\r\n") {
		t.Fatalf("line ends other than CRLF: %q", m.forward)
	}
	if n := strings.Count(head, "\r\nhost:"); n != 1 {
		t.Fatalf("%d Host fields: %q", n, m.forward)
	}
	if n := strings.Count(head, "\r\ncontent-length:") + strings.Count(head, "\r\ntransfer-encoding:"); n > 1 {
		t.Fatalf("%d framing fields: %q", n, m.forward)
	}
	if !m.upgrade && hopNames.MatchString(m.forward) {
		t.Fatalf("hop-by-hop fields: %q", m.forward)
	}
	for _, b := range []byte(m.forward) {
		if b < ' ' && b != '\r' && b != '\n' && b != '\t' || b == 0x7f {
			t.Fatalf("control byte: %q", m.forward)
		}
	}
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(m.wireForm())))
	if err != nil {
		t.Fatalf("net/http refuses %q: %v", m.wireForm(), err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || string(body) != m.body || r.Method != m.method || r.Host != m.host {
		t.Fatalf("net/http reads %q %q %q (%v) in %q", r.Method, r.Host, body, err, m.wireForm())
	}
}

// parseStrict returns the request lines that a strict parser sees; what it refuses is one line of its own.
func parseStrict(s string) (lines []string) {
	for s != "" {
		head, rest, ok := strings.Cut(s, "\r\n\r\n")
		if !ok {
			return append(lines, "refused: "+s)
		}
		fields := strings.Split(head, "\r\n")
		lines = append(lines, fields[0])
		length, chunked := 0, false
		for _, f := range fields[1:] {
			name, value, ok := strings.Cut(f, ":")
			if !ok || strings.ContainsAny(name, " \t\n\r") {
				return append(lines, "refused: "+f)
			}
			switch value = strings.Trim(value, " \t"); strings.ToLower(name) {
			case "content-length":
				n, err := strconv.Atoi(value)
				if err != nil {
					return append(lines, "refused: "+f)
				}
				length = n
			case "transfer-encoding":
				if value != "chunked" {
					return append(lines, "refused: "+f)
				}
				chunked = true
			}
		}
		if s = rest; chunked {
			if s, ok = skipChunks(s); !ok {
				return append(lines, "refused chunks")
			}
			continue
		}
		if length > len(s) {
			return append(lines, "refused: too short")
		}
		s = s[length:]
	}
	return lines
}

// skipChunks returns what follows a chunked body.
func skipChunks(s string) (string, bool) {
	for {
		size, rest, ok := strings.Cut(s, "\r\n")
		n, err := strconv.ParseUint(size, 16, 31)
		if !ok || err != nil || int(n)+2 > len(rest) {
			return "", false
		}
		if n == 0 {
			return strings.CutPrefix(rest, "\r\n")
		}
		if s, ok = strings.CutPrefix(rest[n:], "\r\n"); !ok {
			return "", false
		}
	}
}

// parseLenient returns the request lines that the most permissive parser sees: any line end, white space around names,
// whatever digits a length begins with, `chunked` anywhere, the last field of a name.
func parseLenient(s string) (lines []string) {
	for s = strings.TrimLeft(s, "\r\n"); s != ""; s = strings.TrimLeft(s, "\r\n") {
		var line string
		line, s = cutLine(s)
		lines = append(lines, line)
		length, chunked := 0, false
		for line, s = cutLine(s); line != ""; line, s = cutLine(s) {
			name, value, _ := strings.Cut(strings.ToLower(line), ":")
			switch strings.ReplaceAll(strings.TrimSpace(name), "_", "-") {
			case "content-length":
				length, _ = strconv.Atoi(regexp.MustCompile(`\d+`).FindString(value))
			case "transfer-encoding":
				chunked = chunked || strings.Contains(value, "chunked")
			}
		}
		for chunked {
			line, s = cutLine(s)
			n, _ := strconv.ParseUint(regexp.MustCompile(`^[0-9a-fA-F]*`).FindString(line), 16, 31)
			s = s[min(int(n), len(s)):]
			_, s = cutLine(s)
			chunked = n > 0 && s != ""
		}
		s = s[min(length, len(s)):]
	}
	return lines
}

// cutLine takes a line that ends with LF, with or without CR.
func cutLine(s string) (line, rest string) {
	line, rest, _ = strings.Cut(s, "\n")
	return strings.TrimRight(line, "\r"), rest
}
