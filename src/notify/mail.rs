//! E-mail by SMTP: plain text, one message for all who are named.

use lettre::message::{Mailbox, header::ContentType};
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};

use super::lane::Attempt;
use super::message::Message;
use crate::config::Notify;

/// Codes that say something about us rather than about the message: the next attempt may be luckier once an operator
/// has mended it (RFC 4954: authentication; RFC 5321: 530 wants authentication or TLS first).
const OURS: [u16; 4] = [530, 534, 535, 538];

/// The way to a mail server; each message takes a connection of its own.
pub type Way = AsyncSmtpTransport<Tokio1Executor>;

/// The way that the configuration names.
///
/// # Errors
/// The address or the authorities cannot be used; no secret is in the words.
pub fn way(target: &Notify) -> Result<Way, String> {
    let address = address(target);
    // What lettre says of an address may repeat it.
    let mut builder = Way::from_url(&address).map_err(|_| "its address cannot be used".to_owned())?;
    if let Some(path) = &target.ca {
        let unusable = |why: String| format!("{}: {why}", path.display());
        let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
        let own =
            Certificate::from_pem(&pem).map_err(|_| unusable("no certificate in PEM form is in it".to_owned()))?;
        let verified = TlsParameters::builder(host(&address).to_owned())
            .certificate_store(CertificateStore::None)
            .add_root_certificate(own)
            .build()
            .map_err(|_| unusable("its certificates cannot be used".to_owned()))?;
        builder = match (address.starts_with("smtps://"), address.contains("tls=required")) {
            (true, _) => builder.tls(Tls::Wrapper(verified)),
            (false, true) => builder.tls(Tls::Required(verified)),
            (false, false) => builder,
        };
    }
    Ok(builder.timeout(Some(target.timeout)).build())
}

/// Sends `message`, and says what became of it.
pub async fn send(way: &Way, target: &Notify, message: &Message) -> Attempt {
    let mail = match mail(target, message) {
        Ok(mail) => mail,
        Err(why) => return Attempt::Refused(why),
    };
    // The time-out of the configuration is that of each step; three of them bound the whole.
    match tokio::time::timeout(target.timeout.saturating_mul(3), way.send(mail)).await {
        Ok(Ok(_)) => Attempt::Delivered,
        Ok(Err(error)) => failed(&error),
        Err(_) => Attempt::Failed { why: "the mail server does not answer".to_owned(), wait: None },
    }
}

/// The whole address: with the password of `secret`, and with TLS by STARTTLS where it is `smtp://` and neither says
/// otherwise nor is this machine itself.
fn address(target: &Notify) -> String {
    let mut url = target.url.expose().to_owned();
    if let (Some(secret), Some(at)) = (&target.secret, url.rfind('@')) {
        let password: String = secret.expose().bytes().map(|byte| format!("%{byte:02X}")).collect();
        url.insert_str(at, &format!(":{password}"));
    }
    let own = matches!(host(&url), "localhost" | "127.0.0.1" | "[::1]");
    if url.starts_with("smtps://") || own || url.contains("tls=") {
        return url;
    }
    let mark = if url.contains('?') { '&' } else { '?' };
    format!("{url}{mark}tls=required")
}

/// The host of an address, without user and port; an IPv6 address keeps its brackets.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    let rest = rest.split(['/', '?']).next().unwrap_or_default();
    match rest.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => rest,
    }
}

fn failed(error: &SmtpError) -> Attempt {
    let code = error.status().map(u16::from);
    match code {
        Some(code) if error.is_permanent() && !OURS.contains(&code) => {
            Attempt::Refused(format!("the mail server refuses it: {code}"))
        }
        Some(code) => Attempt::Failed { why: format!("the mail server says {code}"), wait: None },
        // Greylisting and the like have codes; what has none is the way there.
        None if error.is_tls() => Attempt::Failed { why: "TLS failed".to_owned(), wait: None },
        None if error.is_timeout() => Attempt::Failed { why: "no answer in time".to_owned(), wait: None },
        None => Attempt::Failed { why: "connecting or talking failed".to_owned(), wait: None },
    }
}

fn mail(target: &Notify, message: &Message) -> Result<lettre::Message, String> {
    let wrong = |_| "an address in it cannot be used".to_owned();
    let from: Mailbox = target.from.as_deref().unwrap_or_default().parse().map_err(wrong)?;
    // The id makes duplicates known to the receiver's mail program.
    let domain = from.email.domain().to_owned();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let id: String = message.id.chars().map(plain).collect();
    let mut builder = lettre::Message::builder()
        .from(from)
        .subject(format!("[serin] {}", message.title))
        .message_id(Some(format!("<{id}@{domain}>")))
        .header(ContentType::TEXT_PLAIN);
    for to in &target.to {
        builder = builder.to(to.parse().map_err(wrong)?);
    }
    builder.body(text(message)).map_err(|_| "the mail could not be built".to_owned())
}

/// The whole message in lines.
#[must_use]
pub fn text(message: &Message) -> String {
    let mut lines = vec![message.text.clone(), String::new()];
    lines.extend(message.facts.iter().map(|fact| format!("{}: {}", fact.name, fact.value)));
    if !message.gates.is_empty() {
        lines.push(String::new());
        lines.push("Gates".to_owned());
        lines.extend(message.gates.iter().map(|gate| format!("  {}: {}", gate.name, gate.sentence())));
    }
    lines.push(String::new());
    lines.push(format!("{} · {} · by {}", message.at.rfc3339(), message.kind.as_str(), message.actor));
    lines.join("\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn target(url: &str, secret: &str) -> Notify {
        let text = format!(
            "[admin]\nlisten = \"127.0.0.1:0\"\n[listeners.e]\nlisten = \"127.0.0.1:0\"\n[rollouts.chat]\nunit = [\"ip\"]\nstable = {{ version = \"a\", endpoints = [\"http://127.0.0.1:1\"] }}\n[notify.m]\nkind = \"email\"\nurl = \"{url}\"\nfrom = \"a@b.example\"\nto = \"c@d.example\"\n{secret}\n"
        );
        config::parse(&text, "t", &|_| None).unwrap_or_else(|faults| panic!("{faults}")).notify.remove(0)
    }

    #[test]
    fn a_password_crosses_the_network_under_tls_only() {
        for (url, expect) in [
            ("smtp://u:p@mail.example.com:587", "smtp://u:p@mail.example.com:587?tls=required"),
            ("smtp://mail.example.com", "smtp://mail.example.com?tls=required"),
            ("smtp://mail.example.com?tls=opportunistic", "smtp://mail.example.com?tls=opportunistic"),
            ("smtps://u:p@mail.example.com", "smtps://u:p@mail.example.com"),
            ("smtp://127.0.0.1:2525", "smtp://127.0.0.1:2525"),
            ("smtp://[::1]:2525", "smtp://[::1]:2525"),
            ("smtp://localhost", "smtp://localhost"),
            ("smtp://localhost.example.com", "smtp://localhost.example.com?tls=required"),
            ("smtp://127.0.0.1:p@mail.example.com", "smtp://127.0.0.1:p@mail.example.com?tls=required"),
        ] {
            assert_eq!(address(&target(url, "")), expect);
        }
    }

    #[test]
    fn a_password_of_its_own_key_may_have_any_sign() {
        let target = target("smtps://serin@mail.example.com", "secret = \"a@:/ %ü\"");
        assert_eq!(address(&target), "smtps://serin:%61%40%3A%2F%20%25%C3%BC@mail.example.com");
        assert!(way(&target).is_ok());
    }
}
