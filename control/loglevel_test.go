package control

import (
	"bytes"
	"strings"
	"testing"

	"github.com/rs/zerolog"
)

func TestLogLevel(t *testing.T) {
	f := func(level, want string) {
		t.Helper()
		l, err := NewLogLevel("error")
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		log := zerolog.New(l.Writer(&out)).With().Str("derived", "yes").Logger()
		if err := l.Set(level); err != nil {
			t.Fatal(err)
		}
		log.Trace().Msg("t")
		log.Debug().Msg("d")
		log.Info().Msg("i")
		log.Warn().Msg("w")
		log.Error().Msg("e")
		log.Log().Msg("always")
		var got string
		for line := range strings.Lines(out.String()) {
			_, message, _ := strings.Cut(line, `"message":"`)
			got += message[:1]
		}
		if got != want {
			t.Errorf("at %s: %s, want %s", level, got, want)
		}
		if l.String() != level {
			t.Errorf("level %s, want %s", l, level)
		}
	}
	f("trace", "tdiwea")
	f("debug", "diwea")
	f("info", "iwea")
	f("warn", "wea")
	f("error", "ea")
}

func TestLogLevelRefuses(t *testing.T) {
	f := func(name string) {
		t.Helper()
		l, err := NewLogLevel("info")
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Set(name); err == nil || !strings.Contains(err.Error(), "want trace, debug, info, warn or error") {
			t.Errorf("%q: %v", name, err)
		}
		if l.String() != "info" {
			t.Errorf("%q left the level at %s", name, l)
		}
	}
	f("")
	f("INFO")
	f("fatal")
	f("disabled")
	f("7")
}
