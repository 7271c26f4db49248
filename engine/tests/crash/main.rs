//! Crashes of a whole store, by seed.
//!
//! A seed decides everything: how the store is set up, what is written to it, when background work
//! runs, where the process dies or the power fails, what of the unsynced data stays, and where the
//! recovery is interrupted in turn. The store runs on the simulated disk of `caskade-shard`, which
//! keeps a live and a durable image of each file.
//!
//! Each seed is a few rounds of: a life, a crash, a recovery (which may crash itself), and a few
//! writes into what was recovered. Values are never used twice, so that what is found after a crash
//! says how much of each shard's log is left. The model checks that
//!
//! - after a kill every acknowledged write is there,
//! - after a power cut each shard has a prefix of its writes, at least as long as what `Sync`,
//!   `sync`, `wait_durable` or a clean close promised,
//! - a batch is whole in all shards or in none,
//! - a write that was under way is there whole or not at all,
//! - recovery that was interrupted comes to what one recovery comes to,
//! - a checkpoint that was made is there, and is what it was,
//! - `get`, `iter`, `scan`, `value_len`, `contains_key`, `ttl`, `len` and the live bytes agree.
//!
//! ```text
//! cargo test --release -p caskade --test crash                        # some hundred seeds
//! CASKADE_SEEDS=1000..2000 cargo test --release -p caskade --test crash
//! CASKADE_SEED=1234 cargo test --release -p caskade --test crash -- --nocapture
//! CASKADE_WORLDS=3,12 cargo test --release -p caskade --test crash every_small_world
//! CASKADE_FOREVER=1 cargo test --release -p caskade --test crash -- --nocapture
//! ```

#![expect(
    clippy::format_push_string,
    clippy::format_collect,
    clippy::too_many_lines,
    clippy::needless_pass_by_value,
    clippy::single_match_else,
    clippy::struct_excessive_bools,
    reason = "texts of failures are made once, and a list of operations reads best in one place"
)]

mod config;
mod model;
mod regressions;
mod run;
mod worlds;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use caskade_shard::storage::sim::Rng;
use run::{Tally, run};

/// Seeds that found a bug once.
const REGRESSIONS: &[u64] = &[
    109,
    148,
    172,
    300,
    582,
    910,
    935,
    1378,
    3179,
    4719,
    4886,
    5848,
    1_795_233_926_948,
    1_795_232_211_702_579_457,
];

const SEEDS: Range<u64> = if cfg!(debug_assertions) { 0..300 } else { 0..1000 };

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Runs one seed and says how it failed.
fn outcome(seed: u64, is_loud: bool) -> Result<Tally, String> {
    match catch_unwind(AssertUnwindSafe(|| run(Rng::new(seed), is_loud))) {
        Ok(answer) => answer,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            Err(format!("panic: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?")))
        }
    }
}

/// One thread in the pool: recovery then makes its calls in the same order every time.
fn alone<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread pool");
    pool.install(act)
}

fn complain(seed: u64, text: &str) -> String {
    format!(
        "seed {seed}: {text}\nreplay: CASKADE_SEED={seed} cargo test --release -p caskade --test \
         crash -- --nocapture\n"
    )
}

/// Does the same on each core, each with a pool of its own.
fn on_all_cores(work: impl Fn() + Sync) {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| alone(&work));
        }
    });
}

/// Runs seeds on all cores until there are no more, and panics with those that failed.
fn run_all(next: impl Fn() -> Option<u64> + Sync) -> Tally {
    let tally = Mutex::new(Tally::default());
    let failures = Mutex::new(Vec::new());
    on_all_cores(|| {
        while let Some(seed) = next() {
            match outcome(seed, false) {
                Ok(one) => tally.lock().expect("no panic here").add(&one),
                Err(text) => {
                    let text = complain(seed, &text);
                    eprintln!("{text}");
                    failures.lock().expect("no panic here").push(text);
                }
            }
        }
    });
    let failures = failures.into_inner().expect("no panic here");
    assert!(failures.is_empty(), "{} seeds failed:\n{}", failures.len(), failures.concat());
    tally.into_inner().expect("no panic here")
}

fn seeds() -> Range<u64> {
    variable("CASKADE_SEEDS").map_or(SEEDS, |text| {
        let (first, last) = text.split_once("..").expect("CASKADE_SEEDS is <first>..<last>");
        first.parse().expect("a number")..last.parse().expect("a number")
    })
}

#[test]
fn a_crash_leaves_what_was_promised() {
    if let Some(seed) = variable("CASKADE_SEED") {
        let seed = seed.parse().expect("CASKADE_SEED is a number");
        let answer = alone(|| outcome(seed, true));
        println!("{answer:?}");
        return assert!(answer.is_ok(), "{}", complain(seed, &answer.unwrap_err()));
    }
    if variable("CASKADE_FOREVER").is_some() {
        return run_for_ever();
    }
    let seeds = seeds();
    let next = AtomicU64::new(seeds.start);
    let tally = run_all(|| {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        (seed < seeds.end).then_some(seed)
    });
    println!("{tally:?}");
    // A harness that no longer crashes or merges anything would pass for ever.
    if seeds.end - seeds.start >= 100 {
        assert!(tally.crashes_in_calls > 0 && tally.crashes_in_recovery > 0, "{tally:?}");
        assert!(tally.merged_segments > 0 && tally.losses > 0, "{tally:?}");
    }
}

/// Fresh seeds until somebody stops it, or the seconds in the variable are over.
fn run_for_ever() {
    let start = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos() as u64;
    let seconds = variable("CASKADE_FOREVER").and_then(|text| text.parse().ok()).unwrap_or(1);
    let limit = if seconds > 1 { Duration::from_secs(seconds) } else { Duration::MAX };
    let (begun, count, stop) = (Instant::now(), AtomicU64::new(0), AtomicBool::new(false));
    let tally = run_all(|| {
        let number = count.fetch_add(1, Ordering::Relaxed);
        if number > 0 && number % 1000 == 0 {
            let rate = number as f64 / begun.elapsed().as_secs_f64();
            eprintln!("{number} seeds, {rate:.0} a second");
        }
        if begun.elapsed() > limit {
            stop.store(true, Ordering::Relaxed);
        }
        (!stop.load(Ordering::Relaxed)).then_some(start.wrapping_add(number))
    });
    println!("{} seeds: {tally:?}", count.into_inner());
}

#[test]
fn seeds_that_found_bugs_find_none() {
    let next = AtomicU64::new(0);
    run_all(|| REGRESSIONS.get(next.fetch_add(1, Ordering::Relaxed) as usize).copied());
}

#[test]
fn a_seed_replays() {
    for seed in 0..10 {
        let runs = [0, 1].map(|_| alone(|| outcome(seed, false)).map(|tally| format!("{tally:?}")));
        assert_eq!(runs[0], runs[1], "seed {seed}");
    }
}
