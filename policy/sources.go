package policy

import (
	"cmp"
	"net"
	"strings"
)

// The names of sources that have no other. That of the last-good file is no source's.
const (
	fileSourceName = "file"
	etcdSourceName = "etcd"
	lastGoodName   = "last-good"
)

// name is what a source is called.
func (p *PolicySource) name() string {
	if p.Etcd != nil {
		return cmp.Or(p.Name, etcdSourceName)
	}
	return cmp.Or(p.Name, fileSourceName)
}

// policySources checks where documents come from. Files without a name of their own are one source together with those of -f, so
// only others need names of their own.
func (d *decoder) policySources(sources []PolicySource) {
	names, paths := firsts{}, firsts{}
	for i := range sources {
		p, at := &sources[i], joinIndex("spec.policies", i)
		d.exactlyOne(at, "file", "etcd")
		switch name := p.name(); {
		case name == lastGoodName:
			d.fail(at+".name", "%s is what the last-good file is called; want another name", quote(name))
		case p.Etcd != nil && name == fileSourceName:
			d.fail(at+".name", "%s is what the files given with -f are called; want another name", quote(name))
		case name == fileSourceName:
		case p.Name != "":
			d.unique(names, name, at+".name")
		default:
			d.unique(names, name, at)
		}
		if p.File != nil {
			d.unique(paths, p.File.Path, at+".file.path")
		}
		if p.Etcd != nil {
			d.etcd(p.Etcd, at+".etcd")
		}
	}
}

// etcd checks how a cluster is reached.
func (d *decoder) etcd(s *EtcdSource, at string) {
	endpoints := firsts{}
	scheme := ""
	for i, url := range s.Endpoints {
		here := joinIndex(at+".endpoints", i)
		d.unique(endpoints, url, here)
		switch is, _, _ := strings.Cut(url, "://"); {
		case is != "http" && is != "https": // reported already
		case scheme == "":
			scheme = is
		case is != scheme:
			d.fail(here, "%s is %s and the first is %s; want all or none with TLS", quote(url), is, scheme)
		}
	}
	if s.TLS != nil {
		d.clientTLS(at + ".tls")
		if scheme == "http" {
			d.fail(at+".tls", "goes with endpoints that begin with https://")
		}
	}
	d.goesWith(at, "username", "passwordFile")
	d.goesWith(at, "passwordFile", "username")
}

// resolveSources fills in where documents come from.
func (s *SidecarSettings) resolveSources(origin Origin, sources []PolicySource) {
	for i := range sources {
		source := PolicySourceSettings{Name: sources[i].name()}
		if file := sources[i].File; file != nil {
			source.File = ResolvePath(origin, file.Path)
			s.PolicyFiles = append(s.PolicyFiles, source.File)
		}
		if sources[i].Etcd != nil {
			source.Etcd = sources[i].Etcd.Resolved(origin)
		}
		s.Sources = append(s.Sources, source)
	}
}

// Resolved is a copy with its paths taken from the folder of the document at origin ([ResolvePath]).
func (s *EtcdSource) Resolved(origin Origin) *EtcdSource {
	etcd := *s
	etcd.Endpoints = append([]string(nil), etcd.Endpoints...)
	resolvePaths(origin, &etcd.PasswordFile)
	if etcd.TLS != nil {
		files := *etcd.TLS
		resolvePaths(origin, &files.CAFile, &files.CertFile, &files.KeyFile)
		etcd.TLS = &files
	}
	return &etcd
}

func checkClientURL(s string) error {
	if isClientURL(s) {
		return nil
	}
	meant := strings.TrimRight(s, "/")
	if !strings.Contains(meant, "://") {
		meant = "http://" + meant
	}
	if !isClientURL(meant) {
		meant += ":2379"
	}
	if !isClientURL(meant) {
		meant = ""
	}
	return no("clienturl", s, meant)
}

func isClientURL(s string) bool {
	scheme, address, _ := strings.Cut(s, "://")
	host, port, err := net.SplitHostPort(address)
	return (scheme == "http" || scheme == "https") && err == nil && isHost(host) && portOK(port, 1)
}

// longestPrefix keeps keys short, which are repeated in each event.
const longestPrefix = 200

func checkKeyPrefix(s string) error {
	if isKeyPrefix(s) {
		return nil
	}
	meant := "/" + strings.Trim(s, "/")
	if !isKeyPrefix(meant) {
		meant = ""
	}
	return no("keyprefix", s, meant)
}

func isKeyPrefix(s string) bool {
	return strings.HasPrefix(s, "/") && isVisible(s) && len(s) > 1 && len(s) <= longestPrefix && !strings.HasSuffix(s, "/") && !strings.Contains(s, "//")
}
