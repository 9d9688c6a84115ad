package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"weir/control/etcd"
)

// defaultPrefix is below which keys lie unless somebody says otherwise.
const defaultPrefix = "/weir"

// etcdFlags are what the command line says about an etcd cluster.
type etcdFlags struct {
	endpoints    []string
	prefix       string
	tls          etcd.TLSFiles
	username     string
	passwordFile string
	timeout      time.Duration
}

// addEtcdFlags defines the flags of every command that talks to etcd.
func addEtcdFlags(cmd *cobra.Command) *etcdFlags {
	e := &etcdFlags{}
	f := cmd.Flags()
	f.StringSliceVar(&e.endpoints, "etcd", nil, "`URL` of each member of the etcd cluster, as in http://127.0.0.1:2379; several with commas")
	f.StringVar(&e.prefix, "prefix", defaultPrefix, "`PATH` below which the keys lie")
	f.StringVar(&e.tls.CAFile, "etcd-ca-file", "", "`FILE` of the authorities that may sign etcd's certificate (default: the system's)")
	f.StringVar(&e.tls.CertFile, "etcd-cert-file", "", "`FILE` of our certificate for etcd; goes with --etcd-key-file")
	f.StringVar(&e.tls.KeyFile, "etcd-key-file", "", "`FILE` of our private key for etcd")
	f.StringVar(&e.username, "etcd-username", "", "`NAME` to log in to etcd with; goes with --etcd-password-file")
	f.StringVar(&e.passwordFile, "etcd-password-file", "", "`FILE` of the password")
	f.DurationVar(&e.timeout, "etcd-timeout", 5*time.Second, "longest that one call to etcd may take")
	return e
}

// given says whether a cluster is named at all.
func (e *etcdFlags) given() bool { return len(e.endpoints) > 0 }

// check reports what can be known to be wrong before anybody is asked.
func (e *etcdFlags) check() error {
	if !e.given() {
		return errors.New("no etcd is named: say where it is with --etcd http://HOST:2379, or with SIDECAR_ETCD in the environment")
	}
	schemes := make(map[string]bool)
	for _, endpoint := range e.endpoints {
		scheme, err := checkEndpoint("--etcd", endpoint, "who logs in is said with --etcd-username and --etcd-password-file")
		if err != nil {
			return err
		}
		schemes[scheme] = true
	}
	if len(schemes) > 1 {
		return fmt.Errorf("cannot use --etcd %s: some are https and some are not, want all or none", strings.Join(e.endpoints, ","))
	}
	switch {
	case e.tls != (etcd.TLSFiles{}) && schemes["http"]:
		return fmt.Errorf("cannot use --etcd %s with a file of TLS: without https nothing is encrypted, and nobody looks at certificates", strings.Join(e.endpoints, ","))
	case !strings.HasPrefix(e.prefix, "/") || strings.Trim(e.prefix, "/") == "":
		return fmt.Errorf("cannot use --prefix %q: want a path, as in %s", e.prefix, defaultPrefix)
	case (e.tls.CertFile == "") != (e.tls.KeyFile == ""):
		return errors.New("--etcd-cert-file and --etcd-key-file go together")
	case (e.username == "") != (e.passwordFile == ""):
		return errors.New("--etcd-username and --etcd-password-file go together")
	case e.timeout <= 0:
		return fmt.Errorf("cannot use --etcd-timeout %v: want a positive duration", e.timeout)
	}
	return nil
}

// checkEndpoint checks the URL of a member that a flag has, and returns its scheme. A password that somebody put into it is not
// repeated; login says where that belongs.
func checkEndpoint(flag, endpoint, login string) (scheme string, err error) {
	shown, why := endpoint, ""
	u, err := url.Parse(endpoint)
	switch {
	case strings.Contains(endpoint, "@"):
		shown, why = "…"+endpoint[strings.LastIndex(endpoint, "@"):], "; "+login
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "", strings.Trim(u.Path, "/") != "":
	default:
		if port, err := strconv.ParseUint(u.Port(), 10, 16); err == nil && port > 0 {
			return u.Scheme, nil
		}
		why = "; it needs a port"
	}
	return "", fmt.Errorf("cannot use %s %q: want the URLs of its members, as in http://127.0.0.1:2379 or https://etcd-0:2379,https://etcd-1:2379%s", flag, shown, why)
}

// options are what a client of the cluster needs.
func (e *etcdFlags) options() etcd.Options {
	return etcd.Options{Endpoints: e.endpoints, TLS: e.tls, Username: e.username, PasswordFile: e.passwordFile, Timeout: e.timeout}
}

// eager are the options of a command that looks at each member by itself, and that somebody waits for.
func (e *etcdFlags) eager() etcd.Options {
	o := e.options()
	o.Eager = true
	return o
}

// layout is where things lie in the cluster.
func (e *etcdFlags) layout() etcd.Layout { return etcd.LayoutAt(e.prefix) }

// open checks the flags and prepares a connection. Mistakes in the flags are usage errors.
func (e *etcdFlags) open(cmd *cobra.Command) (*etcd.Client, error) {
	if err := e.check(); err != nil {
		return nil, &usageError{command: cmd.CommandPath(), err: err}
	}
	return etcd.Open(e.options())
}

// with runs a command that talks to the cluster: it opens the connection, ends with Ctrl-C, and says what to do when the cluster is the
// reason why it failed.
func (e *etcdFlags) with(cmd *cobra.Command, do func(ctx context.Context, client *etcd.Client) error) error {
	client, err := e.open(cmd)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, stop := untilInterrupted(cmd.Context())
	defer stop()
	return wayOut(do(ctx, client))
}

// wayOut adds what to do to an error that the cluster is the reason of.
func wayOut(err error) error {
	switch cause := etcd.CauseOf(err); cause {
	case etcd.Unreachable, etcd.NoLeader, etcd.Login, etcd.Forbidden, etcd.Certificate, etcd.NoSpace, etcd.Corrupt, etcd.Overloaded, etcd.TooLarge:
		return fmt.Errorf("%w; %s", err, cause.Advice())
	}
	return err
}
