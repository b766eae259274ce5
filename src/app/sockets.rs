//! Binds every address of a configuration before anything runs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::error::StartError;
use crate::admin;
use crate::config::Config;
use crate::proxy::listener::{self, Listening};
use crate::tls;

/// Where a running serin is reached.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Bound {
    /// Listeners by name.
    pub listeners: BTreeMap<String, SocketAddr>,
    /// The admin API.
    pub admin: Option<SocketAddr>,
    /// The admin API's socket.
    pub socket: Option<PathBuf>,
    /// The probes' address.
    pub probes: Option<SocketAddr>,
}

/// Bound sockets, and where they are.
pub(super) struct Sockets {
    pub listeners: Vec<(std::net::TcpListener, Arc<Listening>)>,
    pub admin: admin::Doors,
    pub bound: Bound,
}

/// Binds all, or none.
pub(super) fn bind_all(config: &Config) -> Result<Sockets, StartError> {
    let bind = |key: &str, address: SocketAddr| {
        listener::bind(address).map_err(|source| StartError::Bind {
            key: key.to_owned(),
            address: address.to_string(),
            source,
        })
    };
    let mut bound = Bound { listeners: BTreeMap::new(), admin: None, socket: None, probes: None };
    let mut listeners = Vec::new();
    for one in &config.listeners {
        let key = format!("listeners.{}", one.name);
        let shown = match &one.tls {
            None => None,
            Some(files) => {
                Some(tls::server(files, true).map_err(|source| StartError::Tls { key: format!("{key}.tls"), source })?)
            }
        };
        let socket = bind(&format!("{key}.listen"), one.listen)?;
        bound.listeners.insert(one.name.clone(), socket.local_addr()?);
        listeners.push((socket, Arc::new(Listening::new(one.clone(), shown))));
    }
    let mut doors = admin::Doors::default();
    if let Some(address) = config.admin.listen {
        let socket = bind("admin.listen", address)?;
        bound.admin = Some(socket.local_addr()?);
        doors.api = Some(socket);
    }
    if let Some(files) = &config.admin.tls {
        let shown =
            tls::server(files, false).map_err(|source| StartError::Tls { key: "admin.tls".to_owned(), source })?;
        doors.tls = Some(Arc::new(ArcSwap::new(shown)));
    }
    if let Some(path) = &config.admin.socket {
        doors.socket = Some(bind_unix(path)?);
        bound.socket = Some(path.clone());
    }
    if let Some(address) = config.admin.probes {
        let socket = bind("admin.probes", address)?;
        bound.probes = Some(socket.local_addr()?);
        doors.probes = Some(socket);
    }
    Ok(Sockets { listeners, admin: doors, bound })
}

fn bind_unix(path: &Path) -> Result<std::os::unix::net::UnixListener, StartError> {
    let refuse =
        |source| StartError::Bind { key: "admin.socket".to_owned(), address: path.display().to_string(), source };
    // A socket that nobody answers on is left over from a process that ended.
    if path.exists() && std::os::unix::net::UnixStream::connect(path).is_err() {
        std::fs::remove_file(path).map_err(refuse)?;
    }
    let socket = std::os::unix::net::UnixListener::bind(path).map_err(refuse)?;
    socket.set_nonblocking(true).map_err(refuse)?;
    Ok(socket)
}
