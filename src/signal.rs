//! Signals as typed events.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// HUP: configuration, certificates, tokens.
    Reload,
    /// TERM or INT: drain; a second one: now.
    End,
}

/// The signals of this process.
#[derive(Debug)]
pub struct Signals {
    hup: Signal,
    term: Signal,
    int: Signal,
    /// Held so that a write beyond a limit of file size (`LimitFSIZE=`) is an error of that write, as a full disk is, and
    /// not the end of the process.
    _xfsz: Signal,
}

impl Signals {
    /// From now on signals come here. Needs a runtime.
    ///
    /// # Errors
    /// The handlers cannot be installed.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            hup: signal(SignalKind::hangup())?,
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            _xfsz: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.hup.recv() => Asked::Reload,
            _ = self.term.recv() => Asked::End,
            _ = self.int.recv() => Asked::End,
        }
    }
}
