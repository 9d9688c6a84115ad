package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"weir/policy"
)

// demoYAML is what the demo runs. Its addresses are replaced where they are taken.
//
//go:embed demo.yaml
var demoYAML []byte

// The addresses of demoYAML.
const (
	demoListen  = "127.0.0.1:8080"
	demoAdmin   = "127.0.0.1:9901"
	demoBackend = "127.0.0.1:9000"
)

const (
	// demoStart is how long the sidecar may take to be ready.
	demoStart = 10 * time.Second
	// demoStop is how long everything may take to end.
	demoStop = 10 * time.Second
)

// demoOptions is what the command line says about the demo.
type demoOptions struct {
	lasts time.Duration // 0: until Ctrl-C
	json  bool
}

func (c *cli) demoCommand() *cobra.Command {
	var lasts time.Duration
	var show bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See the sidecar hold a greedy tenant to its limit",
		Long: `Start a small legacy service, the sidecar in front of it and three tenants that use it: one asks
for four times its limit, two for less than theirs. A table shows once a second what each of them
asked for and got. It ends with Ctrl-C, or by itself with --for, and then says what was shown.

Nothing leaves this machine, and nothing is left behind. It exits with 1 when the greedy tenant was
not held to its limit, or when one of the others lost a request.`,
		Example: `  sidecar demo
  sidecar demo --for 10s -o json
  sidecar demo --print > demo.yaml     the documents that it runs`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().DurationVar(&lasts, "for", 0, "end after this `DURATION`, as in 10s (default: with Ctrl-C)")
	cmd.Flags().BoolVar(&show, "print", false, "print the documents of the demo instead of running it")
	output := choiceFlag(cmd, "output", "o", "how to print the summary; json sends everything else to stderr", "table", "table", "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if show {
			_, err := c.out.Write(demoYAML)
			return err
		}
		if lasts < 0 {
			return &usageError{command: cmd.CommandPath(), err: fmt.Errorf("cannot run for %v: want a positive duration", lasts)}
		}
		ctx, stop := untilInterrupted(cmd.Context())
		defer stop()
		return c.runDemo(ctx, demoOptions{lasts: lasts, json: output.value == "json"})
	}
	return cmd
}

// runDemo runs the whole demo and prints what it showed. It returns an error when that is not what it should show.
func (c *cli) runDemo(ctx context.Context, o demoOptions) error {
	live := c.out
	if o.json {
		live = c.err
	}
	d, err := startDemo(ctx)
	if err != nil {
		return err
	}
	d.announce(live)
	total, took, err := d.load(ctx, o.lasts, &liveView{out: live, paint: c.painterFor(live), terminal: isTerminal(live)})
	edited := d.edited()
	if err = errors.Join(err, d.stop()); err != nil {
		return fmt.Errorf("cannot run the demo: %w", err)
	}

	verdict := judge(took, total)
	if edited {
		verdict = claim{Reason: "The documents were changed on the way, so this run claims nothing."}
	}
	if err := c.summarize(o, took, total, verdict); err != nil {
		return err
	}
	if verdict.Shown && !verdict.Holds {
		return errors.New("the demo did not show what it should")
	}
	return nil
}

// summarize prints the end of the demo.
func (c *cli) summarize(o demoOptions, took time.Duration, total []tenantTotal, verdict claim) error {
	if o.json {
		return writeJSON(c.out, struct {
			Seconds float64       `json:"seconds"`
			Tenants []tenantTotal `json:"tenants"`
			Shown   bool          `json:"shown"`
			Holds   bool          `json:"holds"`
			Reason  string        `json:"reason"`
		}{took.Seconds(), total, verdict.Shown, verdict.Holds, verdict.Reason})
	}
	paint := c.painterFor(c.out)
	reason := verdict.Reason
	switch {
	case verdict.Holds:
		reason = paint.green(reason)
	case verdict.Shown:
		reason = paint.red(reason)
	}
	_, err := fmt.Fprintf(c.out, "\n%s\n%s\n", summaryTable(took, total, paint), reason)
	return err
}

// demo is the demo while it runs.
type demo struct {
	listen, admin string
	dir, file     string // of the documents
	documents     []byte
	tenants       []tenantLoad
	allowed       map[string]allowance
	legacy        *legacy
	stopSidecar   context.CancelFunc
	ended         chan error // what runSidecar returned
	log           *lockedBuffer
}

// startDemo starts the service and the sidecar, and returns when the sidecar is ready.
func startDemo(ctx context.Context) (*demo, error) {
	backend, err := listenNear(demoBackend)
	if err != nil {
		return nil, fmt.Errorf("cannot start the demo's service: %w", err)
	}
	d := &demo{
		tenants: []tenantLoad{
			{name: "greedy", perSecond: 400, meter: newMeter()},
			{name: "modest-1", perSecond: 30, meter: newMeter()},
			{name: "modest-2", perSecond: 20, meter: newMeter()},
		},
		legacy: startLegacy(backend),
		ended:  make(chan error, 1),
		log:    &lockedBuffer{},
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	d.stopSidecar = stop
	if err := d.prepare(backend.Addr().String()); err != nil {
		d.ended <- nil
		return nil, errors.Join(err, d.stop())
	}
	go func() {
		d.ended <- runSidecar(running, runOptions{files: []string{d.file}, logLevel: "info"}, io.Discard, d.log)
	}()
	if err := d.awaitReady(ctx); err != nil {
		return nil, errors.Join(err, d.stop())
	}
	return d, nil
}

// prepare writes the documents, with addresses that are free, and reads from them what each tenant may have.
func (d *demo) prepare(backend string) error {
	var err error
	if d.listen, err = freeNear(demoListen); err != nil {
		return err
	}
	if d.admin, err = freeNear(demoAdmin); err != nil {
		return err
	}
	d.documents = []byte(strings.NewReplacer(demoListen, d.listen, demoAdmin, d.admin, demoBackend, backend).Replace(string(demoYAML)))
	if d.allowed, err = allowances(d.documents, d.tenants); err != nil {
		return err
	}
	if d.dir, err = os.MkdirTemp("", "weir-demo-"); err != nil {
		return fmt.Errorf("cannot make a directory for the demo's documents: %w", err)
	}
	d.file = filepath.Join(d.dir, "demo.yaml")
	if err := os.WriteFile(d.file, d.documents, 0o644); err != nil {
		return fmt.Errorf("cannot write the demo's documents: %w", err)
	}
	return nil
}

// awaitReady returns when the admin port says that the sidecar is ready.
func (d *demo) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, demoStart)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if answers(ctx, client, "http://"+d.admin+"/readyz") {
				return nil
			}
		case err := <-d.ended:
			d.ended <- nil // stop waits for it
			return fmt.Errorf("cannot start the demo's sidecar: %w\n%s", err, d.log.String())
		case <-ctx.Done():
			return fmt.Errorf("cannot start the demo's sidecar: not ready within %v\n%s", demoStart, d.log.String())
		}
	}
}

func answers(ctx context.Context, client *http.Client, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// announce says where to look.
func (d *demo) announce(w io.Writer) {
	fmt.Fprintf(w, `proxy    http://%s/          curl -i -H 'X-Tenant-ID: greedy' http://%s/
admin    http://%s/status
metrics  http://%s/metrics
policy   %s    change it: it applies at once

`, d.listen, d.listen, d.admin, d.admin, d.file)
	for _, t := range d.tenants {
		a := d.allowed[t.name]
		fmt.Fprintf(w, "%-9s asks for %s; its limit is %s and a burst of %d\n", t.name, perSecond(float64(t.perSecond)), perSecond(a.perSecond), a.burst)
	}
	fmt.Fprintln(w)
}

// load runs the tenants and shows every second of them, until ctx or the time ends.
func (d *demo) load(ctx context.Context, lasts time.Duration, view *liveView) (total []tenantTotal, took time.Duration, err error) {
	if lasts > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, lasts)
		defer cancel()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	start := time.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		newLoader("http://"+d.listen+"/").run(ctx, d.tenants)
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for running := true; running; {
		select {
		case <-tick.C:
			rows := make([]secondOf, len(d.tenants))
			for i, t := range d.tenants {
				rows[i] = secondOf{tenant: t.name, counts: t.meter.cut()}
			}
			view.show(time.Since(start), rows)
		case err = <-d.ended:
			d.ended <- nil // stop waits for it
			err = fmt.Errorf("the sidecar ended: %w\n%s", err, d.log.String())
			cancel()
			<-done
			running = false
		case <-done:
			running = false
		}
	}
	took = time.Since(start)
	for _, t := range d.tenants {
		total = append(total, newTenantTotal(t.name, d.allowed[t.name], t.meter.total()))
	}
	return total, took, err
}

// edited says whether the documents are no longer those that were written.
func (d *demo) edited() bool {
	now, err := os.ReadFile(d.file)
	return err != nil || !bytes.Equal(now, d.documents)
}

// stop ends the sidecar and the service, and removes the documents.
func (d *demo) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), demoStop)
	defer cancel()
	d.stopSidecar()
	var err error
	select {
	case err = <-d.ended:
	case <-ctx.Done():
		err = fmt.Errorf("cannot stop the demo's sidecar within %v", demoStop)
	}
	err = errors.Join(err, d.legacy.stop(ctx))
	if d.dir != "" {
		err = errors.Join(err, os.RemoveAll(d.dir))
	}
	return err
}

// allowances reads from the documents what each tenant's limit lets through.
func allowances(documents []byte, tenants []tenantLoad) (map[string]allowance, error) {
	docs, problems := policy.Decode("demo.yaml", documents)
	snapshot, more := policy.Compile(docs, policy.CompileOptions{})
	if snapshot == nil || len(problems) > 0 {
		return nil, fmt.Errorf("cannot read the demo's documents: %v", append(problems, more...))
	}
	allowed := make(map[string]allowance, len(tenants))
	for _, t := range tenants {
		for _, l := range snapshot.Plan(snapshot.Covering(t.name, nil)).Limits {
			allowed[t.name] = allowance{perSecond: float64(l.Requests) / l.Per.Seconds(), burst: l.Burst}
		}
	}
	return allowed, nil
}

// listenNear listens on the address, or on the next port of the same host that is not taken.
func listenNear(address string) (net.Listener, error) {
	const ports = 100
	host, first, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %q: %w", address, err)
	}
	port, err := strconv.Atoi(first)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %q: %w", address, err)
	}
	for i := range ports {
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port+i))); err == nil {
			return l, nil
		}
	}
	return nil, fmt.Errorf("cannot listen on %s nor on the %d ports after it: %w", address, ports, err)
}

// freeNear returns the address, or one with another port when it is taken.
func freeNear(address string) (string, error) {
	l, err := listenNear(address)
	if err != nil {
		return "", fmt.Errorf("cannot find a free port for the demo: %w", err)
	}
	address = l.Addr().String()
	return address, l.Close()
}

// lockedBuffer keeps what is written by several goroutines.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
