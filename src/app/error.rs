//! Why serin could not start: each text says what, where and what to do.

use std::io;

use crate::tls;

/// Why serin could not start. Each text says what, where and what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The file is wrong.
    #[error("{0}")]
    Config(String),
    /// An address cannot be bound.
    #[error("{key} = \"{address}\": cannot listen there: {source}{}", remedy(.source))]
    Bind {
        /// The key of the configuration.
        key: String,
        /// The address or path.
        address: String,
        /// The system's word.
        source: io::Error,
    },
    /// A certificate or key cannot be used.
    #[error("{key}: {source}\n  give a PEM certificate chain and its PEM private key, readable by this user")]
    Tls {
        /// The key of the configuration.
        key: String,
        /// Why not.
        source: tls::TlsError,
    },
    /// A rollout's endpoints cannot be set up.
    #[error("{0}")]
    Build(#[from] crate::snapshot::BuildError),
    /// The store cannot be used.
    #[error("store.path = \"{path}\": {why}\n  serin needs a directory of its own that it can write to")]
    Store {
        /// The directory.
        path: String,
        /// Why not.
        why: String,
    },
    /// A file cannot be written.
    #[error("{key} = \"{path}\": {source}\n  give a file in a directory that this user can write to")]
    File {
        /// The key of the configuration.
        key: String,
        /// The file.
        path: String,
        /// The system's word.
        source: io::Error,
    },
    /// The system refuses threads or sockets.
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "\n  another process listens there: stop it, or choose another port (0 lets the system choose)"
        }
        io::ErrorKind::PermissionDenied => {
            "\n  ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher one or grant it"
        }
        io::ErrorKind::AddrNotAvailable => {
            "\n  this machine has no such address: use 127.0.0.1, 0.0.0.0 or one of its own"
        }
        _ => "",
    }
}
