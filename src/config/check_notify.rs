//! Checks who is told, and who may stop rollouts from outside: receivers, triggers, how they are reached and known.

use std::time::Duration;

use super::check::Check;
use super::files;
use super::model::{NOTICE_KINDS, Notify, NotifyKind, TRIGGER_ACTIONS, Trigger};
use super::raw;
use super::read::{At, Many, Named, Text};
use super::secret::Secret;
use crate::rollout::Hours;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
/// When summaries are told where nothing else is written.
const OFFICE_HOURS: &str = "Mon-Fri 09:00-17:00";
/// Most notices that wait for one receiver where nothing else is written.
const QUEUE: u64 = 1_000;
/// Shorter secrets can be guessed.
const SECRET_BYTES_MIN: usize = 16;

impl Check<'_, '_> {
    /// All receivers.
    pub(crate) fn notify(&mut self, raw: Named<raw::Notify>) -> Vec<Notify> {
        raw.0.into_iter().filter_map(|(name, raw)| self.receiver(&name, raw)).collect()
    }

    /// All triggers; `rollouts` are the names of the file.
    pub(crate) fn triggers(&mut self, raw: Named<raw::Trigger>, rollouts: &[&str]) -> Vec<Trigger> {
        raw.0.into_iter().filter_map(|(name, raw)| self.trigger(&name, raw, rollouts)).collect()
    }

    fn trigger(&mut self, name: &At<String>, raw: raw::Trigger, known: &[&str]) -> Option<Trigger> {
        self.name(&name.place, &name.value);
        let Some(secret) = raw.secret else {
            self.sink.missing(&raw.place, "secret", "write the secret that signs its posts");
            return None;
        };
        if secret.value.0.expose().len() < SECRET_BYTES_MIN {
            self.sink.fault(&secret.place, "is too short", format!("write at least {SECRET_BYTES_MIN} signs"));
        }
        let rollouts = self.words(raw.rollouts, known);
        let actions = self.words(raw.actions, &TRIGGER_ACTIONS);
        Some(Trigger { name: name.value.clone(), secret: secret.value.0, rollouts, actions })
    }

    fn receiver(&mut self, name: &At<String>, raw: raw::Notify) -> Option<Notify> {
        use NotifyKind::{Alertmanager, Deadman, Email, Pagerduty, Slack, Webhook};
        let words = [
            ("webhook", Webhook),
            ("slack", Slack),
            ("pagerduty", Pagerduty),
            ("alertmanager", Alertmanager),
            ("email", Email),
            ("deadman", Deadman),
        ];
        self.name(&name.place, &name.value);
        if raw.kind.is_none() {
            let known = words.map(|(word, _)| format!("\"{word}\"")).join(", ");
            self.sink.missing(&raw.place, "kind", format!("write one of {known}"));
        }
        let kind = self.choice(raw.kind.as_ref(), &words, Webhook);
        let url = self.receiver_url(&raw.place, raw.url, kind);
        if raw.secret.is_none() && kind == Pagerduty {
            self.sink.missing(&raw.place, "secret", "write the routing key of the integration");
        }
        if raw.secret.is_none() && kind == Webhook {
            self.sink.warn(
                &raw.place.child("secret"),
                "is missing: bodies go unsigned",
                "write a secret that the receiver knows",
            );
        }
        if kind == Email
            && let Some(at) = &raw.secret
        {
            self.password(&at.place, url.as_ref());
        }
        let to = self.mailboxes(raw.to);
        let from = raw.from.and_then(|at| self.mailbox(at));
        if kind == Email && to.is_empty() {
            self.sink.missing(&raw.place, "to", "write who shall receive it");
        }
        if kind == Email && from.is_none() {
            self.sink.missing(&raw.place, "from", "write who sends it");
        }
        let events = self.words(raw.events, &NOTICE_KINDS);
        let summary = match &raw.summary {
            Some(at) if at.value.0 == "off" => None,
            at => Some(self.duration(at.as_ref(), 60 * SECOND, 4 * HOUR)),
        };
        let hours = raw.hours.as_ref().and_then(|at| self.parsed(at));
        if let Some(at) = &raw.ca {
            self.file(at, files::authorities);
        }
        Some(Notify {
            name: name.value.clone(),
            kind,
            url: url?,
            secret: raw.secret.map(|at| at.value.0),
            from,
            to,
            events,
            summary,
            hours: hours.or_else(|| OFFICE_HOURS.parse::<Hours>().ok())?,
            every: self.duration(raw.every.as_ref(), SECOND, 60 * SECOND),
            timeout: self.duration(raw.timeout.as_ref(), SECOND / 10, 10 * SECOND),
            keep: self.duration(raw.keep.as_ref(), 60 * SECOND, 7 * 24 * HOUR),
            queue: usize::try_from(self.count(raw.queue.as_ref(), 10, 100_000, QUEUE)).unwrap_or(1_000),
            ca: raw.ca.map(|at| at.value.0),
        })
    }

    fn receiver_url(
        &mut self,
        place: &super::fault::Place,
        raw: Option<At<super::read::Hidden>>,
        kind: NotifyKind,
    ) -> Option<Secret> {
        let schemes: &[&str] =
            if kind == NotifyKind::Email { &["smtp://", "smtps://"] } else { &["http://", "https://"] };
        let Some(at) = raw else {
            if kind == NotifyKind::Pagerduty {
                return Some(Secret::new("https://events.pagerduty.com/v2/enqueue"));
            }
            self.sink.missing(place, "url", format!("write an address that begins with {}", schemes.join(" or ")));
            return None;
        };
        let text = at.value.0.expose();
        let rest = schemes.iter().find_map(|scheme| text.strip_prefix(scheme));
        let good = rest.is_some_and(|rest| match kind {
            NotifyKind::Email => self.mail_server(&at.place, rest),
            _ => text.parse::<http::Uri>().is_ok_and(|uri| uri.host().is_some()),
        });
        if !good {
            let remedy = format!("begin with {} and write a host", schemes.join(" or "));
            self.sink.fault(&at.place, "is no address of this kind", remedy);
        }
        good.then_some(at.value.0)
    }

    /// Whether what follows `smtp://` or `smtps://` names a host; faults of user and query are said here.
    fn mail_server(&mut self, place: &super::fault::Place, rest: &str) -> bool {
        let (user, host) = rest.rsplit_once('@').map_or((None, rest), |(user, host)| (Some(user), host));
        if user.is_some_and(|user| user.contains(['/', '?', '#', '@', ' '])) {
            let remedy = "write the password as `secret`, or each of these signs as %XX";
            self.sink.fault(place, "has a sign in its user or password that ends them", remedy);
        }
        let (host, query) = host.split_once('?').unwrap_or((host, ""));
        if !["", "tls=required", "tls=opportunistic"].contains(&query) {
            self.sink.fault(place, "has a query that is not known", "leave it out: smtps:// and smtp:// both use TLS");
        }
        if query == "tls=opportunistic" && user.is_some() {
            let remedy = "leave `tls=opportunistic` out, or the user";
            self.sink.fault(place, "would send a password to a server without TLS", remedy);
        }
        format!("http://{host}").parse::<http::Uri>().is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty()))
    }

    /// A mail server's password needs a user beside it, and none in the address.
    fn password(&mut self, place: &super::fault::Place, url: Option<&Secret>) {
        let Some(url) = url else { return };
        let rest = url.expose().split_once("://").map_or("", |(_, rest)| rest);
        match rest.rsplit_once('@') {
            None => self.sink.fault(place, "has no user", "write the user before the host of `url`"),
            Some((user, _)) if user.contains(':') => {
                self.sink.fault(place, "stands in `url` too", "leave the password out of `url`");
            }
            Some(_) => {}
        }
    }

    fn words(&mut self, raw: Option<Many<At<Text>>>, known: &[&str]) -> Vec<String> {
        let mut words = Vec::new();
        for at in raw.map(|many| many.0).unwrap_or_default() {
            if known.contains(&at.value.0.as_str()) {
                words.push(at.value.0);
            } else {
                self.unknown_word(&at.place, &at.value.0, known);
            }
        }
        words
    }

    fn mailboxes(&mut self, raw: Option<Many<At<Text>>>) -> Vec<String> {
        raw.map(|many| many.0).unwrap_or_default().into_iter().filter_map(|at| self.mailbox(at)).collect()
    }

    fn mailbox(&mut self, at: At<Text>) -> Option<String> {
        if at.value.0.parse::<lettre::message::Mailbox>().is_ok() {
            return Some(at.value.0);
        }
        self.sink.fault(&at.place, "is no e-mail address", "write \"ops@example.com\" or \"Ops <ops@example.com>\"");
        None
    }
}
