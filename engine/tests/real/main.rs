//! The store on a real kernel: killed, out of space, cut from power, with syncs that fail.
//!
//! A child process writes and keeps its acknowledgements in a file elsewhere (`child`); the test
//! ends its life, opens the store and holds what it finds against the promises (`witness`, with the
//! model that the crash simulation uses). What needs a mount needs root; where that is missing a
//! test says so on the terminal and proves nothing.
//!
//! `CASKADE_KILLS`, `CASKADE_CUTS` say how many; the rest takes what its workload has.

mod child;
mod full_disk;
mod kills;
#[expect(
    dead_code,
    clippy::format_push_string,
    clippy::format_collect,
    reason = "the crash simulation uses the rest, and its failures are put into words once"
)]
#[path = "../crash/model.rs"]
mod model;
mod mounts;
mod power;
mod script;
mod syncs;
mod syscalls;
mod witness;

/// Tells the terminal, also when the test harness keeps what a passing test prints.
fn say(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A count that the environment may change.
fn count(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}
