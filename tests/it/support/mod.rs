//! What the tests stand on: serin in this process, a raw client, a raw scripted upstream, and a strict reader of HTTP/1.

mod authority;
mod client;
pub mod frames;
mod h2;
mod h2_peer;
mod proxy;
mod strict;
mod time;
mod upstream;

pub use authority::{Authority, Identity};
pub use client::{Client, NoAnswer, Stream};
pub use h2::{Certificate, H2, Upstream2};
pub use h2_peer::H2Peer;
pub use proxy::{Proxy, canary, chat, nobody, stable};
pub use strict::{Request, Response, find, show};
pub use time::{A_MOMENT, PATIENCE, clock, eventually, now};
pub use upstream::{Peer, Upstream};
