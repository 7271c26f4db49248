//! The parent: starts the steps, one at a time, and shows how far it is.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::args::{Args, CEILINGS};
use super::machine::Machine;
use super::peers;
use super::plan::{self, Job, Step};
use super::results::{Found, OfStore, Results};
use crate::Outcome;

/// A step that takes longer hangs, and counts as failed.
const STEP_MAX: Duration = Duration::from_mins(3);

/// Takes all steps.
pub(crate) fn run(args: &Args) -> Outcome<Results> {
    let root = tempfile::Builder::new().prefix("caskade-compare").tempdir_in(&args.dir)?;
    let mut results = Results {
        keys: args.keys,
        reps: args.reps,
        is_quick: args.is_quick,
        machine: Machine::new(root.path(), args.options()),
        ..Results::default()
    };
    for name in &args.stores {
        let of = peers::find(name).map_or_else(
            |_| OfStore::default(),
            |peer| OfStore {
                version: peer.version().to_owned(),
                is_durable_weaker: peer.is_durable_weaker,
                settings: peer.settings.split_whitespace().collect::<Vec<_>>().join(" "),
                ..OfStore::default()
            },
        );
        if name != CEILINGS {
            eprintln!("{name} {}: {}", of.version, of.settings);
        }
        results.stores.push((name.clone(), of));
    }
    let jobs = plan::jobs(args, root.path());
    let mut progress = Progress::new(&jobs);
    for (index, job) in jobs.iter().enumerate() {
        progress.show(index, job);
        let begun = Instant::now();
        let outcome = step(job);
        progress.took(job, begun.elapsed());
        let (_, of) = results
            .stores
            .iter_mut()
            .find(|(name, _)| *name == job.store)
            .expect("it is a store's");
        match outcome {
            Ok(found) => of.take(found),
            Err(error) => {
                progress.tell(&format!("{} {:?} failed: {error}", job.store, job.step));
                of.failures.push(format!("{:?}: {error}", job.step));
            }
        }
        let is_last = jobs.get(index + 1).is_none_or(|next| next.rep != job.rep);
        if is_last {
            clear(root.path())?;
        } else if job.removes {
            remove(&job.dir)?;
        }
    }
    results.seconds = progress.begun.elapsed().as_secs_f64();
    progress.tell(&format!("{} steps in {:.0} s", jobs.len(), results.seconds));
    Ok(results)
}

fn clear(root: &Path) -> Outcome<()> {
    for entry in fs::read_dir(root)? {
        remove(&entry?.path())?;
    }
    Ok(())
}

fn remove(dir: &Path) -> Outcome<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    Ok(())
}

/// Takes a step in a process of its own.
fn step(job: &Job) -> Outcome<Found> {
    if matches!(job.step, Step::Load1 | Step::Fill | Step::Kill) {
        remove(&job.dir)?;
    }
    // What the step before left to be written is not this one's.
    Command::new("sync").status()?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["compare-step", &serde_json::to_string(job)?])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let line = first_line(&mut child);
    if job.step == Step::Kill || line.is_err() {
        child.kill()?;
    }
    let status = child.wait()?;
    let line = line?;
    match job.step {
        Step::Kill if line.trim() == "loaded" => Ok(Found::default()),
        Step::Kill => Err("it could not be loaded".into()),
        // The line counts even if the store fails to be let go: then that is a failure of its own.
        _ if status.success() => Ok(serde_json::from_str(&line)?),
        _ => Err(format!("it ended with {status}").into()),
    }
}

/// The line that a child says, or nothing within [`STEP_MAX`].
fn first_line(child: &mut Child) -> Outcome<String> {
    let (sender, receiver) = mpsc::channel();
    let stdout = child.stdout.take().ok_or("no output")?;
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        // The receiver may have given up.
        let _ = sender.send(read.map(|_| line));
    });
    match receiver.recv_timeout(STEP_MAX) {
        Ok(line) => Ok(line?),
        Err(_) => Err(format!("nothing within {} s", STEP_MAX.as_secs()).into()),
    }
}

/// How far the run is. A step that was taken before will take as long again; of the others a first
/// guess is corrected by how the guesses fared so far.
struct Progress {
    begun: Instant,
    jobs: Vec<(String, Step, u64)>,
    known: HashMap<(String, Step, u64), f64>,
    guessed: f64,
    taken: f64,
    is_terminal: bool,
}

impl Progress {
    fn new(jobs: &[Job]) -> Self {
        Self {
            begun: Instant::now(),
            jobs: jobs.iter().map(key_of).collect(),
            known: HashMap::new(),
            guessed: 0.0,
            taken: 0.0,
            is_terminal: std::io::stderr().is_terminal(),
        }
    }

    fn took(&mut self, job: &Job, taken: Duration) {
        self.guessed += guess(job.step, job.keys);
        self.taken += taken.as_secs_f64();
        self.known.insert(key_of(job), taken.as_secs_f64());
    }

    fn left(&self, from: usize) -> f64 {
        let correction = if self.guessed > 0.0 { self.taken / self.guessed } else { 1.0 };
        let of = |job: &(String, Step, u64)| {
            self.known.get(job).copied().unwrap_or_else(|| guess(job.1, job.2) * correction)
        };
        self.jobs[from..].iter().map(of).sum()
    }

    fn show(&self, index: usize, job: &Job) {
        let left = self.left(index);
        let line = format!(
            "{:>3}/{} rep {} {:<12} {:<10} {:>3.0} s so far, about {:.0} s to go",
            index + 1,
            self.jobs.len(),
            job.rep + 1,
            format!("{:?}", job.step),
            job.store,
            self.begun.elapsed().as_secs_f64(),
            left
        );
        let mut err = std::io::stderr().lock();
        // A lost line of progress is no reason to stop.
        let _ = if self.is_terminal {
            write!(err, "\r\x1b[2K{line}").and_then(|()| err.flush())
        } else {
            writeln!(err, "{line}")
        };
    }

    fn tell(&self, text: &str) {
        eprintln!("{}{text}", if self.is_terminal { "\r\x1b[2K" } else { "" });
    }
}

fn key_of(job: &Job) -> (String, Step, u64) {
    (job.store.clone(), job.step, job.keys)
}

/// Seconds, roughly.
fn guess(step: Step, keys: u64) -> f64 {
    let millions = keys as f64 / 1e6;
    match step {
        Step::Load1
        | Step::Load2
        | Step::LoadBatched1
        | Step::LoadBatched2
        | Step::Fill
        | Step::Kill => 0.2 + 4.0 * millions,
        Step::Churn => 12.0 + 20.0 * millions,
        Step::OpenKilled | Step::OpenClean => 0.1 + 0.5 * millions,
        Step::Durable => 16.0,
        Step::Get => 10.0 + millions,
        Step::YcsbA => 18.0 + millions,
        Step::YcsbCfd => 9.0 + millions,
        _ => 4.0 + millions,
    }
}
