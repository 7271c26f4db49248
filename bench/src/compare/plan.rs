//! Which steps are taken, in which order.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bench::workload::mix;
use serde::{Deserialize, Serialize};

use super::args::{Args, CEILINGS};
use super::peers;

/// Workloads that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Load,
    Get,
    Values,
    Ycsb,
    Durable,
    Open,
    Space,
    Scan,
}

impl Family {
    pub(crate) const ALL: [Self; 8] = [
        Self::Load,
        Self::Get,
        Self::Values,
        Self::Ycsb,
        Self::Durable,
        Self::Open,
        Self::Space,
        Self::Scan,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Get => "get",
            Self::Values => "values",
            Self::Ycsb => "ycsb",
            Self::Durable => "durable",
            Self::Open => "open",
            Self::Space => "space",
            Self::Scan => "scan",
        }
    }

    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name)
    }
}

/// What a process of its own does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Step {
    /// Loads the store that the later steps read.
    Load1,
    Load2,
    LoadBatched1,
    LoadBatched2,
    Get,
    GetZipf,
    GetMiss,
    GetMany,
    Scan,
    YcsbB,
    YcsbA,
    YcsbCfd,
    Values1K,
    Values16K,
    Values1M,
    Durable,
    /// Loads a store and closes it.
    Fill,
    OpenClean,
    /// Loads a store and waits to be killed.
    Kill,
    OpenKilled,
    Churn,
}

/// A step of a store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) rep: usize,
    pub(crate) store: String,
    pub(crate) step: Step,
    pub(crate) dir: PathBuf,
    pub(crate) keys: u64,
    /// Whether these are all keys of the run, not fewer for a curve.
    pub(crate) is_full: bool,
    /// How long an operation is done over and over.
    pub(crate) stretch: Duration,
    /// Ends a load of single puts; what is missing is loaded in batches then, off the clock.
    pub(crate) load_limit: Duration,
    /// Whether the directory goes when the step is done.
    pub(crate) removes: bool,
}

/// All jobs, in their order: the stores take turns at each step of each repetition.
pub(crate) fn jobs(args: &Args, root: &Path) -> Vec<Job> {
    let mut jobs = Vec::new();
    for rep in 0..args.reps {
        for (number, step) in (0..).zip(steps(args, rep)) {
            // Another order each time, the same in every run: nobody is always the first, or always
            // behind the same other one.
            let place = |(index, _): &(u64, &String)| mix(mix(rep as u64) ^ mix(number) ^ index);
            let mut stores: Vec<_> = (0..).zip(&args.stores).collect();
            stores.sort_by_key(place);
            for (_, store) in stores {
                if takes_part(store, step.0) {
                    jobs.push(job(args, root, rep, store, step));
                }
            }
        }
    }
    jobs
}

/// Steps with the number of keys, and where they are taken.
fn steps(args: &Args, rep: usize) -> Vec<(Step, u64, &'static str)> {
    let keys = args.keys;
    let mut steps = Vec::new();
    let mut add = |family: Family, list: &[(Step, u64, &'static str)]| {
        if args.wants(family) {
            steps.extend_from_slice(list);
        }
    };
    let reads_main = [Family::Load, Family::Get, Family::Ycsb, Family::Scan];
    if reads_main.into_iter().any(|family| args.wants(family)) {
        let family = reads_main.into_iter().find(|family| args.wants(*family));
        add(family.unwrap_or(Family::Load), &[(Step::Load1, keys, "main")]);
    }
    add(
        Family::Load,
        &[
            (Step::Load2, keys, "two"),
            (Step::LoadBatched1, keys, "batched"),
            (Step::LoadBatched2, keys, "batched"),
        ],
    );
    add(
        Family::Get,
        &[
            (Step::Get, keys, "main"),
            (Step::GetZipf, keys, "main"),
            (Step::GetMiss, keys, "main"),
            (Step::GetMany, keys, "main"),
        ],
    );
    add(Family::Scan, &[(Step::Scan, keys, "main")]);
    let ycsb = [Step::YcsbB, Step::YcsbA, Step::YcsbCfd];
    add(Family::Ycsb, &ycsb.map(|step| (step, keys, "main")));
    let values = [(Step::Values1K, "1k"), (Step::Values16K, "16k"), (Step::Values1M, "1m")];
    add(Family::Values, &values.map(|(step, place)| (step, keys, place)));
    add(Family::Durable, &[(Step::Durable, keys, "durable")]);
    for size in [keys / 10, keys / 3, keys] {
        add(Family::Open, &[(Step::Fill, size, "open"), (Step::OpenClean, size, "open")]);
        // Of a killed store the curve is drawn by one repetition, for the killing takes long.
        if rep == 0 || size == keys {
            add(Family::Open, &[(Step::Kill, size, "open"), (Step::OpenKilled, size, "open")]);
        }
    }
    add(Family::Space, &[(Step::Churn, keys, "churn")]);
    steps
}

/// Ceilings have no store on disk that could be opened, or grow.
fn takes_part(store: &str, step: Step) -> bool {
    if store == CEILINGS {
        return matches!(
            step,
            Step::Load1
                | Step::Load2
                | Step::Get
                | Step::GetZipf
                | Step::GetMiss
                | Step::Values1K
                | Step::Values16K
                | Step::Values1M
                | Step::Durable
        );
    }
    let batched = peers::find(store).is_ok_and(|peer| peer.loads_batched);
    !matches!(step, Step::LoadBatched1 | Step::LoadBatched2) || batched
}

fn job(
    args: &Args,
    root: &Path,
    rep: usize,
    store: &str,
    (step, keys, place): (Step, u64, &'static str),
) -> Job {
    let keeps = matches!(step, Step::Fill | Step::Kill) || place == "main";
    let millis = match (step, args.is_quick) {
        // As long as it takes the trees to write out what they gathered more than once.
        (Step::YcsbA, false) => 8000,
        (_, false) => 2000,
        (Step::Durable, true) => 500,
        (_, true) => 800,
    };
    Job {
        rep,
        store: store.to_owned(),
        step,
        dir: root.join(format!("{rep}-{store}-{place}")),
        keys,
        is_full: keys == args.keys,
        stretch: Duration::from_millis(millis),
        load_limit: Duration::from_secs(if args.is_quick { 4 } else { 8 }),
        removes: !keeps,
    }
}
