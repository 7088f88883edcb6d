package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// Bounds of the front door.
const (
	maxHead        = 16 << 10
	headTimeout    = 10 * time.Second
	idleTimeout    = time.Minute
	maxStreams     = 250
	drainTimeout   = 20 * time.Second
	lookAtCertsAge = time.Second
)

// doors are the listeners of the front door.
type doors struct {
	http, https net.Listener
	server      *http.Server
}

// openDoors opens the configured addresses.
func openDoors(ctx context.Context, c Config, handler http.Handler, log *slog.Logger) (*doors, error) {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true) // gRPC on the plain address
	d := &doors{server: &http.Server{
		Handler: handler, ReadHeaderTimeout: headTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHead,
		Protocols: protocols, HTTP2: &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}}
	var listen net.ListenConfig
	var err error
	if c.HTTP != "" {
		if d.http, err = listen.Listen(ctx, "tcp", c.HTTP); err != nil {
			return nil, fmt.Errorf("http: %w", err)
		}
	}
	if c.HTTPS != "" {
		certs, err := loadCertificates(c.Certificates)
		if err != nil {
			return nil, errors.Join(err, d.closeListeners())
		}
		if d.https, err = listen.Listen(ctx, "tcp", c.HTTPS); err != nil {
			return nil, errors.Join(fmt.Errorf("https: %w", err), d.closeListeners())
		}
		d.server.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certs.choose}
	}
	return d, nil
}

// addresses returns what is listened on, empty for what is not.
func (d *doors) addresses() (http, https string) {
	if d.http != nil {
		http = d.http.Addr().String()
	}
	if d.https != nil {
		https = d.https.Addr().String()
	}
	return http, https
}

// serve answers until ctx ends and then lets what is under way finish. A listener
// that fails ends it at once.
func (d *doors) serve(ctx context.Context) error {
	var serving sync.WaitGroup
	defer serving.Wait()
	ended := make(chan error, 2)
	if d.http != nil {
		serving.Go(func() { ended <- d.server.Serve(d.http) })
	}
	if d.https != nil {
		serving.Go(func() { ended <- d.server.ServeTLS(d.https, "", "") })
	}
	select {
	case err := <-ended:
		return errors.Join(fmt.Errorf("front door: %w", err), d.server.Close())
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
	defer cancel()
	err := d.server.Shutdown(drain)
	if errors.Is(err, context.DeadlineExceeded) {
		err = d.server.Close() // streams that would not end
	}
	return err
}

func (d *doors) closeListeners() error {
	var err error
	for _, l := range []net.Listener{d.http, d.https} {
		if l != nil {
			err = errors.Join(err, l.Close())
		}
	}
	return err
}

// certificates are the front door's, read again when their files change.
type certificates struct {
	files []Certificate

	mu     sync.Mutex
	looked time.Time
	loaded []loadedCertificate
}

type loadedCertificate struct {
	certificate *tls.Certificate
	modified    time.Time
}

func loadCertificates(files []Certificate) (*certificates, error) {
	c := &certificates{files: files, loaded: make([]loadedCertificate, len(files))}
	for i := range files {
		if err := c.load(i); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// load reads a certificate whose file has changed.
func (c *certificates) load(i int) error {
	info, err := os.Stat(string(c.files[i].Cert))
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	if info.ModTime().Equal(c.loaded[i].modified) {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(string(c.files[i].Cert), string(c.files[i].Key))
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	c.loaded[i] = loadedCertificate{&pair, info.ModTime()}
	return nil
}

// errUnknownName makes the handshake fail; nothing is issued or looked up for it.
var errUnknownName = errors.New("no certificate for this name")

// choose returns the certificate for a client's server name.
func (c *certificates) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.looked) > lookAtCertsAge {
		c.looked = now
		for i := range c.files {
			_ = c.load(i) // a half-written file: the old certificate goes on
		}
	}
	for _, l := range c.loaded {
		if hello.SupportsCertificate(l.certificate) == nil {
			return l.certificate, nil
		}
	}
	return nil, errUnknownName
}
