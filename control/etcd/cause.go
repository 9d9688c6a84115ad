package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"io/fs"
	"net"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Cause is why etcd does not do what was asked: one of a small closed set, so that metrics can count it and a log line can say what
// to do.
type Cause string

// The causes.
const (
	Unreachable Cause = "unreachable" // nobody answers
	Ended       Cause = "ended"       // the connection or the member has gone
	Stalled     Cause = "stalled"     // connected, but no sign of life
	NoLeader    Cause = "no_leader"   // the cluster has lost its quorum, or elects
	Login       Cause = "login"       // who we are is not, or no longer, known
	Forbidden   Cause = "forbidden"   // who we are may not do this
	Certificate Cause = "certificate" // one side does not trust the other's
	Files       Cause = "files"       // a file with a password, certificate or key cannot be read
	NoSpace     Cause = "no_space"    // the store is full; reads go on
	Corrupt     Cause = "corrupt"     // the members' data differ
	Overloaded  Cause = "overloaded"  // too many requests
	TooLarge    Cause = "too_large"   // one request is larger than etcd takes
	Compacted   Cause = "compacted"   // a revision is forgotten; the copy is made anew
	Restored    Cause = "restored"    // the store went back in time, or is another one; the copy is made anew
	Drift       Cause = "drift"       // the copy differed from the store; it is made anew
	Asked       Cause = "asked"       // somebody wants the copy made anew
	Other       Cause = "other"
)

// pacing is how a cause is answered.
type pacing struct {
	most   time.Duration // the longest wait between two tries
	renew  bool          // new connections, with the files as they are now, may help
	anew   bool          // the copy is made anew, from a list
	advice string
}

// pacingOf has short waits where trying costs etcd nothing, and long ones where each try costs it the arithmetic of a password.
func pacingOf(c Cause) pacing {
	switch c {
	case Unreachable:
		return pacing{most: time.Second, advice: "check that the endpoints are right, the members run, and nothing in between drops packets"}
	case Ended:
		return pacing{most: time.Second, advice: "nothing, if a member was restarted; it resumes by itself"}
	case Stalled:
		return pacing{most: time.Second, renew: true, advice: "look at the load of the members and at what is in between; the connection is made anew"}
	case NoLeader:
		return pacing{most: 2 * time.Second, advice: "check that most of the members run and reach each other: etcdctl endpoint status --cluster"}
	case Login:
		return pacing{most: 30 * time.Second, renew: true, advice: "check username and passwordFile, or what the certificate names, against etcdctl user get; files are read again before each try"}
	case Forbidden:
		return pacing{most: 30 * time.Second, renew: true, advice: "grant what is missing: etcdctl role grant-permission ROLE --prefix=true read PREFIX, or readwrite for who changes something"}
	case Certificate:
		return pacing{most: 5 * time.Second, advice: "check who signed the certificates, for which names and until when; replaced files are read again before each try"}
	case Files:
		return pacing{most: 5 * time.Second, renew: true, advice: "check that the file exists, has what it should and can be read by this process"}
	case NoSpace:
		return pacing{most: 5 * time.Second, advice: "compact the history, then run sidecar etcd-defrag --disarm; see docs/etcd-care.md"}
	case Corrupt:
		return pacing{most: 5 * time.Second, advice: "replace the member whose data differ; etcdctl alarm list names it"}
	case Overloaded:
		return pacing{most: 5 * time.Second, advice: "look at the load of the members: etcdctl endpoint status --cluster"}
	case TooLarge:
		return pacing{most: 5 * time.Second, advice: "etcd takes requests of 1.5 MiB, unless its --max-request-bytes says otherwise, and its client sends 2 MiB at most: split the document"}
	case Compacted, Asked:
		return pacing{most: time.Second, anew: true, advice: "nothing"}
	case Restored:
		return pacing{most: time.Second, anew: true, advice: "nothing, if the store was restored or replaced on purpose"}
	case Drift:
		return pacing{most: time.Second, anew: true, advice: "nothing; if it comes back, look for what answers in the place of etcd"}
	}
	return pacing{most: 5 * time.Second, advice: "look at the log of the members"}
}

// Advice says what to do about it.
func (c Cause) Advice() string { return pacingOf(c).advice }

// causeError is an error of our own that knows its cause.
type causeError struct {
	cause Cause
	text  string
}

// Error is the text.
func (e *causeError) Error() string { return e.text }

// CauseOf sorts an error of this package, of etcd's client or of gRPC.
func CauseOf(err error) Cause {
	var (
		own       *causeError
		pathError *fs.PathError
		netError  net.Error
	)
	switch server := rpctypes.Error(err); {
	case errors.As(err, &own):
		return own.cause
	case errors.Is(err, ErrNoPassword), errors.As(err, &pathError):
		return Files
	case aboutCertificate(err):
		return Certificate
	case isOneOf(server, rpctypes.ErrPermissionDenied, rpctypes.ErrPermissionNotGranted):
		return Forbidden
	case Denied(err):
		return Login
	case isOneOf(server, rpctypes.ErrCompacted):
		return Compacted
	case isOneOf(server, rpctypes.ErrNoLeader, rpctypes.ErrLeaderChanged, rpctypes.ErrNotLeader, rpctypes.ErrUnhealthy,
		rpctypes.ErrTimeoutDueToLeaderFail):
		return NoLeader
	case isOneOf(server, rpctypes.ErrNoSpace):
		return NoSpace
	case isOneOf(server, rpctypes.ErrCorrupt):
		return Corrupt
	case isOneOf(server, rpctypes.ErrRequestTooLarge), status.Code(err) == codes.ResourceExhausted && strings.Contains(err.Error(), "larger than max"):
		return TooLarge
	case isOneOf(server, rpctypes.ErrTooManyRequests, rpctypes.ErrTimeout, rpctypes.ErrTimeoutDueToConnectionLost,
		rpctypes.ErrTimeoutWaitAppliedIndex):
		return Overloaded
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netError):
		return Unreachable
	case isOneOf(server, rpctypes.ErrStopped), errors.Is(err, io.EOF), errors.Is(err, context.Canceled):
		return Ended
	}
	switch status.Code(err) {
	case codes.DeadlineExceeded, codes.Unavailable, codes.Unimplemented: // the last from what is no etcd
		return Unreachable
	case codes.Canceled:
		return Ended
	case codes.ResourceExhausted:
		return Overloaded
	case codes.Unauthenticated:
		return Login
	case codes.PermissionDenied:
		return Forbidden
	}
	return Other
}

func isOneOf(err error, known ...error) bool {
	return slices.ContainsFunc(known, func(e error) bool { return errors.Is(err, e) })
}

// aboutCertificate reports whether a handshake has failed, on our side or on the other. gRPC passes most of such errors on as text.
func aboutCertificate(err error) bool {
	var (
		verification *tls.CertificateVerificationError
		authority    x509.UnknownAuthorityError
		header       tls.RecordHeaderError
	)
	if errors.As(err, &verification) || errors.As(err, &authority) || errors.As(err, &header) {
		return true
	}
	return err != nil && (strings.Contains(err.Error(), "tls: ") || strings.Contains(err.Error(), "x509: "))
}

// Denied reports whether an error says that who we are is not, or no longer, good enough: a wrong or rotated password, an expired
// token, a user without permission.
func Denied(err error) bool {
	for _, e := range []error{
		rpctypes.ErrAuthFailed, rpctypes.ErrInvalidAuthToken, rpctypes.ErrPermissionDenied, rpctypes.ErrUserNotFound,
		rpctypes.ErrUserEmpty, rpctypes.ErrAuthOldRevision, rpctypes.ErrPermissionNotGranted,
	} {
		if errors.Is(rpctypes.Error(err), e) {
			return true
		}
	}
	return false
}
