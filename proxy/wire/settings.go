package wire

import "time"

// Settings bound what a client may send and how long it may take. They can be replaced at any time with Guard.Set; a
// message is judged by those that were set when it began.
type Settings struct {
	HeaderBytes int   // request line and header section together, 1 KiB to 16 MiB
	HeaderCount int   // fields, at most 10,000
	URIBytes    int   // target as sent
	BodyBytes   int64 // decoded body; 0: no bound

	HeaderTimeout time.Duration // from a message's first byte to the end of its head; 0: none
	IdleTimeout   time.Duration // for the first byte of a message; 0: none
	BodyTimeout   time.Duration // without a single byte of the body, while somebody waits for it; 0: none
	SendTimeout   time.Duration // without the client taking a single byte; 0: none
	BodyRate      int64         // bytes per second that a body must bring while it is waited for, after BodyTimeout; 0: none

	// Identity are the names of the fields that say who the tenant is. They get KindIdentity, Connection cannot nominate
	// them, and names that read like them with underscores are refused.
	Identity []string
}

const (
	minHeaderBytes = 1 << 10
	maxHeaderBytes = 16 << 20
	maxHeaderCount = 10000
)

// DefaultSettings are those of the reference: 32 KiB, 100 fields, 8 KiB, any body; 5 s, 60 s, 30 s, 30 s, any rate.
func DefaultSettings() Settings {
	return Settings{
		HeaderBytes: 32 << 10, HeaderCount: 100, URIBytes: 8 << 10,
		HeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute, BodyTimeout: 30 * time.Second, SendTimeout: 30 * time.Second,
	}
}

// normal returns s with bounds the scanner can rely on.
func (s Settings) normal() *Settings {
	s.HeaderBytes = min(max(s.HeaderBytes, minHeaderBytes), maxHeaderBytes)
	s.HeaderCount = min(max(s.HeaderCount, 1), maxHeaderCount)
	s.URIBytes = max(s.URIBytes, 1)
	s.Identity = append([]string(nil), s.Identity...)
	return &s
}

// identity reports whether name is one of the identity names; with alias, `_` in name stands for `-`.
func (s *Settings) identity(name []byte, alias bool) bool {
	for _, id := range s.Identity {
		if len(id) == len(name) && (equalFold(name, id) || alias && equalAlias(name, id)) {
			return true
		}
	}
	return false
}
