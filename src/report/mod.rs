//! The records, rendered: what the journal says of a rollout's releases, as JSON, Markdown or one self-contained page.
//!
//! Nothing is decided here and no clock is read. The same records give the same text, on a running serin and on a copy
//! of its journal years later.

pub mod book;
pub mod clauses;
pub mod html;
pub mod markdown;
pub mod page;
pub mod plot;
pub mod release;
pub mod told;
#[cfg(test)]
mod trials;
pub mod words;

pub use book::Book;
pub use html::Html;
pub use release::Report;
pub use told::Told;
