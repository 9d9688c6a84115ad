# Reads the output of `go test -bench Take ./limit` and prints a table of medians: nanoseconds for a call of ours, and how many times
# as long each peer takes in the same runs.
function median(key,    i, j, v, sorted) {
  for (i = 1; i <= count[key]; i++) {
    v = value[key, i]
    for (j = i - 1; j > 0 && sorted[j] > v; j--) sorted[j + 1] = sorted[j]
    sorted[j + 1] = v
  }
  return sorted[int((count[key] + 1) / 2)]
}
/^BenchmarkTake\// {
  sub(/^BenchmarkTake\//, "", $1)
  sub(/-[0-9]+$/, "", $1)
  match($1, /\/[a-z]+$/)
  load = substr($1, 1, RSTART - 1)
  if (!(load in seen)) { seen[load] = 1; loads[++n] = load }
  key = load substr($1, RSTART)
  value[key, ++count[key]] = $3 + 0
}
/^(FAIL|panic)/ { print; failed = 1 }
END {
  if (failed || n == 0) { print "no table: the benchmark failed"; exit 1 }
  printf "%-32s %12s %12s %16s\n", "", "bucket", "x/time/rate", "mutex and ticker"
  for (i = 1; i <= n; i++) {
    ours = median(loads[i] "/bucket")
    printf "%-32s %9.1f ns %10.1f × %14.1f ×\n", loads[i], ours, median(loads[i] "/xtime") / ours, median(loads[i] "/mutex") / ours
  }
}
