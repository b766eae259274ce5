//! HTTP/2 on both sides, and TLS around it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// An answer over HTTP/2: head, body, trailers; or how its body broke off.
pub type Answer = (http::response::Parts, Result<(Vec<u8>, Option<HeaderMap>), h2::Error>);

/// A request under way.
pub type Begun = (h2::client::ResponseFuture, h2::SendStream<Bytes>);

/// One HTTP/2 connection to serin.
pub struct H2 {
    runtime: Runtime,
    send: h2::client::SendRequest<Bytes>,
}

impl H2 {
    /// With prior knowledge.
    pub fn plain(addr: SocketAddr) -> Self {
        let runtime = runtime();
        let tcp = runtime.block_on(TcpStream::connect(addr)).unwrap();
        Self::over(runtime, tcp)
    }

    /// By ALPN.
    pub fn tls(addr: SocketAddr, config: Arc<ClientConfig>) -> Self {
        let runtime = runtime();
        let stream = runtime.block_on(async {
            let tcp = TcpStream::connect(addr).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            tokio_rustls::TlsConnector::from(config).connect(name, tcp).await.unwrap()
        });
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        Self::over(runtime, stream)
    }

    fn over(runtime: Runtime, io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (send, connection) = runtime.block_on(h2::client::handshake(io)).unwrap();
        runtime.spawn(connection);
        Self { runtime, send }
    }

    /// Sends a request with a body (and trailers), and reads the answer to its end.
    pub fn ask(&mut self, request: Request<()>, body: &str, trailers: Option<HeaderMap>) -> Result<Answer, h2::Error> {
        let empty = body.is_empty() && trailers.is_none();
        let body = Bytes::copy_from_slice(body.as_bytes());
        self.runtime.block_on(async {
            let mut send = self.send.clone().ready().await?;
            let (answer, mut up) = send.send_request(request, empty)?;
            if !empty {
                up.send_data(body, trailers.is_none())?;
            }
            if let Some(trailers) = trailers {
                up.send_trailers(trailers)?;
            }
            let (parts, mut body) = answer.await?.into_parts();
            let mut all = Vec::new();
            while let Some(chunk) = body.data().await {
                match chunk {
                    Ok(chunk) => {
                        assert!(body.flow_control().release_capacity(chunk.len()).is_ok());
                        all.extend_from_slice(&chunk);
                    }
                    Err(error) => return Ok((parts, Err(error))),
                }
            }
            Ok(match body.trailers().await {
                Ok(trailers) => (parts, Ok((all, trailers))),
                Err(error) => (parts, Err(error)),
            })
        })
    }

    /// Sends a head and perhaps the beginning of a body; hands back what cancels it.
    pub fn begin(&mut self, request: Request<()>, body: &'static str) -> Begun {
        self.runtime.block_on(async {
            let mut send = self.send.clone().ready().await.unwrap();
            let (answer, mut up) = send.send_request(request, body.is_empty()).unwrap();
            if !body.is_empty() {
                up.send_data(Bytes::from_static(body.as_bytes()), false).unwrap();
            }
            (answer, up)
        })
    }
}

/// A certificate for `localhost`, and both sides' use of it.
pub struct Certificate {
    pub folder: tempfile::TempDir,
    pub pem: PathBuf,
    pub key: PathBuf,
}

impl Certificate {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let (pem, key) = (folder.path().join("it.pem"), folder.path().join("it.key"));
        std::fs::write(&pem, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        Self { folder, pem, key }
    }

    /// What trusts it.
    pub fn client(&self, alpn: &[&str], versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.pem).unwrap()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    /// What shows it.
    pub fn server(&self, alpn: &str) -> Arc<ServerConfig> {
        let chain = vec![CertificateDer::from_pem_file(&self.pem).unwrap()];
        let key = PrivateKeyDer::from_pem_file(&self.key).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        Arc::new(config)
    }
}

/// What an HTTP/2 upstream saw of a request.
#[derive(Clone, Debug)]
pub struct Seen {
    pub head: http::request::Parts,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

/// An HTTP/2 server: `/cut`, `/cancel` and `/no-error` are reset in their bodies, `/close` loses its connection there, `/wait` waits for its reset,
/// everything else gets `ok` and a trailer.
pub struct Upstream2 {
    pub addr: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    reset: Arc<Mutex<Vec<serin::names::Mono>>>,
    _runtime: Runtime,
}

impl Upstream2 {
    pub fn start(certificate: Option<&Certificate>) -> Self {
        Self::serving(certificate.map(|c| c.server("h2")))
    }

    /// With this face towards callers; plain without one.
    pub fn serving(tls: Option<Arc<ServerConfig>>) -> Self {
        let runtime = runtime();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let addr = listener.local_addr().unwrap();
        let (seen, reset) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::<Mutex<Vec<serin::names::Mono>>>::default());
        let tls = tls.map(tokio_rustls::TlsAcceptor::from);
        let shared = (Arc::clone(&seen), Arc::clone(&reset));
        runtime.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (seen, reset) = (Arc::clone(&shared.0), Arc::clone(&shared.1));
                let tls = tls.clone();
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => {
                            if let Ok(io) = tls.accept(tcp).await {
                                serve(io, seen, reset).await;
                            }
                        }
                        None => serve(tcp, seen, reset).await,
                    }
                });
            }
        });
        Self { addr, seen, reset, _runtime: runtime }
    }

    pub fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().cloned().unwrap_or_else(|| panic!("nothing reached upstream"))
    }

    pub fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// When streams were reset by serin.
    pub fn resets(&self) -> Vec<serin::names::Mono> {
        self.reset.lock().unwrap().clone()
    }
}

async fn serve(
    io: impl AsyncRead + AsyncWrite + Unpin,
    seen: Arc<Mutex<Vec<Seen>>>,
    reset: Arc<Mutex<Vec<serin::names::Mono>>>,
) {
    let Ok(mut connection) = h2::server::handshake(io).await else { return };
    let (close, mut closed) = tokio::sync::mpsc::channel::<()>(1);
    loop {
        let next = tokio::select! {
            next = connection.accept() => next,
            _ = closed.recv() => return,
        };
        let Some(Ok((request, mut respond))) = next else { return };
        let (seen, reset, close) = (Arc::clone(&seen), Arc::clone(&reset), close.clone());
        tokio::spawn(async move {
            let (head, mut body) = request.into_parts();
            let mut all = Vec::new();
            while let Some(Ok(chunk)) = body.data().await {
                assert!(body.flow_control().release_capacity(chunk.len()).is_ok());
                all.extend_from_slice(&chunk);
            }
            let trailers = body.trailers().await.ok().flatten();
            let path = head.uri.path().to_owned();
            seen.lock().unwrap().push(Seen { head, body: all, trailers });
            if path == "/wait" {
                drop(std::future::poll_fn(|cx| respond.poll_reset(cx)).await);
                reset.lock().unwrap().push(super::now());
                return;
            }
            let answer = Response::builder().header("x-from", "h2").body(()).unwrap();
            let Ok(mut down) = respond.send_response(answer, false) else { return };
            drop(down.send_data(Bytes::from_static(b"ok"), false));
            match path.as_str() {
                "/cut" | "/cancel" | "/no-error" => {
                    // What is queued must be on its way before a reset takes it back.
                    tokio::time::sleep(super::A_MOMENT).await;
                    down.send_reset(match path.as_str() {
                        "/cut" => h2::Reason::INTERNAL_ERROR,
                        "/cancel" => h2::Reason::CANCEL,
                        _ => h2::Reason::NO_ERROR,
                    });
                }
                "/close" => {
                    tokio::time::sleep(super::A_MOMENT).await;
                    assert!(close.send(()).await.is_ok());
                }
                _ => {
                    let mut trailers = HeaderMap::new();
                    trailers.insert("x-sum", http::HeaderValue::from_static("7"));
                    drop(down.send_trailers(trailers));
                }
            }
        });
    }
}
