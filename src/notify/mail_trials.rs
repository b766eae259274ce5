//! Mail to servers on loopback sockets: passing and lasting faults, STARTTLS, TLS from the first byte, passwords.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::outbox::Outcome;
use super::testing::eventually;
use super::trials::{Post, target};
use crate::config::{ServerTls, TlsVersion};
use crate::rollout::Tidings;
use crate::tls;

/// When a server speaks TLS.
#[derive(Clone)]
enum Speaks {
    Never,
    AfterStarttls(Arc<ServerConfig>),
    FromTheStart(Arc<ServerConfig>),
}

/// A mail server that speaks just enough SMTP.
struct Server {
    addr: SocketAddr,
    /// Every line that came, and whether it came under TLS.
    lines: Arc<Mutex<Vec<(bool, String)>>>,
    mails: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// `verdicts` are its words on the mails, one each; then it takes all.
    fn start(speaks: Speaks, verdicts: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let this = Self { addr, lines: Arc::default(), mails: Arc::default() };
        let (lines, mails) = (Arc::clone(&this.lines), Arc::clone(&this.mails));
        let mut verdicts = verdicts.iter().copied();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that leaves in the middle is its own affair.
                drop(serve(stream.unwrap(), &speaks, &mut verdicts, &lines, &mails));
            }
        });
        this
    }

    fn mails(&self) -> Vec<String> {
        self.mails.lock().unwrap().clone()
    }

    fn lines(&self) -> Vec<(bool, String)> {
        self.lines.lock().unwrap().clone()
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

fn under_tls(stream: TcpStream, config: &Arc<ServerConfig>) -> Box<dyn Stream> {
    Box::new(StreamOwned::new(ServerConnection::new(Arc::clone(config)).unwrap(), stream))
}

fn line(stream: &mut dyn Stream) -> std::io::Result<String> {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while !line.ends_with(b"\r\n") {
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

fn serve(
    socket: TcpStream,
    speaks: &Speaks,
    verdicts: &mut impl Iterator<Item = &'static str>,
    lines: &Mutex<Vec<(bool, String)>>,
    mails: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut secure = matches!(speaks, Speaks::FromTheStart(_));
    let mut stream: Box<dyn Stream> = match speaks {
        Speaks::FromTheStart(config) => under_tls(socket.try_clone()?, config),
        _ => Box::new(socket.try_clone()?),
    };
    stream.write_all(b"220 mail.test ESMTP\r\n")?;
    loop {
        let said = line(&mut *stream)?;
        lines.lock().unwrap().push((secure, said.clone()));
        let word = said.split(' ').next().unwrap_or_default().to_ascii_uppercase();
        let answer = match (word.as_str(), speaks) {
            ("EHLO", Speaks::AfterStarttls(_)) if !secure => "250-mail.test\r\n250 STARTTLS",
            ("EHLO", _) => "250-mail.test\r\n250 AUTH PLAIN LOGIN",
            ("AUTH", _) => "235 welcome",
            ("STARTTLS", Speaks::AfterStarttls(config)) => {
                stream.write_all(b"220 go on\r\n")?;
                stream = under_tls(socket.try_clone()?, config);
                secure = true;
                continue;
            }
            ("DATA", _) => {
                stream.write_all(b"354 go on\r\n")?;
                let mut mail = String::new();
                loop {
                    match line(&mut *stream)?.as_str() {
                        "." => break,
                        text => mail.extend([text, "\n"]),
                    }
                }
                mails.lock().unwrap().push(mail);
                verdicts.next().unwrap_or("250 taken")
            }
            ("QUIT", _) => "221 bye",
            _ => "250 ok",
        };
        stream.write_all(format!("{answer}\r\n").as_bytes())?;
        if word == "QUIT" {
            return Ok(());
        }
    }
}

/// A certificate of its own authority in the folder, for the name `localhost`.
fn certified(dir: &Path) -> Arc<ServerConfig> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(dir.join("mail.pem"), made.cert.pem()).unwrap();
    std::fs::write(dir.join("mail.key"), made.signing_key.serialize_pem()).unwrap();
    let files = ServerTls {
        certificate: dir.join("mail.pem"),
        key: dir.join("mail.key"),
        client_ca: None,
        min_version: TlsVersion::V12,
    };
    tls::server(&files, false).unwrap()
}

const PEOPLE: &str =
    "from = \"Serin <serin@example.com>\"\nto = [\"ops@example.com\", \"Release <release@example.com>\"]\n";

#[test]
fn mail_is_sent_again_after_a_passing_fault_and_given_up_after_a_lasting_one() {
    let server = Server::start(Speaks::Never, &["451 try later", "250 taken", "550 no such person", "250 taken"]);
    let post = Post::start(&target("mail", "email", &format!("smtp://{}", server.addr), PEOPLE));
    for generation in 1..=3 {
        post.tell(generation, Tidings::RolledBack);
    }
    post.until("mail", Outcome::Delivered, 2);
    assert_eq!((post.count("mail", Outcome::Retried), post.count("mail", Outcome::Refused)), (1, 1));
    let mails = server.mails();
    let id = |mail: &String| mail.lines().find_map(|l| l.strip_prefix("Message-ID: ")).unwrap().to_owned();
    let expect = [1, 1, 2, 3].map(|n| format!("<chat-{n}-rollback@example.com>"));
    assert_eq!(mails.iter().map(id).collect::<Vec<_>>(), expect);
    assert!(mails[0].contains("Subject: [serin] P2 chat: b was rolled back"), "{}", mails[0]);
    assert!(mails[0].contains("To: ops@example.com, Release <release@example.com>"), "{}", mails[0]);
    assert!(mails[0].contains("find the root cause"), "{}", mails[0]);
    post.end();
}

/// A password with every sign that an address could trip over.
const PASSWORD: &str = "p@ss:/w?rd #%";

fn with_password(dir: &Path) -> String {
    std::fs::write(dir.join("password"), PASSWORD).unwrap();
    format!("{PEOPLE}secret = \"${{file:{0}/password}}\"\nca = \"{0}/mail.pem\"\n", dir.display())
}

/// What a client says who logs in by AUTH PLAIN (RFC 4616).
fn login() -> String {
    format!("AUTH PLAIN {}", STANDARD.encode(format!("\0serin\0{PASSWORD}")))
}

#[test]
fn a_password_from_a_file_is_said_under_tls_alone_and_the_mail_arrives() {
    let dir = tempfile::tempdir().unwrap();
    let config = certified(dir.path());
    for (scheme, query, speaks) in [
        ("smtp", "?tls=required", Speaks::AfterStarttls(Arc::clone(&config))),
        ("smtps", "", Speaks::FromTheStart(Arc::clone(&config))),
    ] {
        let server = Server::start(speaks, &[]);
        let url = format!("{scheme}://serin@localhost:{}{query}", server.addr.port());
        let post = Post::start(&target("mail", "email", &url, &with_password(dir.path())));
        post.tell(1, Tidings::RolledBack);
        post.until("mail", Outcome::Delivered, 1);
        assert!(server.lines().contains(&(true, login())), "{:?}", server.lines());
        let clear: Vec<_> = server.lines().into_iter().filter(|(secure, _)| !secure).collect();
        assert!(clear.iter().all(|(_, line)| line.starts_with("EHLO") || line == "STARTTLS"), "{clear:?}");
        assert_eq!(server.mails().len(), 1);
        post.end();
    }
}

#[test]
fn a_server_without_tls_or_with_a_strange_certificate_hears_neither_password_nor_mail() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop(certified(dir.path()));
    let strange = certified(other.path());
    for (scheme, query, speaks) in [
        ("smtp", "?tls=required", Speaks::Never),
        ("smtp", "?tls=required", Speaks::AfterStarttls(Arc::clone(&strange))),
        ("smtps", "", Speaks::FromTheStart(strange)),
    ] {
        let server = Server::start(speaks, &[]);
        let url = format!("{scheme}://serin@localhost:{}{query}", server.addr.port());
        let post = Post::start(&target("mail", "email", &url, &with_password(dir.path())));
        post.tell(1, Tidings::RolledBack);
        eventually("three attempts", || post.count("mail", Outcome::Retried) >= 3);
        assert_eq!((post.count("mail", Outcome::Delivered), post.count("mail", Outcome::Refused)), (0, 0));
        let told = server.lines().iter().any(|(_, line)| line.starts_with("AUTH") || line.starts_with("MAIL"));
        assert!(!told && server.mails().is_empty(), "{:?}", server.lines());
        post.end();
    }
}
