//! Operations and crashes, held against a model: the crash simulation of the engine's tests, where
//! the input decides what a seed decides there.

use caskade_shard::storage::sim::Rng;

use crate::alone::alone;

#[path = "../../engine/tests/crash/config.rs"]
mod config;
#[expect(
    clippy::format_push_string,
    clippy::format_collect,
    reason = "texts of failures are made once"
)]
#[path = "../../engine/tests/crash/model.rs"]
mod model;
#[expect(
    dead_code,
    clippy::format_collect,
    clippy::too_many_lines,
    clippy::needless_pass_by_value,
    clippy::single_match_else,
    clippy::struct_excessive_bools,
    reason = "as for the crash simulation; and what a run did is of use to a series of runs only"
)]
#[path = "../../engine/tests/crash/run/mod.rs"]
mod run;

/// Every number that the simulation draws comes from the input, as long as it reaches.
pub fn operations(data: &[u8]) {
    alone(|| {
        if let Err(text) = run::run(Rng::scripted(data, data.len() as u64), false) {
            panic!("{text}");
        }
    });
}
