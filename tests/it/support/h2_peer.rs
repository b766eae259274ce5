//! An HTTP/2 upstream frame by frame: what a script says on one connection, whether or not a good server would.

use super::Peer;
use super::frames::*;

/// One connection of serin's to an upstream, past the preface.
pub struct H2Peer<'a> {
    peer: &'a mut Peer,
}

impl<'a> H2Peer<'a> {
    /// Reads the preface and says `settings`.
    pub fn accept(peer: &'a mut Peer, settings: &[u8]) -> Option<Self> {
        let found = peer.until_seen(PREFACE);
        let mut h2 = Self { peer };
        h2.send(frame(SETTINGS, 0, 0, settings));
        found.then_some(h2)
    }

    /// The next frame; `None` at the end. Settings and pings are acknowledged.
    pub fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(found) = Frame::cut(self.peer.seen()) {
                if matches!(found.kind, SETTINGS | PING) && found.flags & ACK == 0 {
                    let payload = if found.kind == PING { &found.payload[..] } else { &[] };
                    self.send(frame(found.kind, ACK, 0, payload));
                }
                return Some(found);
            }
            if !self.peer.more() {
                return None;
            }
        }
    }

    /// The next frame of this kind.
    pub fn until(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let found = self.next()?;
            if found.kind == kind {
                return Some(found);
            }
        }
    }

    /// The stream of the next request, whose head is noted as `request`.
    pub fn request(&mut self) -> Option<u32> {
        let head = self.until(HEADERS)?;
        self.peer.note("request");
        Some(head.stream)
    }

    /// Serves to the end: everything gets `ok`.
    pub fn serve(&mut self) {
        while let Some(stream) = self.request() {
            self.answer(stream, "200", "ok");
        }
    }

    /// A whole answer.
    pub fn answer(&mut self, stream: u32, status: &str, body: &str) {
        self.head(stream, END_HEADERS, &[(":status", status)]);
        self.send(frame(DATA, END_STREAM, stream, body.as_bytes()));
    }

    /// The head of an answer.
    pub fn head(&mut self, stream: u32, flags: u8, fields: &[(&str, &str)]) {
        self.send(frame(HEADERS, flags, stream, &block(fields)));
    }

    /// Ends a stream.
    pub fn reset(&mut self, stream: u32, code: u32) {
        self.send(frame(RST_STREAM, 0, stream, &code.to_be_bytes()));
    }

    /// Ends the connection, but for the streams up to `last`.
    pub fn goaway(&mut self, last: u32, code: u32) {
        self.send(frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat()));
    }

    /// Any bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.peer.send(bytes);
    }

    /// The connection itself.
    pub fn peer(&mut self) -> &mut Peer {
        self.peer
    }
}
