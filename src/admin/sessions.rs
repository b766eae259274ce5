//! Browsers that have logged in to the dashboard: a cookie, and the header token that changes need.

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::config::{Secret, Token};
use crate::names::Mono;

/// Browsers that may be logged in; beyond it the oldest is logged out.
const SESSIONS_MAX: usize = 256;
/// How long a log-in lasts.
pub const SESSION_LIFE: Duration = Duration::from_secs(12 * 3_600);
/// The cookie's name.
pub const COOKIE: &str = "serin-session";
/// The header that a change by cookie must carry.
pub const HEADER: &str = "x-serin-token";

/// All log-ins. In memory: a restart logs everybody out.
#[derive(Default)]
pub struct Sessions(Mutex<Vec<Session>>);

/// One log-in.
#[derive(Clone)]
pub struct Session {
    /// The cookie's value.
    pub id: Secret,
    /// The value that the page puts into [`HEADER`].
    pub header: Secret,
    /// Which token logged in.
    pub name: String,
    /// Its secret at that time: a token that was changed logs its browsers out.
    secret: Secret,
    since: Mono,
}

impl Sessions {
    /// Logs a token in. `None` when the machine gives no random numbers.
    #[must_use]
    pub fn begin(&self, token: &Token, now: Mono) -> Option<Session> {
        let fresh = Session {
            id: random_hex()?,
            header: random_hex()?,
            name: token.name.clone(),
            secret: token.secret.clone(),
            since: now,
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| now.since(one.since) < SESSION_LIFE);
        if all.len() >= SESSIONS_MAX {
            all.remove(0);
        }
        all.push(fresh.clone());
        Some(fresh)
    }

    /// The log-in of this cookie, while its token stands in the configuration unchanged.
    #[must_use]
    pub fn find<'t>(&self, id: &str, tokens: &'t [Token], now: Mono) -> Option<(Session, &'t Token)> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let session = all.iter().find(|one| one.id.matches(id) && now.since(one.since) < SESSION_LIFE)?;
        let token = tokens.iter().find(|token| token.name == session.name && token.secret == session.secret)?;
        Some((session.clone(), token))
    }

    /// Logs a browser out.
    pub fn end(&self, id: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|one| !one.id.matches(id));
    }
}

/// 32 random bytes as hexadecimal digits, from the same source as the TLS keys.
fn random_hex() -> Option<Secret> {
    let mut bytes = [0u8; 32];
    rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut bytes).ok()?;
    let mut text = String::with_capacity(64);
    for byte in bytes {
        write!(text, "{byte:02x}").ok()?;
    }
    Some(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Role;

    fn token(secret: &str) -> Token {
        Token { name: "alice".into(), roles: vec![Role::Operator], secret: Secret::new(secret) }
    }

    #[test]
    fn a_log_in_ends_with_its_time_and_with_its_token() {
        let sessions = Sessions::default();
        let session = sessions.begin(&token("s"), Mono(0)).unwrap();
        let id = session.id.expose();
        assert_eq!(id.len(), 64);
        assert!(sessions.find(id, &[token("s")], Mono(1)).is_some());
        assert!(sessions.find("", &[token("s")], Mono(1)).is_none());
        assert!(sessions.find(id, &[token("other")], Mono(1)).is_none(), "the secret was changed");
        assert!(sessions.find(id, &[], Mono(1)).is_none(), "the token was taken out");
        assert!(sessions.find(id, &[token("s")], Mono(0).plus(SESSION_LIFE)).is_none());
        sessions.end(id);
        assert!(sessions.find(id, &[token("s")], Mono(1)).is_none());
    }

    #[test]
    fn the_oldest_browser_makes_place() {
        let sessions = Sessions::default();
        let first = sessions.begin(&token("s"), Mono(0)).unwrap();
        for _ in 0..SESSIONS_MAX {
            assert!(sessions.begin(&token("s"), Mono(0)).is_some());
        }
        assert!(sessions.find(first.id.expose(), &[token("s")], Mono(0)).is_none());
    }
}
