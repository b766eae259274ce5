//! serin from outside: real sockets, the whole proxy in this process, upstreams that say exactly what a test wants.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot be set up has failed")]

mod answers;
mod asking;
mod cohort_stages;
mod corpus;
mod drift;
mod exposure;
mod failures;
mod feedback;
mod floods;
mod frames;
mod framing;
mod half_closed;
mod heads;
mod http2;
mod http2_ends;
mod http2_meaning;
mod http2_upstream;
mod interim;
mod limits;
mod mutual_tls;
mod notes;
mod packed;
mod proxy_protocol;
mod queries;
mod reading;
mod rewrites;
mod safety;
mod samples;
mod sums;
#[expect(dead_code, unused_imports, reason = "words of a language that the tests grow into")]
mod support;
mod tokens;
mod tunnels;
mod units;
mod upstream_faults;
