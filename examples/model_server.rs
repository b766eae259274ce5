//! A scripted model server on its own, for clients that are not written in Rust: prints its address, serves until its input ends.
//!
//! `cargo run --example model_server -- VERSION` · options: `--latency-ms N`, `--error-rate P`, `--tokens N`, `--caches`, `--seed N`.

use std::error::Error;
use std::io::{self, Read, Write};

use serin::clock::Clock;
use serin::demo::{ModelServer, Script, Spread};

fn main() -> Result<(), Box<dyn Error>> {
    let mut script = Script::default();
    let mut seed = 1;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--latency-ms" => script.latency_ms = Spread::around(value()?.parse()?, 0.3),
            "--error-rate" => script.error_rate = value()?.parse()?,
            "--tokens" => script.tokens = Spread::fixed(value()?.parse()?),
            "--caches" => script.caches = true,
            "--seed" => seed = value()?.parse()?,
            option if option.starts_with('-') => return Err(format!("unknown option {option}").into()),
            version => script.version = version.to_owned(),
        }
    }
    let server = ModelServer::start(script, seed, Clock::system())?;
    writeln!(io::stdout(), "{}", server.addr())?;
    io::stdin().read_to_end(&mut Vec::new())?;
    writeln!(io::stderr(), "{:?}", server.counts())?;
    server.shut_down()?;
    Ok(())
}
