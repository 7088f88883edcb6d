package proxy

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// nginxConf is nginx as a plain reverse proxy that keeps its connections: one worker, as
// every proxy here has one processor, and nothing is logged. It is one process.
const nginxConf = `daemon off;
master_process off;
worker_processes 1;
pid DIR/nginx.pid;
error_log DIR/nginx-error.log;
events { worker_connections 1024; }
http {
  access_log off;
  keepalive_requests 100000000;
  client_body_temp_path DIR/nginx-body;
  proxy_temp_path DIR/nginx-proxy;
  fastcgi_temp_path DIR/nginx-fastcgi;
  uwsgi_temp_path DIR/nginx-uwsgi;
  scgi_temp_path DIR/nginx-scgi;
  upstream app { server UPSTREAM; keepalive 256; keepalive_requests 100000000; }
  server {
    listen LISTEN;
    location / {
      proxy_pass http://app;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
    }
  }
}
`

// haproxyConf is HAProxy as the same.
const haproxyConf = `global
  nbthread 1
  maxconn 1024
defaults
  mode http
  timeout connect 2s
  timeout client 60s
  timeout server 30s
  option forwardfor
  http-reuse always
frontend front
  bind LISTEN
  default_backend app
backend app
  server app UPSTREAM
`

// fill writes a peer's configuration file.
func fill(dir, name, template, listen, upstream string) (string, error) {
	path := filepath.Join(dir, name)
	text := strings.NewReplacer("DIR", dir, "LISTEN", listen, "UPSTREAM", upstream).Replace(template)
	const readable = 0o644
	return path, os.WriteFile(path, []byte(text), readable)
}

// startNginx starts nginx in front of the upstream.
func startNginx(ctx context.Context, dir, upstream string) (target, error) {
	listen, err := free(ctx)
	if err != nil {
		return target{}, err
	}
	conf, err := fill(dir, "nginx.conf", nginxConf, listen, upstream)
	if err != nil {
		return target{}, err
	}
	p, err := start(ctx, dir, "nginx", listening(ctx, listen), "nginx", "-p", dir, "-c", conf)
	return target{name: "nginx", address: listen, process: p}, err
}

// startHAProxy starts HAProxy in front of the upstream.
func startHAProxy(ctx context.Context, dir, upstream string) (target, error) {
	listen, err := free(ctx)
	if err != nil {
		return target{}, err
	}
	conf, err := fill(dir, "haproxy.cfg", haproxyConf, listen, upstream)
	if err != nil {
		return target{}, err
	}
	p, err := start(ctx, dir, "haproxy", listening(ctx, listen), "haproxy", "-db", "-f", conf)
	return target{name: "haproxy", address: listen, process: p}, err
}

// upstream is the process that all proxies lead to.
type upstream struct {
	plain, tls string
	process    *process
}

// startUpstream starts the upstream, which shows the identity in the folder.
func startUpstream(ctx context.Context, dir, peer, identity string) (upstream, error) {
	var u upstream
	var err error
	if u.plain, err = free(ctx); err != nil {
		return u, err
	}
	if u.tls, err = free(ctx); err != nil {
		return u, err
	}
	u.process, err = start(ctx, dir, "upstream", listening(ctx, u.tls), peer,
		"-listen", u.plain, "-listen-tls", u.tls, "-identity", identity)
	return u, err
}

// startReverseProxy starts Go's httputil.ReverseProxy; more adds to its command line.
func startReverseProxy(ctx context.Context, dir, peer, name string, more ...string) (target, error) {
	listen, err := free(ctx)
	if err != nil {
		return target{}, err
	}
	command := append([]string{peer, "-listen", listen}, more...)
	p, err := start(ctx, dir, name, listening(ctx, listen), command...)
	if err != nil {
		return target{}, fmt.Errorf("httputil.ReverseProxy: %w", err)
	}
	return target{name: name, address: listen, process: p}, nil
}
