package etcd

import "crypto/tls"

// Options are those of [Open], with its defaults filled in.
func (c *Client) Options() Options { return c.o }

// TLSConfig is what the members are shown and asked for, with the files as they are now; nil when the endpoints are not https.
func (o Options) TLSConfig() (*tls.Config, error) {
	secure, err := (&Client{o: o}).secure()
	if err != nil || !secure {
		return nil, err
	}
	return o.TLS.config()
}
