//! HTTP/1.1 as bytes: heads read strictly, bodies delimited, messages written. For both sides of the proxy.
//!
//! Why an engine of our own: with hyper's codec on both sides a request cost 51,000 user instructions, two tasks, and two
//! channels; what serin does on top was less than a third of that. Here a request is one task that reads, decides and
//! writes, and what is ambiguous is refused rather than put right (RFC 9112 sections 2.2, 6.1, 6.3, 11.2).
//!
//! Nothing here knows of connections, rollouts or deadlines. HTTP/2 stays hyper's.

pub mod body;
pub mod buffer;
pub mod chunked;
pub mod head;
pub mod io;
pub mod outbox;

pub use body::{BodyFault, Decoder};
pub use buffer::Input;
pub use head::{HeadError, HeadLimits, RESPONSE_BYTES, RequestHead, ResponseHead};
pub use io::Io;
pub use outbox::{Framing, Outbox};
