//! Replays a trace under a policy file: `cargo run --release --example replay -- POLICY TRACE`.

use std::fs::File;
use std::io::{BufReader, stdout};

use serin::judge::{Policy, replay::replay};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (policy, trace) = arguments.next().zip(arguments.next()).ok_or("usage: replay POLICY TRACE")?;
    let policy = Policy::from_toml(&std::fs::read_to_string(policy)?)?;
    replay(policy, BufReader::with_capacity(1 << 16, File::open(trace)?), stdout().lock())?;
    Ok(())
}
