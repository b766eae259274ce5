//! Keys that are checked but not yet heeded by this version: said aloud at start and by `serin check`, so that nobody
//! relies on them. At present there is none.

use super::model::Config;

/// One sentence for each such key that the file sets.
#[must_use]
pub const fn waiting(_: &Config) -> Vec<String> {
    Vec::new()
}
