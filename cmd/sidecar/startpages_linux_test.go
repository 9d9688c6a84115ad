package main

import (
	"os"
	"testing"
)

func TestCodeMapping(t *testing.T) {
	f := func(line string, from, to uintptr, found bool) {
		t.Helper()
		if a, b, ok := codeMapping(line, "/bin/side car"); ok != found || found && (a != from || b != to) {
			t.Errorf("%s: %x, %x, %v, want %x, %x, %v", line, a, b, ok, from, to, found)
		}
	}
	f("00400000-00c4b000 r-xp 00000000 fe:00 9986080                            /bin/side car", 0x400000, 0xc4b000, true)
	f("00c4b000-0154a000 r--p 0084b000 fe:00 9986080                            /bin/side car", 0xc4b000, 0x154a000, true)
	// What can be written holds values that the file does not have.
	f("0154a000-015ec000 rw-p 0114a000 fe:00 9986080                            /bin/side car", 0, 0, false)
	f("00400000-00c4b000 r-xs 00000000 fe:00 9986080                            /bin/side car", 0, 0, false)
	f("7f7b1507b000-7f7b1507f000 r--p 00000000 00:00 0                          [vvar]", 0, 0, false)
	f("7f7b1507b000-7f7b1507f000 r-xp 00000000 fe:00 77                         /lib/libc.so", 0, 0, false)
	f("r-xp /bin/side car", 0, 0, false)
	f("", 0, 0, false)
}

// The program goes on after its code was given back, and holds less.
func TestReleaseStartPages(t *testing.T) {
	before := residentMB(t, os.Getpid())
	if err := releaseStartPages(); err != nil {
		t.Fatal(err)
	}
	if after := residentMB(t, os.Getpid()); after >= before {
		t.Errorf("%.1f MB are resident, and were %.1f MB before", after, before)
	}
}
