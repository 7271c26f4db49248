//! Small worlds, all of them.
//!
//! Every workload of a few operations dies in every storage call that it makes, and of every such
//! death every power cut is looked at: each subset of the changes that were not synced stays, the
//! others go. Where more than so many changes are pending, the first ones are chosen in every way, and
//! the rest stays as a whole or goes as a whole.
//!
//! `CASKADE_WORLDS=3,12` says how many operations, and how many changes: that is the whole. Less is
//! taken without it, so that it is a matter of seconds.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use caskade::{Background, Batch, Builder, Db, Durability};
use caskade_shard::storage::EntryKind;
use caskade_shard::storage::sim::{Chooser, CrashEffect, Exhaustive, Pending, SimDisk};

use crate::model::{Blow, Key, Model, Put};
use crate::{on_all_cores, variable};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Put,
    Overwrite,
    Delete,
    Batch,
    Sync,
    Rotate,
    Merge,
    Snapshot,
}

const STEPS: [Step; 8] = [
    Step::Put,
    Step::Overwrite,
    Step::Delete,
    Step::Batch,
    Step::Sync,
    Step::Rotate,
    Step::Merge,
    Step::Snapshot,
];

const SIZE: &str = if cfg!(debug_assertions) { "1,12" } else { "2,12" };

/// What the workloads of one durability begin with.
struct Base {
    disk: SimDisk,
    durability: Durability,
    model: Model,
    /// Two keys of the first shard and one of the second are there, two of the first are not.
    old: [Key; 2],
    other: Key,
    new: Key,
    filler: Key,
}

/// Answers the first questions in every way, and the rest in one.
struct Bounded {
    all: Exhaustive,
    asked: usize,
    limit: usize,
    keeps_rest: bool,
}

impl Chooser for Bounded {
    fn keep(&mut self, pending: &Pending<'_>) -> bool {
        self.asked += 1;
        if self.asked <= self.limit { self.all.keep(pending) } else { self.keeps_rest }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    workloads: u64,
    deaths: u64,
    worlds: u64,
    /// Worlds without those that were looked at before.
    different: u64,
    /// Deaths with more pending changes than were chosen in every way.
    cut_short: u64,
    pending_max: usize,
}

impl Count {
    fn add(&mut self, other: Self) {
        self.workloads += other.workloads;
        self.deaths += other.deaths;
        self.worlds += other.worlds;
        self.different += other.different;
        self.cut_short += other.cut_short;
        self.pending_max = self.pending_max.max(other.pending_max);
    }
}

fn builder(disk: &SimDisk, durability: Durability) -> Builder {
    Db::builder("/db")
        .storage(disk.storage())
        .background(Background::Manual)
        .shards(2)
        .segment_bytes_max(4096)
        .segment_bytes_min(512)
        .journal_bytes(8 << 10)
        .durability(durability)
}

fn put(text: &str, len: usize) -> Put {
    let mut value = text.as_bytes().to_vec();
    value.resize(len, b'.');
    Put { value, expiry: None }
}

impl Base {
    fn new(durability: Durability) -> Self {
        let disk = SimDisk::new(1);
        disk.set_map_reserve(8 << 10);
        let db = builder(&disk, durability).open().expect("opens");
        let twin = disk.fork();
        let other_db = builder(&twin, durability).open().expect("opens");
        let mut keys = [Vec::new(), Vec::new()];
        let mut shard_of = BTreeMap::new();
        for index in 0..40_u8 {
            let key = vec![b'k', index];
            let shard = (other_db.put(&key, b"").expect("puts").to_u64() >> 56) as usize;
            if keys[shard].len() < [4, 1][shard] {
                keys[shard].push(key.clone());
                shard_of.insert(key, shard);
            }
        }
        let [here, there] = keys;
        let [first, second, new, filler] = here.try_into().expect("four keys of the first shard");
        let [other] = there.try_into().expect("a key of the second shard");
        let mut base = Self {
            disk,
            durability,
            model: Model::new(2, shard_of),
            old: [first, second],
            other,
            new,
            filler,
        };
        // An overwrite, so that there is something to merge from the beginning.
        for (key, text) in [
            (base.old[0].clone(), "dead"),
            (base.old[0].clone(), "old 0"),
            (base.old[1].clone(), "old 1"),
            (base.other.clone(), "other"),
        ] {
            let durably = caskade::WriteOptions::new().durability(Durability::Sync);
            db.put_with(&key, text.as_bytes(), durably).expect("puts");
            base.model.write(vec![(key, Some(put(text, text.len())))], true);
        }
        db.close().expect("closes");
        base.disk.power_cut_with(&mut |_: &Pending<'_>| true);
        base.model.durable_to(&base.model.mark());
        base
    }
}

/// One workload on a disk of its own.
struct Life<'b> {
    base: &'b Base,
    disk: SimDisk,
    model: Model,
    db: Option<Db>,
}

impl<'b> Life<'b> {
    /// A life that dies in this call after opening, if it comes to that.
    fn begin(base: &'b Base, call: Option<u64>) -> Self {
        let disk = base.disk.fork();
        let db = builder(&disk, base.durability).open().expect("opens");
        disk.faults().clear();
        if let Some(call) = call {
            disk.faults().crash_at_call(call, CrashEffect::Nothing);
        }
        Self { base, model: base.model.clone(), disk, db: Some(db) }
    }

    /// Runs the workload, until it ends or the process dies.
    fn run(&mut self, steps: &[Step]) -> Result<(), String> {
        for (number, step) in steps.iter().enumerate() {
            let outcome = self.step(number, *step);
            if self.disk.is_crashed() {
                return Ok(());
            }
            outcome.map_err(|error| format!("{step:?}: {error}"))?;
        }
        Ok(())
    }

    fn step(&mut self, number: usize, step: Step) -> caskade::Result<()> {
        let base = self.base;
        let text = format!("step {number}");
        let small = || Some(put(&text, text.len()));
        let db = self.db.clone().expect("it is open");
        match step {
            Step::Put => self.write(&db, vec![(base.new.clone(), small())]),
            Step::Overwrite => self.write(&db, vec![(base.old[0].clone(), small())]),
            Step::Delete => self.write(&db, vec![(base.old[0].clone(), None)]),
            Step::Batch => {
                self.write(&db, vec![(base.old[1].clone(), small()), (base.other.clone(), small())])
            }
            Step::Sync => {
                db.sync()?;
                self.model.durable_to(&self.model.mark());
                Ok(())
            }
            // It does not fit beside another record; the background seals what is full.
            Step::Rotate => {
                self.write(&db, vec![(base.filler.clone(), Some(put(&text, 380)))])?;
                db.run_background();
                Ok(())
            }
            Step::Merge => db.compact().map(drop),
            Step::Snapshot => {
                let mark = self.model.mark();
                self.db = None;
                db.close()?;
                self.model.durable_to(&mark);
                drop(db);
                self.db = Some(builder(&self.disk, base.durability).open()?);
                Ok(())
            }
        }
    }

    fn write(&mut self, db: &Db, changes: Vec<(Key, Option<Put>)>) -> caskade::Result<()> {
        let mut batch = Batch::new();
        for (key, put) in &changes {
            match put {
                Some(put) => batch.put(key, &put.value),
                None => batch.delete(key),
            };
        }
        let outcome = match &changes[..] {
            [(key, Some(put))] => db.put(key, &put.value).map(drop),
            [(key, None)] => db.delete(key).map(drop),
            _ => db.write(&batch).map(drop),
        };
        // A delete of what is gone writes nothing.
        let is_nothing = matches!(&changes[..], [(key, None)] if self.model.latest(key).is_none());
        if !is_nothing {
            let touched = self.model.write(changes, outcome.is_ok());
            if outcome.is_ok() && self.base.durability == Durability::Sync {
                for shard in touched {
                    self.model.shard_durable_to(shard, self.model.shard_mark(shard));
                }
            }
        }
        outcome
    }
}

/// Opens what a crash left and compares it with what may be there. Then it must work as any other.
fn look(disk: &SimDisk, base: &Base, model: &Model, blow: Blow) -> Result<(), String> {
    let fault = |error: caskade::Error| error.to_string();
    let db = builder(disk, base.durability).open().map_err(fault)?;
    let mut found = BTreeMap::new();
    for key in model.keys() {
        if let Some(value) = db.get(key).map_err(fault)? {
            found.insert(key.clone(), Put { value: value.to_vec(), expiry: None });
        }
    }
    let mut model = model.clone();
    model.recover(blow, &found, 0)?;
    let mut iterated = BTreeMap::new();
    for entry in db.iter().map_err(fault)? {
        let entry = entry.map_err(fault)?;
        iterated.insert(entry.key.to_vec(), Put { value: entry.value.to_vec(), expiry: None });
    }
    if iterated != found {
        return Err("iter and get differ".to_owned());
    }
    db.put(&base.new, b"after").map_err(fault)?;
    let is_there = db.get(&base.new).map_err(fault)?.is_some_and(|value| value == b"after");
    if is_there { Ok(()) } else { Err("a put after the recovery is not there".to_owned()) }
}

/// A number for what all files of the store hold.
fn contents(disk: &SimDisk) -> u64 {
    let mut hasher = DefaultHasher::new();
    for dir in ["/db", "/db/shard-000", "/db/shard-001"] {
        for entry in disk.list(dir).unwrap_or_default() {
            entry.name.hash(&mut hasher);
            // Half a megabyte of zeros tells nothing.
            if entry.kind == EntryKind::File && entry.name != "RESERVE" {
                disk.read_file(Path::new(dir).join(entry.name)).ok().hash(&mut hasher);
            }
        }
    }
    hasher.finish()
}

/// The worlds of one workload that no shorter one has.
fn explore(base: &Base, steps: &[Step], limit: usize) -> Result<Count, String> {
    let mut count = Count { workloads: 1, ..Count::default() };
    let (before, calls) = {
        let mut life = Life::begin(base, None);
        let (last, first) = steps.split_last().expect("a workload has a step");
        life.run(first)?;
        let before = life.disk.faults().calls();
        life.step(first.len(), *last).map_err(|error| format!("{steps:?}: {error}"))?;
        (before, life.disk.faults().calls())
    };
    // Deaths in the steps before are those of a shorter workload.
    let mut seen = HashSet::new();
    for call in before + 1..=calls + 1 {
        let mut life = Life::begin(base, Some(call));
        life.run(steps)?;
        life.disk.kill();
        count.deaths += 1;
        let tell = |text| format!("{:?} {steps:?}, call {call}: {text}", base.durability);
        look(&life.disk.fork(), base, &life.model, Blow::Kill).map_err(tell)?;
        let mut promised = DefaultHasher::new();
        format!("{:?}", life.model).hash(&mut promised);
        let promised = promised.finish();
        let pending = life.disk.pending_choices();
        count.pending_max = count.pending_max.max(pending);
        count.cut_short += u64::from(pending > limit);
        for keeps_rest in [true, false] {
            if keeps_rest && pending <= limit {
                continue;
            }
            let all = Exhaustive::new();
            let mut chooser = Bounded { all, asked: 0, limit, keeps_rest };
            while chooser.all.next_run() {
                chooser.asked = 0;
                let disk = life.disk.fork();
                disk.power_cut_with(&mut chooser);
                count.worlds += 1;
                // Deaths that follow each other leave many of the same worlds.
                if !seen.insert((contents(&disk), promised)) {
                    continue;
                }
                count.different += 1;
                look(&disk, base, &life.model, Blow::PowerCut).map_err(|text| {
                    let kept = chooser.all.answers();
                    tell(format!("kept {kept:?}, the rest {keeps_rest}: {text}"))
                })?;
            }
        }
    }
    Ok(count)
}

fn workloads(length: usize) -> Vec<Vec<Step>> {
    let mut all: Vec<Vec<Step>> = vec![Vec::new()];
    let mut from = 0;
    for _ in 0..length {
        let end = all.len();
        for index in from..end {
            for step in STEPS {
                let mut longer = all[index].clone();
                longer.push(step);
                all.push(longer);
            }
        }
        from = end;
    }
    all.remove(0);
    all
}

#[test]
fn every_small_world_keeps_the_promises() {
    let size = variable("CASKADE_WORLDS").unwrap_or_else(|| SIZE.to_owned());
    let (length, limit) = size.split_once(',').expect("CASKADE_WORLDS is <operations>,<changes>");
    let limit: usize = limit.parse().expect("a number");
    let workloads = workloads(length.parse().expect("a number"));
    let bases = [Durability::Buffered, Durability::Sync].map(Base::new);
    let jobs: Vec<(&Base, &[Step])> = workloads
        .iter()
        .flat_map(|steps| bases.iter().map(move |base| (base, &steps[..])))
        .collect();
    let begun = std::time::Instant::now();
    let (next, total) = (AtomicUsize::new(0), Mutex::new(Count::default()));
    let failures = Mutex::new(Vec::new());
    on_all_cores(|| {
        while let Some((base, steps)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            match explore(base, steps, limit) {
                Ok(count) => total.lock().expect("no panic").add(count),
                Err(text) => failures.lock().expect("no panic").push(text),
            }
        }
    });
    let failures = failures.into_inner().expect("no panic");
    println!("{:?} in {:?}", total.lock().expect("no panic"), begun.elapsed());
    assert!(failures.is_empty(), "{} workloads:\n{}", failures.len(), failures.join("\n"));
}
