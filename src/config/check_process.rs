//! Checks what belongs to the process: admin, listeners, server, log, limits, drain, store.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use ipnet::IpNet;

use super::check::Check;
use super::fault::Place;
use super::files;
use super::model::{
    Admin, Config, Drain, Limits, Listener, Log, LogFormat, LogLevel, Role, Server, ServerTls, SigningKey, Store,
    TlsVersion, Token,
};
use super::raw;
use super::read::{At, Named, Scalar, Text};
use super::secret::Secret;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
/// Shorter tokens can be guessed in an afternoon.
const TOKEN_BYTES_MIN: usize = 8;
/// What a token should have.
const TOKEN_BYTES_GOOD: usize = 16;

/// Words of a TLS version.
pub(crate) const TLS_VERSIONS: [(&str, TlsVersion); 2] = [("1.2", TlsVersion::V12), ("1.3", TlsVersion::V13)];

impl Check<'_, '_> {
    /// The whole file. `None` after a fault that leaves a hole.
    pub(crate) fn config(&mut self, root: raw::Root) -> Option<Config> {
        let admin = self.admin(root.admin.unwrap_or_default());
        let listeners = self.listeners(&root.place, root.listeners);
        self.addresses(&admin, &listeners);
        self.later(root.fleet.as_ref());
        let server = self.server(root.server.unwrap_or_default());
        let log = self.log(root.log.unwrap_or_default());
        let limits = self.limits(root.limits.unwrap_or_default());
        let drain = self.drain(root.drain.unwrap_or_default());
        let store = match root.store {
            Some(store) => self.store(store),
            None => {
                self.sink.warn(
                    &root.place.child("store"),
                    "is missing: rollouts, latches and the journal live in memory and end with the process",
                    "write [store] with a path",
                );
                None
            }
        };
        let notify = self.notify(root.notify.unwrap_or_default());
        let bound: Vec<SocketAddr> = listeners.iter().map(|(_, listener)| listener.listen).collect();
        let rollouts = self.rollouts(&root.place, root.rollouts, &limits, &bound, &admin.value.tokens)?;
        let names: Vec<&str> = rollouts.iter().map(|rollout| rollout.name.as_str()).collect();
        let triggers = self.triggers(root.triggers.unwrap_or_default(), &names);
        Some(Config {
            admin: admin.value,
            listeners: listeners.into_iter().map(|(_, listener)| listener).collect(),
            server,
            log,
            limits,
            drain,
            store,
            notify,
            triggers,
            rollouts,
            warnings: Vec::new(),
        })
    }

    fn admin(&mut self, raw: raw::Admin) -> At<Admin> {
        let tokens = self.tokens(raw.tokens.unwrap_or_default());
        let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 8081));
        let place = raw.listen.as_ref().map_or_else(|| raw.place.child("listen"), |at| at.place.clone());
        let listen = match &raw.listen {
            Some(at) => self.address(at).or(Some(default)),
            None if raw.socket.is_some() => None,
            None => Some(default),
        };
        let open = listen.is_some_and(|address| !address.ip().to_canonical().is_loopback());
        if open && tokens.0 == 0 {
            self.sink.fault(
                &place,
                "is not loopback and there are no tokens: anybody could move the weights",
                "write [[admin.tokens]], or listen on 127.0.0.1",
            );
        }
        if open && raw.tls.is_none() {
            self.sink.warn(
                &place,
                "is not loopback and has no tls: tokens cross the network in the clear",
                "write admin.tls",
            );
        }
        let hosts = raw.hosts.unwrap_or_default().iter().filter_map(|at| self.host(at)).collect();
        let value = Admin {
            listen,
            socket: raw.socket.map(|at| at.value.0),
            tls: raw.tls.and_then(|tls| self.server_tls(tls)),
            probes: raw.probes.as_ref().and_then(|at| self.address(at)),
            hosts,
            tokens: tokens.1,
        };
        At { value, place }
    }

    /// How many were written, and those that are good.
    fn tokens(&mut self, raw: Vec<raw::Token>) -> (usize, Vec<Token>) {
        let written = raw.len();
        let mut names: HashMap<String, ()> = HashMap::new();
        let mut good: Vec<Token> = Vec::new();
        for token in raw {
            let name = match &token.name {
                None => {
                    self.sink.missing(&token.place, "name", "write the identity that the journal shall show");
                    None
                }
                Some(at) if names.insert(at.value.0.clone(), ()).is_some() => {
                    self.sink.fault(&at.place, "names another token too", "give each token a name of its own");
                    None
                }
                Some(at) => self.name(&at.place, &at.value.0).then(|| at.value.0.clone()),
            };
            let words: Vec<(&str, Role)> = Role::ALL.iter().map(|role| (role.as_str(), *role)).collect();
            let roles = token.roles.unwrap_or_default();
            if roles.is_empty() {
                self.sink.missing(&token.place, "roles", "write what it may do, as [\"viewer\"]");
            }
            let roles: Vec<Role> = roles.iter().map(|at| self.choice(Some(at), &words, Role::Viewer)).collect();
            let secret = match token.secret {
                None => {
                    self.sink.missing(&token.place, "secret", "write \"${file:PATH}\" or \"${VAR}\"");
                    None
                }
                Some(at) => self.token_secret(&at.place, at.value.0, &good),
            };
            if let (Some(name), Some(secret)) = (name, secret) {
                good.push(Token { name, roles, secret });
            }
        }
        (written, good)
    }

    fn token_secret(&mut self, place: &Place, secret: Secret, others: &[Token]) -> Option<Secret> {
        let text = secret.expose();
        let make = "make one with \"openssl rand -hex 32\"";
        if text.len() < TOKEN_BYTES_MIN {
            self.sink.fault(place, format!("is shorter than {TOKEN_BYTES_MIN} characters"), make);
            return None;
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            self.sink.fault(place, "has spaces, or signs that a header cannot carry", make);
            return None;
        }
        if let Some(other) = others.iter().find(|other| other.secret == secret) {
            let reason = format!("is the secret of \"{}\" too", other.name);
            self.sink.fault(place, reason, "give each token a secret of its own: the journal tells people apart by it");
            return None;
        }
        if text.len() < TOKEN_BYTES_GOOD {
            self.sink.warn(place, format!("is shorter than {TOKEN_BYTES_GOOD} characters"), make);
        }
        Some(secret)
    }

    fn listeners(&mut self, root: &Place, raw: Option<Named<raw::Listener>>) -> Vec<(Place, Listener)> {
        let raw = raw.unwrap_or_default().0;
        if raw.is_empty() {
            self.sink.missing(root, "listeners", "write [listeners.edge] with listen = \"0.0.0.0:8080\"");
        }
        raw.into_iter().filter_map(|(name, raw)| self.listener(&name, raw)).collect()
    }

    fn listener(&mut self, name: &At<String>, raw: raw::Listener) -> Option<(Place, Listener)> {
        let named = self.name(&name.place, &name.value);
        let trusted_proxies: Vec<IpNet> =
            raw.trusted_proxies.unwrap_or_default().iter().filter_map(|at| self.network(at)).collect();
        let proxy_protocol = raw.proxy_protocol.as_ref().is_some_and(|at| at.value);
        if let Some(at) = raw.proxy_protocol.as_ref().filter(|at| at.value && trusted_proxies.is_empty()) {
            self.sink.fault(
                &at.place,
                "believes anybody: there are no trusted_proxies",
                "write trusted_proxies with the addresses of the balancer",
            );
        }
        let health = raw.health.as_ref().and_then(|at| self.path(at));
        let tls = raw.tls.and_then(|tls| self.server_tls(tls));
        let Some(at) = raw.listen else {
            self.sink.missing(&raw.place, "listen", "write an address, as \"0.0.0.0:8080\"");
            return None;
        };
        let listen = self.address(&at)?;
        named.then(|| {
            (at.place, Listener { name: name.value.clone(), listen, tls, trusted_proxies, proxy_protocol, health })
        })
    }

    /// No address is bound twice.
    fn addresses(&mut self, admin: &At<Admin>, listeners: &[(Place, Listener)]) {
        let mut taken: Vec<(SocketAddr, String)> = Vec::new();
        let probes = admin.value.probes.map(|address| (address, "admin.probes".to_owned()));
        taken.extend(admin.value.listen.map(|address| (address, "admin.listen".to_owned())));
        taken.extend(probes);
        if let [(one, _), (two, _)] = taken.as_slice()
            && one == two
            && one.port() != 0
        {
            self.sink.fault(&admin.place, "is the address of admin.probes too", "give each an address of its own");
        }
        for (place, listener) in listeners {
            let clash = taken.iter().find(|(address, _)| {
                address.port() != 0
                    && address.port() == listener.listen.port()
                    && (address.ip() == listener.listen.ip()
                        || address.ip().is_unspecified()
                        || listener.listen.ip().is_unspecified())
            });
            if let Some((_, other)) = clash {
                self.sink.fault(place, format!("collides with {other}"), "give each an address of its own");
            }
            taken.push((listener.listen, place.path.clone()));
        }
    }

    /// Certificate, key and authorities: opened, parsed, and matched.
    pub(crate) fn server_tls(&mut self, raw: raw::ServerTls) -> Option<ServerTls> {
        let chain = match &raw.certificate {
            Some(at) => self.file(at, files::certificates),
            None => {
                self.sink.missing(&raw.place, "certificate", "name a PEM file with the chain, the leaf first");
                None
            }
        };
        let key = match &raw.key {
            Some(at) => self.file(at, files::private_key),
            None => {
                self.sink.missing(&raw.place, "key", "name a PEM file with the private key");
                None
            }
        };
        if let (Some(chain), Some(key), Some(at)) = (chain, &key, &raw.key) {
            self.file(at, |_| files::belongs(chain, key));
        }
        if let Some(at) = &raw.client_ca {
            self.file(at, files::authorities);
        }
        Some(ServerTls {
            certificate: raw.certificate?.value.0,
            key: raw.key?.value.0,
            client_ca: raw.client_ca.map(|at| at.value.0),
            min_version: self.choice(raw.min_version.as_ref(), &TLS_VERSIONS, TlsVersion::V12),
        })
    }

    /// An address with its port; "localhost" is 127.0.0.1.
    fn address(&mut self, at: &At<Text>) -> Option<SocketAddr> {
        let text = at.value.0.trim();
        let address = match text.strip_prefix("localhost:") {
            Some(port) => port.parse().ok().map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
            None => text.parse().ok(),
        };
        if address.is_none() {
            self.sink.fault(
                &at.place,
                "is no address with a port",
                "write \"127.0.0.1:8080\", \"0.0.0.0:8080\" or \"[::]:8080\"",
            );
        }
        address
    }

    /// A network, or a single address.
    pub(crate) fn network(&mut self, at: &At<Text>) -> Option<IpNet> {
        let text = at.value.0.trim();
        let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
        if net.is_none() {
            self.sink.fault(&at.place, "is no network", "write \"10.0.0.0/8\" or \"2001:db8::/32\"");
        }
        net.map(|net| net.trunc())
    }

    /// A path that begins with `/`, without query or spaces.
    pub(crate) fn path(&mut self, at: &At<Text>) -> Option<String> {
        let text = at.value.0.as_str();
        let good = text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#');
        if !good {
            self.sink.fault(&at.place, "is no path", "begin with \"/\"; no query, no spaces");
        }
        good.then(|| text.to_owned())
    }

    /// A host name or address without a port, in lower case.
    pub(crate) fn host(&mut self, at: &At<Text>) -> Option<String> {
        let text = at.value.0.to_ascii_lowercase();
        let lawful = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let good =
            (!text.is_empty() && text.len() <= 253 && text.bytes().all(lawful)) || text.parse::<IpAddr>().is_ok();
        if !good {
            self.sink.fault(&at.place, "is no host name", "write the name alone, without scheme and port");
        }
        good.then_some(text)
    }

    fn server(&mut self, raw: raw::Server) -> Server {
        let remedy = "write \"auto\" or a number from 1 to 1024";
        let workers = raw.workers.and_then(|at| match &at.value {
            Scalar::Text(text) if text == "auto" => None,
            Scalar::Number(number) if (1.0..=1024.0).contains(number) && number.fract() == 0.0 => {
                NonZeroUsize::new(*number as usize)
            }
            _ => {
                self.sink.fault(&at.place, "is no number of threads", remedy);
                None
            }
        });
        Server { workers }
    }

    fn log(&mut self, raw: raw::Log) -> Log {
        let levels = [LogLevel::Off, LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace]
            .map(|level| (level.as_str(), level));
        let formats = [("auto", LogFormat::Auto), ("human", LogFormat::Human), ("json", LogFormat::Json)];
        Log {
            level: self.choice(raw.level.as_ref(), &levels, LogLevel::Info),
            format: self.choice(raw.format.as_ref(), &formats, LogFormat::Auto),
            access: raw.access.map(|at| at.value.0),
        }
    }

    fn limits(&mut self, raw: raw::Limits) -> Limits {
        const GIB: u64 = 1 << 30;
        let default = Limits::default();
        let bytes = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        Limits {
            connections: bytes(self.count(raw.connections.as_ref(), 1, 10_000_000, default.connections as u64)),
            requests_per_connection: self.count(
                raw.requests_per_connection.as_ref(),
                1,
                u64::from(u32::MAX),
                default.requests_per_connection,
            ),
            header_read: self.duration(raw.header_read.as_ref(), MS, default.header_read),
            header_bytes: bytes(self.size(raw.header_bytes.as_ref(), 8 << 10, 16 << 20, default.header_bytes as u64)),
            headers: bytes(self.count(raw.headers.as_ref(), 1, 32_768, default.headers as u64)),
            uri_bytes: bytes(self.size(raw.uri_bytes.as_ref(), 1, 65_534, default.uri_bytes as u64)),
            body_bytes: self.size(raw.body_bytes.as_ref(), 0, 1 << 50, default.body_bytes),
            body_progress: self.duration(raw.body_progress.as_ref(), MS, default.body_progress),
            idle: self.duration(raw.idle.as_ref(), MS, default.idle),
            h2_streams: u32::try_from(self.count(raw.h2_streams.as_ref(), 1, 100_000, u64::from(default.h2_streams)))
                .unwrap_or(default.h2_streams),
            peek_bytes: bytes(self.size(raw.peek_bytes.as_ref(), 0, GIB, default.peek_bytes as u64)),
            turns: bytes(self.count(raw.turns.as_ref(), 8, 100_000_000, default.turns as u64)),
            feedback_ids: bytes(self.count(raw.feedback_ids.as_ref(), 0, 1_000_000_000, default.feedback_ids as u64)),
            feedback_items: self.count_u32(raw.feedback_items.as_ref(), default.feedback_items),
            feedback_per_user: self.count_u32(raw.feedback_per_user.as_ref(), default.feedback_per_user),
        }
    }

    fn count_u32(&mut self, at: Option<&At<u64>>, default: u32) -> u32 {
        u32::try_from(self.count(at, 1, u64::from(u32::MAX), u64::from(default))).unwrap_or(default)
    }

    fn drain(&mut self, raw: raw::Drain) -> Drain {
        let default = Drain::default();
        Drain {
            delay: self.duration(raw.delay.as_ref(), Duration::ZERO, default.delay),
            timeout: self.duration(raw.timeout.as_ref(), Duration::ZERO, default.timeout),
        }
    }

    fn store(&mut self, raw: raw::Store) -> Option<Store> {
        let retention = self.duration(raw.retention.as_ref(), 3_600 * SECOND, 90 * 86_400 * SECOND);
        let signing_key = raw.signing_key.and_then(|at| {
            let pem = self.file(&at, files::signing_key)?;
            Some(SigningKey { path: at.value.0, pem })
        });
        match raw.path {
            Some(at) => Some(Store { path: at.value.0, retention, signing_key }),
            None => {
                self.sink.missing(&raw.place, "path", "name the folder of journal and evidence");
                None
            }
        }
    }
}
