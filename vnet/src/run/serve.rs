//! The HTTP server of the metrics: one request for each connection, so many at once, and none that lasts.

use std::cell::Cell;
use std::convert::Infallible;
use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::str::FromStr;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::time::{sleep, timeout};

use super::gather::Gatherer;
use crate::metrics;

/// How many are served at once: more than one scraper and a curious person need.
const AT_ONCE: usize = 16;
/// How long anybody may take to ask, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// A pause when no connection can be taken, for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// Where the metrics are.
const PATH: &str = "/metrics";

/// Where metrics are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A socket in the file system, for root alone.
    Unix(PathBuf),
}

impl Listen {
    /// Whether only the host itself gets there.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(addr) => addr.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("a path is missing: unix:PATH".to_owned()),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp).map_err(|_| {
                "it is neither ADDRESS:PORT, such as 127.0.0.1:9464 or [::1]:9464, nor unix:PATH".to_owned()
            }),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Removes a socket's file when nobody listens there any more.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Begins to serve, in tasks of the local set.
pub(super) fn start(listen: &Listen, gatherer: Gatherer) -> io::Result<()> {
    let server = Rc::new(Server { gatherer, served: Cell::new(0) });
    match listen {
        Listen::Tcp(addr) => {
            let listener = std::net::TcpListener::bind(addr)?;
            listener.set_nonblocking(true)?;
            let listener = TcpListener::from_std(listener)?;
            tokio::task::spawn_local(async move {
                loop {
                    match listener.accept().await {
                        Ok((stream, _)) => server.serve(stream),
                        Err(_) => sleep(PAUSE).await,
                    }
                }
            });
        }
        Listen::Unix(path) => {
            let (listener, file) = bind(path)?;
            tokio::task::spawn_local(async move {
                let _file = file;
                loop {
                    match listener.accept().await {
                        Ok((stream, _)) => server.serve(stream),
                        Err(_) => sleep(PAUSE).await,
                    }
                }
            });
        }
    }
    Ok(())
}

/// Binds a socket in the file system, in place of one that nobody listens to any more.
fn bind(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let in_use = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
    let listener = match UnixListener::bind(path) {
        Err(error) if in_use(&error) && is_dead(path) => {
            fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        listener => listener,
    }?;
    let file = SocketFile(path.to_owned());
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok((listener, file))
}

/// Whether a file is a socket that was left.
fn is_dead(path: &Path) -> bool {
    let connected = std::os::unix::net::UnixStream::connect(path);
    connected.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

struct Server {
    gatherer: Gatherer,
    served: Cell<usize>,
}

impl Server {
    /// Serves a connection in a task of its own, unless too many are served already.
    fn serve(self: &Rc<Self>, stream: impl AsyncRead + AsyncWrite + Unpin + 'static) {
        if self.served.get() >= AT_ONCE {
            return;
        }
        self.served.set(self.served.get() + 1);
        let server = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let answer = |request| server.answer(request);
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service_fn(answer));
            // Whoever goes away in between, or takes too long, is nobody's business.
            let _ = timeout(2 * PATIENCE, connection).await;
            server.served.set(server.served.get() - 1);
        });
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        Ok(match (request.method(), request.uri().path()) {
            (&Method::GET | &Method::HEAD, PATH) => self.metrics().await,
            (&Method::GET | &Method::HEAD, "/") => {
                text(StatusCode::OK, format!("vnet: metrics are at {PATH}\n"))
            }
            (&Method::GET | &Method::HEAD, _) => {
                text(StatusCode::NOT_FOUND, format!("there is only {PATH}\n"))
            }
            _ => {
                let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
                refused.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
                refused
            }
        })
    }

    async fn metrics(&self) -> Response<Full<Bytes>> {
        let failed = |error: anyhow::Error| text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}\n"));
        match self.gatherer.sample().await {
            Err(error) => failed(error.into()),
            Ok(sample) => match metrics::encode(&sample) {
                Err(error) => failed(error.into()),
                Ok(body) => response(StatusCode::OK, metrics::CONTENT_TYPE, body),
            },
        }
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", body)
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_to_listen_are_addresses_with_ports_and_paths() {
        for (text, local) in [
            ("127.0.0.1:9464", true),
            ("127.1.2.3:1", true),
            ("[::1]:9464", true),
            ("[::ffff:127.0.0.1]:9464", true),
            ("unix:/run/vnet/metrics.sock", true),
            ("0.0.0.0:9464", false),
            ("[::]:9464", false),
            ("192.0.2.1:9464", false),
        ] {
            let listen: Listen = text.parse().unwrap();
            assert_eq!((listen.is_local(), listen.to_string().as_str()), (local, text), "{text}");
        }
        for text in ["", "9464", ":9464", "localhost:9464", "127.0.0.1", "unix:"] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }
}
