//! `caskade demo`: what the store does, shown and measured on a temporary one.

mod crash;
mod summary;
pub(crate) mod writer;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use caskade::{Db, Durability, WriteOptions};

use crate::args::DemoArgs;
use crate::fault::{Fault, Outcome};
use crate::interrupt;
use crate::term::{self, Paint, Progress};
use crate::units;

use crate::load::data;
use crate::load::measure::{self, Disk, Latencies};
use crate::load::parallel::{self, Measured, Plan};
use summary::{Memory, Report};

/// Keys in one `get_many`.
const MANY: u64 = 64;
/// How often all records are overwritten.
const ROUNDS: u64 = 2;
/// How long durable writes are measured, for each number of threads.
const DURABLE_TIME: Duration = Duration::from_secs(1);
const DURABLE_THREADS: [(u8, &str); 2] =
    [(1, "put, durable, 1 thread"), (16, "put, durable, 16 threads")];

/// Runs the whole demo.
pub(crate) fn run(args: &DemoArgs) -> Outcome {
    let place = Place::new(args)?;
    let mut demo = Demo::new(args, &place.store);
    let report = demo.run();
    place.tidy(args.keep);
    let report = report?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{:#}", report.to_json())?;
    } else {
        report.print(&mut out, Paint::stdout())?;
        if args.keep {
            writeln!(out, "\nThe store stays at {}", place.store.display())?;
        }
    }
    if report.lost() > 0 {
        return Err(Fault::Damaged(
            "acknowledged writes are missing: this is a bug, please report it".to_owned(),
        ));
    }
    Ok(())
}

/// The folder of the demo.
struct Place {
    folder: PathBuf,
    store: PathBuf,
}

impl Place {
    fn new(args: &DemoArgs) -> Outcome<Self> {
        let folder = args.dir.clone().unwrap_or_else(|| {
            std::env::temp_dir().join(format!("caskade-demo-{}", std::process::id()))
        });
        if let Err(error) = fs::create_dir(&folder) {
            if error.kind() == io::ErrorKind::AlreadyExists {
                return Err(Fault::Usage(format!(
                    "{} exists; the demo wants a folder of its own",
                    folder.display()
                )));
            }
            return Err(Fault::system("create", &folder, error));
        }
        Ok(Self { store: folder.join("store"), folder })
    }

    fn tidy(&self, keep: bool) {
        if !keep && let Err(error) = fs::remove_dir_all(&self.folder) {
            note!("cannot remove {}: {error}", self.folder.display());
        }
    }
}

/// The demo under way.
struct Demo<'a> {
    store: &'a Path,
    records: u64,
    threads: u8,
    paint: Paint,
    is_silent: bool,
    step: u8,
    report: Report,
}

impl<'a> Demo<'a> {
    fn new(args: &DemoArgs, store: &'a Path) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = args.threads.unwrap_or(cores.min(4) as u8);
        Self {
            store,
            records: args.records.into(),
            threads,
            paint: Paint::stdout(),
            is_silent: args.json,
            step: 0,
            report: Report::new(args.records.into()),
        }
    }

    fn run(&mut self) -> Outcome<Report> {
        let begun = Instant::now();
        self.introduce()?;
        let db = self.load()?;
        self.read(&db)?;
        self.write_durably(&db)?;
        self.overwrite(&db)?;
        self.reopen(db)?;
        let acknowledged = self.crash()?;
        let db = self.recover(&acknowledged)?;
        self.compact(&db)?;
        term::wait("closing", || db.close())?;
        self.report.space.at_rest = self.measure_disk()?;
        self.report.elapsed = begun.elapsed();
        Ok(std::mem::take(&mut self.report))
    }

    /// Tells of a step that is done.
    fn tell(&mut self, title: &str, text: &str) -> Outcome {
        self.step += 1;
        if !self.is_silent {
            let mut out = io::stdout().lock();
            writeln!(out, " {} {} {text}", self.step, self.paint.bold(format!("{title:<10}")))?;
        }
        Ok(())
    }

    fn more(&self, text: &str) -> Outcome {
        if !self.is_silent {
            writeln!(io::stdout().lock(), "              {text}")?;
        }
        Ok(())
    }

    fn introduce(&mut self) -> Outcome {
        let folder = self.store.parent().expect("the store lies in the demo's folder");
        let file_system = measure::file_system(folder);
        self.report.clock_cost = measure::clock_cost();
        if !self.is_silent {
            let mut out = io::stdout().lock();
            let kind = file_system.as_deref().unwrap_or("unknown file system");
            writeln!(
                out,
                "{}: {} records, keys of {}, values of {} bytes, {} threads\nStore: {} ({kind})",
                self.paint.bold("Caskade demo"),
                units::count(self.records),
                data::KEY_LEN,
                data::VALUE_LEN,
                self.threads,
                self.store.display(),
            )?;
            if kind == "tmpfs" {
                writeln!(
                    out,
                    "This is memory, not a disk: durable writes cost nothing here. See --dir."
                )?;
            }
            writeln!(out)?;
        }
        self.report.file_system = file_system;
        Ok(())
    }

    fn plan(&self, name: &'static str) -> Plan {
        Plan {
            name,
            threads: self.threads,
            calls: self.records,
            keys_per_call: 1,
            at_most: None,
            stride: 1024,
        }
    }

    fn keep(&mut self, measured: Measured) -> String {
        let text = format!(
            "{} in {}: {}",
            units::count(measured.keys),
            units::time(measured.elapsed),
            units::rate(measured.keys, measured.elapsed),
        );
        self.report.measured.push(measured);
        text
    }

    fn load(&mut self) -> Outcome<Db> {
        let db = Db::open(self.store)?;
        // One write, so that what is set up only once is not counted as memory of the keys.
        db.put(b"first", b"")?;
        db.delete(b"first")?;
        let before = measure::anonymous_memory();
        let put = |index, latencies: &mut Latencies| {
            let (key, value) = (data::present(index), data::value(index, 0));
            latencies.time(|| db.put(&key, &value)).map(drop)
        };
        let measured = parallel::run(self.plan("put, new key"), put, || {})?;
        let keydir_bytes = db.stats().total.keydir_bytes;
        let anonymous =
            measure::anonymous_memory().zip(before).map(|(now, before)| now.saturating_sub(before));
        self.report.memory = Memory { keydir_bytes, anonymous };
        let text = self.keep(measured);
        self.tell("load", &format!("{text} puts"))?;
        Ok(db)
    }

    fn read(&mut self, db: &Db) -> Outcome {
        let n = self.records;
        let hit = |i, latencies: &mut Latencies| {
            let index = data::shuffled(i, n, 1);
            let found = latencies.time(|| db.get(&data::present(index)))?;
            self::expect(
                found.as_deref() == Some(&data::value(index, 0)),
                "a value that was loaded",
            );
            Ok(())
        };
        let measured = parallel::run(self.plan("get, present"), hit, || {})?;
        let text = self.keep(measured);
        self.tell("read", &format!("{text} gets, present, compared"))?;

        let miss = |i, latencies: &mut Latencies| {
            let found = latencies.time(|| db.get(&data::absent(data::shuffled(i, n, 1))))?;
            self::expect(found.is_none(), "that a key which was never written is absent");
            Ok(())
        };
        let measured = parallel::run(self.plan("get, absent"), miss, || {})?;
        let text = self.keep(measured);
        self.more(&format!("{text} gets, absent"))?;

        let many = |call, latencies: &mut Latencies| {
            let index = |i: u64| data::shuffled(call * MANY + i, n, 2);
            let keys: [_; MANY as usize] = std::array::from_fn(|i| data::present(index(i as u64)));
            let found = latencies.time(|| db.get_many(&keys))?;
            for (i, value) in (0..).zip(&found) {
                self::expect(
                    value.as_deref() == Some(&data::value(index(i), 0)),
                    "a value that was loaded",
                );
            }
            Ok(())
        };
        let plan = Plan { calls: n / MANY, keys_per_call: MANY, ..self.plan("get_many of 64") };
        let measured = parallel::run(plan, many, || {})?;
        let text = self.keep(measured);
        self.more(&format!("{text} gets, {MANY} in a call"))
    }

    fn write_durably(&mut self, db: &Db) -> Outcome {
        // What the load left in the page cache would else be paid for by the first durable writes.
        let begun = Instant::now();
        term::wait("syncing", || db.sync())?;
        let synced = units::time(begun.elapsed());
        self.tell("durable", &format!("all that was buffered became durable in {synced}"))?;
        for (threads, name) in DURABLE_THREADS {
            let before = db.stats();
            let put = |index, latencies: &mut Latencies| {
                let key = data::key(*b"durable", index % 10_000);
                let value = data::value(index, u64::from(threads));
                let options = WriteOptions::new().durability(Durability::Sync);
                latencies.time(|| db.put_with(&key, &value, options)).map(drop)
            };
            let plan = Plan {
                threads,
                calls: u64::MAX,
                at_most: Some(DURABLE_TIME),
                stride: 1,
                ..self.plan(name)
            };
            let measured = parallel::run(plan, put, || {})?;
            let commits = db.stats().commits - before.commits;
            let text = self.keep(measured);
            let plural = if threads == 1 { "thread" } else { "threads" };
            let commits = units::count(commits);
            self.more(&format!("{text} puts, {threads} {plural}, {commits} commits"))?;
        }
        Ok(())
    }

    fn overwrite(&mut self, db: &Db) -> Outcome {
        let n = self.records;
        let (mut amplification, mut peak) = (Vec::new(), 0);
        let mut sample = || {
            amplification.push(db.stats().total.space_amp());
            // Files come and go meanwhile, so that one look may fail.
            peak = peak.max(Disk::of(self.store).map_or(0, |disk| disk.total()));
        };
        let mut measured: Option<Measured> = None;
        // One round after the other, so that each key's last write is the last round's.
        for round in 1..=ROUNDS {
            let put = |i, latencies: &mut Latencies| {
                let index = data::shuffled(i, n, 2 + round);
                let (key, value) = (data::present(index), data::value(index, round));
                latencies.time(|| db.put(&key, &value)).map(drop)
            };
            let one = parallel::run(self.plan("put, overwrite"), put, &mut sample)?;
            match &mut measured {
                Some(measured) => measured.add(&one),
                None => measured = Some(one),
            }
        }
        let measured = measured.expect("there is a round");
        self.report.space.while_overwriting = amplification;
        self.report.space.peak_bytes = peak;
        let text = self.keep(measured);
        self.tell("overwrite", &format!("{text} puts, every key {ROUNDS} times"))?;
        let total = db.stats().total;
        self.more(&format!(
            "{} merges in the background copied {} and freed {}",
            units::count(total.merges),
            units::bytes(total.merged_bytes),
            units::bytes(total.freed_bytes),
        ))
    }

    fn open(&self) -> Outcome<(Db, Duration)> {
        term::wait("opening", || {
            let begun = Instant::now();
            Ok((Db::open(self.store)?, begun.elapsed()))
        })
    }

    fn reopen(&mut self, db: Db) -> Outcome {
        let closed = term::wait("closing", || {
            let begun = Instant::now();
            db.close()?;
            drop(db);
            Ok::<_, Fault>(begun.elapsed())
        })?;
        let (db, opened) = self.open()?;
        self.report.recovery.clean_open = opened;
        self.check_records(&db)?;
        db.close()?;
        let text = format!(
            "closed in {}, opened in {}, every record compared",
            units::time(closed),
            units::time(opened)
        );
        self.tell("reopen", &text)
    }

    fn crash(&mut self) -> Outcome<crash::Acknowledged> {
        let acknowledged = crash::kill_a_writer(self.store)?;
        let text = format!(
            "a child was killed (SIGKILL) after {} acknowledged writes",
            units::count(acknowledged.total())
        );
        self.tell("kill", &text)?;
        Ok(acknowledged)
    }

    fn recover(&mut self, acknowledged: &crash::Acknowledged) -> Outcome<Db> {
        let (db, elapsed) = self.open()?;
        let scanned = db.open_report().shards.iter().map(|shard| shard.bytes_scanned).sum();
        let check = crash::check(&db, acknowledged)?;
        self.check_records(&db)?;
        self.report.recovery.after_kill = elapsed;
        self.report.recovery.bytes_scanned = scanned;
        self.report.recovery.acknowledged = acknowledged.total();
        self.report.recovery.check = check;
        self.tell(
            "recover",
            &format!("opened in {}, {} of log read", units::time(elapsed), units::bytes(scanned)),
        )?;
        let verdict = if check.lost == 0 {
            self.paint.good("every acknowledged write is there")
        } else {
            self.paint.bad(format!("{} keys lack their last acknowledged write", check.lost))
        };
        self.more(&format!(
            "{verdict}\n              ({} keys compared; {} unacknowledged {} kept, whole)",
            units::count(check.keys),
            check.unacknowledged_kept,
            if check.unacknowledged_kept == 1 { "write" } else { "writes" },
        ))?;
        Ok(db)
    }

    fn measure_disk(&self) -> Outcome<Disk> {
        Disk::of(self.store).map_err(|source| Fault::system("measure", self.store, source))
    }

    /// Compares all records with what was written last.
    fn check_records(&self, db: &Db) -> Outcome {
        const GROUP: u64 = 1024;
        let mut wrong = 0;
        let progress = Progress::new("comparing: records");
        for from in (0..self.records).step_by(GROUP as usize) {
            interrupt::check()?;
            progress.set(from, self.records);
            let keys: Vec<_> = (from..self.records.min(from + GROUP)).map(data::present).collect();
            db.get_many_with(&keys, |i, value| {
                wrong += u64::from(value != Some(&data::value(from + i as u64, ROUNDS)));
            })?;
        }
        if wrong > 0 {
            return Err(Fault::Damaged(format!(
                "{wrong} records are not what was written last: this is a bug, please report it"
            )));
        }
        Ok(())
    }

    fn compact(&mut self, db: &Db) -> Outcome {
        let before = db.stats().total.space_amp();
        let begun = Instant::now();
        let progress = Progress::of_bytes("compacting");
        let compacted = db.compact_with(|now| {
            progress.set(now.bytes_done, now.bytes_total);
            !interrupt::is_asked()
        })?;
        drop(progress);
        let elapsed = begun.elapsed();
        let total = db.stats().total;
        self.report.space.before_compaction = before;
        self.report.space.after_compaction = total.space_amp();
        self.report.space.keys = total.keys;
        self.tell(
            "compact",
            &format!(
                "{} in {}: {} segments became {}, {} copied",
                units::bytes(compacted.bytes_removed),
                units::time(elapsed),
                compacted.segments_removed,
                compacted.segments_written,
                units::bytes(compacted.bytes_copied),
            ),
        )?;
        let begun = Instant::now();
        let progress = Progress::of_bytes("verifying");
        let verified = db.verify(|now| {
            progress.set(now.bytes_done, now.bytes_total);
            !interrupt::is_asked()
        })?;
        drop(progress);
        if !verified.is_clean() {
            return Err(Fault::Damaged(format!(
                "verify found {} damaged places: this is a bug, please report it",
                verified.damage.len()
            )));
        }
        self.tell(
            "verify",
            &format!(
                "{} records, {} read and checked in {}",
                units::count(verified.records),
                units::bytes(verified.bytes),
                units::time(begun.elapsed()),
            ),
        )
    }
}

/// A read that answers something else than was written is a bug that ends the demo at once.
fn expect(is_right: bool, what: &str) {
    assert!(is_right, "the store did not answer {what}");
}
