package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

// releaseStartPages gives back the memory that holds the program's own code and constants. The start has touched most of them, for
// flags, documents and tables, and serving needs a third: that comes back from the page cache when it is used, once. Nothing is lost, for
// only mappings of the executable that cannot be written are given back.
func releaseStartPages() error {
	executable, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("cannot find the executable: %w", err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("cannot list what is mapped: %w", err)
	}
	for line := range strings.Lines(string(maps)) {
		from, to, found := codeMapping(strings.TrimSuffix(line, "\n"), executable)
		if !found {
			continue
		}
		if _, _, errno := syscall.Syscall(syscall.SYS_MADVISE, from, to-from, syscall.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("cannot give back the memory of %s: %w", line, errno)
		}
	}
	return nil
}

// codeMapping reads a line of /proc/self/maps (proc_pid_maps(5)), and reports whether it is a mapping of the executable that is private
// and not writable.
func codeMapping(line, executable string) (from, to uintptr, found bool) {
	if !strings.HasSuffix(line, " "+executable) {
		return 0, 0, false
	}
	var permissions string
	if n, err := fmt.Sscanf(line, "%x-%x %s ", &from, &to, &permissions); n != 3 || err != nil || from >= to {
		return 0, 0, false
	}
	return from, to, permissions == "r-xp" || permissions == "r--p"
}
