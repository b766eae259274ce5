//! What survives: the journal, the evidence, and the installation's secret.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::error::StartError;
use crate::config::Config;
use crate::evaluator::turn::Known;
use crate::journal::{self, Evidence, Journal, Signer};
use crate::names::RolloutName;

pub(super) type Store = (Arc<Journal>, BTreeMap<RolloutName, Known>, Option<Evidence>);

/// Opens the journal and the evidence beside it, or their stand-ins in memory.
pub(super) fn open_store(config: &Config) -> Result<Store, StartError> {
    let Some(store) = &config.store else {
        // The configuration's check has already warned.
        return Ok((Arc::new(Journal::memory()?), BTreeMap::new(), None));
    };
    let refuse = |why: String| StartError::Store { path: store.path.display().to_string(), why };
    let signer = match &store.signing_key {
        None => None,
        Some(key) => {
            let signer = Signer::from_pem(&key.pem).map_err(|e| refuse(format!("{} {e}", key.path.display())))?;
            tracing::info!(key = signer.name(), "every record of the journal is signed");
            Some(Arc::new(signer))
        }
    };
    let options = journal::Options { retention: store.retention, signer, ..journal::Options::default() };
    let (journal, recovered) =
        Journal::open_with(&store.path.join("journal"), options).map_err(|e| refuse(e.to_string()))?;
    if let Some(torn) = &recovered.torn {
        tracing::warn!(path = %torn.path.display(), entry = torn.n, bytes = torn.bytes, "the journal's tail was torn by a crash and has been cut off; no acknowledged change was in it");
    }
    let evidence = Evidence::open(&store.path.join("evidence")).map_err(|e| refuse(e.to_string()))?;
    let known = recovered
        .states
        .into_iter()
        .map(|(name, state)| {
            let kept = evidence.load(&name);
            let latch = recovered.latches.get(&name).cloned();
            (name, Known { state, kept, latch })
        })
        .collect();
    Ok((Arc::new(journal), known, Some(evidence)))
}

/// The installation's secret: made at the first start, kept beside the journal, readable by this user alone.
pub(super) fn store_secret(store: &Path) -> Result<Vec<u8>, StartError> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let refuse = |error: io::Error| StartError::Store { path: store.display().to_string(), why: error.to_string() };
    std::fs::create_dir_all(store).map_err(refuse)?;
    let path = store.join("secret");
    match std::fs::read(&path) {
        Ok(secret) if secret.len() == 32 => return Ok(secret),
        Ok(_) => {
            let why = "the file \"secret\" in it is not 32 bytes long; restore it, for it decides every user's arm";
            return Err(StartError::Store { path: store.display().to_string(), why: why.to_owned() });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(refuse(error)),
    }
    let mut secret = vec![0u8; 32];
    random(&mut secret)?;
    let fresh = store.join("secret.new");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh).map_err(refuse)?;
    file.write_all(&secret).and_then(|()| file.sync_all()).map_err(refuse)?;
    std::fs::rename(&fresh, &path).map_err(refuse)?;
    Ok(secret)
}

/// Fills with random bytes fit for secrets.
pub(super) fn random(bytes: &mut [u8]) -> io::Result<()> {
    rustls::crypto::aws_lc_rs::default_provider()
        .secure_random
        .fill(bytes)
        .map_err(|_| io::Error::other("no random bytes are to be had"))
}
