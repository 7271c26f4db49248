//! `bench`: the mixes of YCSB on a store of one's own.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use caskade::{Db, Durability, WriteOptions};
use serde_json::{Value, json};

use super::beside::Draft;
use super::{open, open_to_write};
use crate::args::{BenchArgs, Mix};
use crate::fault::{Fault, Outcome};
use crate::load::measure::{Latencies, Tally};
use crate::load::parallel::{self, Measured, Plan};
use crate::load::zipf::{Zipf, mix as scramble};
use crate::term::{Paint, Progress, STRIDE};
use crate::units;

/// What the benchmark's keys begin with.
const PREFIX: &[u8] = b"caskade-bench:";
/// Of 1000 operations.
const PARTS: u64 = 1000;

const PERCENTILES: [(&str, f64); 4] =
    [("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999)];

/// Latencies of a mix, by what was done.
#[derive(Debug, Default)]
struct Done {
    reads: Latencies,
    writes: Latencies,
}

impl Tally for Done {
    fn add(&mut self, other: &Self) {
        self.reads.add(&other.reads);
        self.writes.add(&other.writes);
    }
}

/// Loads, runs the mixes, prints, tidies up.
pub(crate) fn bench(args: &BenchArgs) -> Outcome {
    if args.existing {
        let db = open_to_write(&args.store)?;
        let bench = Bench::new(args, &db);
        let outcome = bench.run();
        let tidied = if args.keep { Ok(()) } else { bench.delete_keys() };
        return outcome.and(tidied).and(db.close().map_err(Fault::from));
    }
    // Goes when it is dropped, whatever happened.
    let draft = Draft::new(args.store.clone())?;
    let mut builder = Db::builder(&draft.path);
    if let Some(shards) = args.shards {
        builder = builder.shards(shards);
    }
    let db = open(builder)?;
    let outcome = Bench::new(args, &db).run();
    let closed = db.close().map_err(Fault::from);
    outcome.and(closed)?;
    if args.keep { draft.keep() } else { Ok(()) }
}

struct Bench<'a> {
    args: &'a BenchArgs,
    db: &'a Db,
    threads: u8,
    records: u64,
    /// Keys that are there: mix D adds some.
    inserted: AtomicU64,
    zipf: Zipf,
    options: WriteOptions,
}

impl<'a> Bench<'a> {
    fn new(args: &'a BenchArgs, db: &'a Db) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let records = u64::from(args.records);
        let durability = if args.durable { Durability::Sync } else { Durability::Buffered };
        Self {
            args,
            db,
            threads: args.threads.unwrap_or(cores.min(4) as u8),
            records,
            inserted: records.into(),
            zipf: Zipf::new(records),
            options: WriteOptions::new().durability(durability),
        }
    }

    fn run(&self) -> Outcome {
        let mut out = io::stdout().lock();
        let mut lines = Vec::new();
        self.introduce()?;
        let loaded = self.load()?;
        self.tell(&mut out, &mut lines, "load", &loaded)?;
        for mix in &self.args.mixes {
            let measured = self.run_mix(*mix)?;
            self.tell(&mut out, &mut lines, name_of(*mix), &measured)?;
        }
        let total = self.db.stats().total;
        if self.args.json {
            let report = json!({
                "records": self.records, "value_bytes": self.args.value_bytes,
                "threads": self.threads, "durable": self.args.durable, "runs": lines,
                "space_amp": total.space_amp(), "keydir_bytes": total.keydir_bytes,
            });
            writeln!(out, "{report:#}")?;
        } else {
            writeln!(
                out,
                "\n{} live, {} on disk in segments, {} keydir",
                units::bytes(total.live_bytes),
                units::bytes(total.total_bytes),
                units::bytes(total.keydir_bytes),
            )?;
        }
        Ok(())
    }

    fn introduce(&self) -> Outcome {
        if self.args.json {
            return Ok(());
        }
        let durable = if self.args.durable { "durable" } else { "buffered" };
        let mut out = io::stdout().lock();
        writeln!(
            out,
            "{} records, values of {} bytes, {} threads, writes {durable}, keys chosen by Zipf (0.99)\n",
            units::count(self.records),
            self.args.value_bytes,
            self.threads
        )?;
        let heads = PERCENTILES.map(|(name, _)| format!("{name:>9}")).concat();
        let line = format!("{:<6}{:<8}{:>12}{:>11}{heads}{:>9}", "mix", "", "calls", "rate", "max");
        writeln!(out, "{}", Paint::stdout().bold(line))?;
        Ok(())
    }

    fn plan(&self, name: &'static str) -> Plan {
        // A durable write takes long enough to look at the clock after each.
        let stride = if self.args.durable { 1 } else { 64 };
        let at_most = Some(self.args.time);
        Plan { name, threads: self.threads, calls: u64::MAX, keys_per_call: 1, at_most, stride }
    }

    fn load(&self) -> Outcome<Measured<Done>> {
        let plan =
            Plan { calls: self.records, at_most: None, stride: 1024, ..self.plan("loading") };
        let put = |index, done: &mut Done| {
            let value = self.value(index);
            done.writes.time(|| self.db.put(&key(index), &value)).map(drop)
        };
        parallel::run(plan, put, || {})
    }

    fn run_mix(&self, mix: Mix) -> Outcome<Measured<Done>> {
        let writes = match mix {
            Mix::A | Mix::F => PARTS / 2,
            Mix::B | Mix::D => PARTS / 20,
            Mix::C => 0,
        };
        let call = |index, done: &mut Done| {
            let chance = scramble(index ^ (mix as u64) << 56);
            let is_write = chance % PARTS < writes;
            let rank = self.zipf.rank(scramble(chance));
            // Popular keys lie scattered, except where the newest are the popular ones.
            let chosen = scramble(rank) % self.records;
            match (mix, is_write) {
                (Mix::D, false) => {
                    let newest = self.inserted.load(Ordering::Relaxed) - 1;
                    done.reads.time(|| self.read(newest.saturating_sub(rank)))
                }
                (Mix::D, true) => {
                    let index = self.inserted.fetch_add(1, Ordering::Relaxed);
                    done.writes.time(|| self.write(index, index))
                }
                (Mix::F, true) => done.writes.time(|| {
                    self.read(chosen)?;
                    self.write(chosen, chance)
                }),
                (_, true) => done.writes.time(|| self.write(chosen, chance)),
                (_, false) => done.reads.time(|| self.read(chosen)),
            }
        };
        parallel::run(self.plan(name_of(mix)), call, || {})
    }

    fn read(&self, index: u64) -> caskade::Result<()> {
        std::hint::black_box(self.db.get(&key(index))?);
        Ok(())
    }

    fn write(&self, index: u64, seed: u64) -> caskade::Result<()> {
        let value = self.value(seed);
        self.db.put_with(&key(index), &value, self.options).map(drop)
    }

    /// Bytes that do not compress, made quickly.
    fn value(&self, seed: u64) -> Vec<u8> {
        let len = self.args.value_bytes as usize;
        let words =
            (0..len.div_ceil(8) as u64).flat_map(|i| scramble(seed ^ i << 40).to_le_bytes());
        words.take(len).collect()
    }

    fn tell(
        &self,
        out: &mut impl Write,
        lines: &mut Vec<Value>,
        name: &str,
        measured: &Measured<Done>,
    ) -> Outcome {
        let write = match name {
            "load" => "put",
            "D" => "insert",
            "F" => "rmw",
            _ => "update",
        };
        for (kind, latencies) in
            [("read", &measured.latencies.reads), (write, &measured.latencies.writes)]
        {
            let calls = latencies.total();
            if calls == 0 {
                continue;
            }
            if self.args.json {
                let mut line = json!({
                    "mix": name, "operation": kind, "calls": calls,
                    "per_second": units::per_second(calls, measured.elapsed),
                    "max_ns": latencies.max().as_nanos() as u64,
                });
                for (percentile, share) in PERCENTILES {
                    line[format!("{percentile}_ns")] =
                        (latencies.percentile(share).as_nanos() as u64).into();
                }
                lines.push(line);
                continue;
            }
            let times = PERCENTILES.map(|(_, share)| latencies.percentile(share));
            let times = times.map(|time| format!("{:>9}", units::time(time))).concat();
            writeln!(
                out,
                "{name:<6}{kind:<8}{:>12}{:>11}{times}{:>9}",
                units::count(calls),
                units::rate(calls, measured.elapsed),
                units::time(latencies.max()),
            )?;
        }
        out.flush()?;
        Ok(())
    }

    /// Takes the benchmark's keys out of a store that has others.
    fn delete_keys(&self) -> Outcome {
        let total = self.inserted.load(Ordering::Relaxed);
        let progress = Progress::new("tidying up: keys");
        for index in 0..total {
            // Also after Ctrl-C: a second one ends the process at once.
            if index % STRIDE == 0 {
                progress.set(index, total);
            }
            self.db.delete(&key(index))?;
        }
        Ok(())
    }
}

fn name_of(mix: Mix) -> &'static str {
    match mix {
        Mix::A => "A",
        Mix::B => "B",
        Mix::C => "C",
        Mix::D => "D",
        Mix::F => "F",
    }
}

/// `caskade-bench:` and sixteen digits.
fn key(index: u64) -> Vec<u8> {
    [PREFIX, format!("{:016x}", scramble(index)).as_bytes()].concat()
}
