//! AI protocol readers: bytes in, facts out.
//!
//! A [`Reader`] is shown every body frame of an answer as it passes (a tap: the bytes are never changed and never
//! waited for) and says at the end what the model said: when the first token came, how many were spent, whether the
//! answer was whole, empty, refused, cut or an error in disguise. It is pure: time comes in as [`crate::names::Mono`].
//! Every reader is bounded in memory, never panics, and stays silent on what it does not understand.

pub mod facts;
pub mod reader;

pub use facts::{Dialect, Ending, Facts, Finish, Protocol};
pub use reader::Reader;
