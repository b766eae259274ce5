//! The PROXY protocol, versions 1 and 2 (HAProxy's specification), read in front of everything else on a connection
//! from a trusted proxy. Exactly the header is taken: what follows stays in the socket.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

const SIGNATURE_2: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The longest version 1 header, its line end included.
const LINE_MOST: usize = 107;
/// The longest version 2 header that is taken: addresses and a few extensions.
const BINARY_MOST: usize = 2_048;

/// Reads the header; `None` is a connection of the proxy itself (LOCAL, UNKNOWN): the peer stands.
///
/// # Errors
/// No header, or a broken one: the connection is not to be served.
pub async fn read(tcp: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut seen = [0u8; LINE_MOST];
    loop {
        tcp.readable().await?;
        let n = tcp.peek(&mut seen).await?;
        match look(&seen[..n])? {
            Look::Line(length) => {
                let mut line = vec![0u8; length];
                tcp.read_exact(&mut line).await?;
                return line_source(&line);
            }
            Look::Binary(length) => {
                let mut header = vec![0u8; length];
                tcp.read_exact(&mut header).await?;
                return binary_source(&header);
            }
            Look::More if n == 0 => return Err(broken("the connection ended before its PROXY header")),
            // A header in parts is rare: look again in a moment.
            Look::More => tokio::time::sleep(std::time::Duration::from_millis(2)).await,
        }
    }
}

/// What the header at the front of `seen` says, and how long it is; `None` while more of it must come.
///
/// # Errors
/// As [`read`].
pub fn parse(seen: &[u8]) -> io::Result<Option<(Option<SocketAddr>, usize)>> {
    let look = look(seen)?;
    let (Look::Line(length) | Look::Binary(length)) = look else { return Ok(None) };
    let Some(header) = seen.get(..length) else { return Ok(None) };
    let source = if matches!(look, Look::Line(_)) { line_source(header)? } else { binary_source(header)? };
    Ok(Some((source, length)))
}

#[derive(Debug, PartialEq, Eq)]
enum Look {
    More,
    Line(usize),
    Binary(usize),
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

/// What kind of header begins here, and how long it is.
fn look(seen: &[u8]) -> io::Result<Look> {
    if SIGNATURE_2.starts_with(&seen[..seen.len().min(12)]) {
        let Some(length) = seen.get(14..16) else { return Ok(Look::More) };
        let length = 16 + usize::from(u16::from_be_bytes([length[0], length[1]]));
        return if length <= BINARY_MOST {
            Ok(Look::Binary(length))
        } else {
            Err(broken("the PROXY header is too long"))
        };
    }
    if !b"PROXY ".starts_with(&seen[..seen.len().min(6)]) {
        return Err(broken("the connection does not begin with a PROXY header"));
    }
    match seen.windows(2).position(|two| two == b"\r\n") {
        Some(at) => Ok(Look::Line(at + 2)),
        None if seen.len() < LINE_MOST => Ok(Look::More),
        None => Err(broken("the PROXY line has no end")),
    }
}

fn line_source(line: &[u8]) -> io::Result<Option<SocketAddr>> {
    let text = std::str::from_utf8(line).map_err(|_| broken("the PROXY line is no text"))?.trim_end_matches("\r\n");
    let words: Vec<&str> = text.split(' ').collect();
    match words[..] {
        [_, "UNKNOWN", ..] => Ok(None),
        [_, family @ ("TCP4" | "TCP6"), from, to, from_port, to_port] => {
            let ip = |text: &str| text.parse::<IpAddr>().ok().filter(|ip| ip.is_ipv4() == (family == "TCP4"));
            match (ip(from), ip(to), from_port.parse(), to_port.parse::<u16>()) {
                (Some(ip), Some(_), Ok(port), Ok(_)) => Ok(Some(SocketAddr::new(ip, port))),
                _ => Err(broken("the PROXY line names no addresses")),
            }
        }
        _ => Err(broken("the PROXY line is no family and two addresses")),
    }
}

fn binary_source(header: &[u8]) -> io::Result<Option<SocketAddr>> {
    let (kind, family) = match header.get(12..14) {
        Some([kind, family]) => (*kind, *family),
        _ => return Err(broken("the PROXY header is cut")),
    };
    let address = header.get(16..).unwrap_or_default();
    match (kind, family) {
        (0x20, _) => Ok(None),
        (0x21, 0x11) => match address.first_chunk::<12>() {
            Some([a, b, c, d, _, _, _, _, p, q, _, _]) => {
                let ip = Ipv4Addr::new(*a, *b, *c, *d);
                Ok(Some(SocketAddr::new(ip.into(), u16::from_be_bytes([*p, *q]))))
            }
            None => Err(broken("the PROXY header names no address")),
        },
        (0x21, 0x21) => match (address.first_chunk::<16>(), address.get(32..34)) {
            (Some(ip), Some([p, q])) => {
                Ok(Some(SocketAddr::new(Ipv6Addr::from(*ip).into(), u16::from_be_bytes([*p, *q]))))
            }
            _ => Err(broken("the PROXY header names no address")),
        },
        // Other families carry no address of ours; the peer stands.
        (0x21, _) => Ok(None),
        _ => Err(broken("the PROXY header has a version or command that is not known")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_the_caller() {
        let line = |text: &str| line_source(text.as_bytes()).map_err(|e| e.to_string());
        assert_eq!(line("PROXY TCP4 192.0.2.7 10.0.0.1 4000 80\r\n"), Ok(Some("192.0.2.7:4000".parse().unwrap())));
        assert_eq!(line("PROXY TCP6 2001:db8::7 ::1 4000 80\r\n"), Ok(Some("[2001:db8::7]:4000".parse().unwrap())));
        assert_eq!(line("PROXY UNKNOWN\r\n"), Ok(None));
        for bad in ["PROXY TCP4 2001:db8::7 ::1 1 2\r\n", "PROXY TCP4 192.0.2.7\r\n", "PROXY SCTP\r\n"] {
            assert!(line(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_binary_header_names_the_caller() {
        let header = |kind: u8, family: u8, address: &[u8]| {
            let mut all = SIGNATURE_2.to_vec();
            all.extend_from_slice(&[kind, family]);
            all.extend_from_slice(&(address.len() as u16).to_be_bytes());
            all.extend_from_slice(address);
            all
        };
        let four = header(0x21, 0x11, &[192, 0, 2, 7, 10, 0, 0, 1, 15, 160, 0, 80]);
        assert_eq!(look(&four).unwrap(), Look::Binary(28));
        assert_eq!(binary_source(&four).unwrap(), Some("192.0.2.7:4000".parse().unwrap()));
        assert_eq!(binary_source(&header(0x20, 0, &[])).unwrap(), None);
        assert!(binary_source(&header(0x21, 0x11, &[1, 2])).is_err());
        assert!(binary_source(&header(0x31, 0x11, &[0; 12])).is_err());
    }

    #[test]
    fn what_is_no_header_is_refused_and_a_part_is_waited_for() {
        assert!(look(b"GET / HTTP/1.1\r\n").is_err());
        assert_eq!(look(b"PRO").unwrap(), Look::More);
        assert_eq!(look(b"\r\n\r\n\0").unwrap(), Look::More);
        assert_eq!(look(b"PROXY UNKNOWN\r\nGET").unwrap(), Look::Line(15));
        assert!(look(&[b"PROXY ".as_slice(), &[b'x'; 101]].concat()).is_err());
    }
}
