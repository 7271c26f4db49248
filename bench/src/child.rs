//! Steps in a process of their own: memory is counted from nothing, and a process can be killed.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bench::measure::{anonymous_bytes, process_time};
use bench::workload::{Values, key};
use caskade::Db;

use crate::Outcome;
use crate::args::Args;

/// Does one step. `args.dir` is the store itself.
pub(crate) fn run(what: &str, args: &Args) -> Outcome<()> {
    match what {
        "open" => open(args),
        "load" => load(args),
        "memory" => memory(args),
        "fill" => crate::scale::fill(args),
        "reopen" => crate::scale::reopen(args),
        _ => Err("an unknown step".into()),
    }
}

fn say(figure: u128, second: u128) -> Outcome<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{figure} {second}")?;
    out.flush()?;
    Ok(())
}

/// Opens the store, says how many nanoseconds that took, of the clock and of all processors, and closes it.
fn open(args: &Args) -> Outcome<()> {
    let (begun, processor_begun) = (Instant::now(), process_time());
    let db = Db::open(&args.dir)?;
    let (elapsed, processor) = (begun.elapsed(), process_time().saturating_sub(processor_begun));
    if db.len() != args.keys {
        return Err(format!("{} keys instead of {}", db.len(), args.keys).into());
    }
    say(elapsed.as_nanos(), processor.as_nanos())?;
    db.close()?;
    Ok(())
}

/// Loads the store and waits to be killed.
fn load(args: &Args) -> Outcome<()> {
    let db = Db::open(&args.dir)?;
    fill(&db, args.keys)?;
    say(0, 0)?;
    // Ends, too, when the parent is gone.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Loads the store and says by how many bytes anonymous memory grew.
fn memory(args: &Args) -> Outcome<()> {
    let db = Db::open(&args.dir)?;
    let before = anonymous_bytes();
    fill(&db, args.keys)?;
    wait_for_rest(&db);
    say(u128::from(anonymous_bytes().saturating_sub(before)), 0)?;
    db.close()?;
    Ok(())
}

fn fill(db: &Db, keys: u64) -> Outcome<()> {
    let values = Values::new();
    for i in 0..keys {
        db.put(&key(i), values.get(i, 0))?;
    }
    Ok(())
}

/// Waits until the background has nothing left to seal or merge, nor to make of what an open left to it.
pub(crate) fn wait_for_rest(db: &Db) {
    let mut last = (0, 0, 0);
    for _ in 0..200 {
        std::thread::sleep(Duration::from_millis(150));
        let stats = db.stats().total;
        let now = (stats.sealed, stats.merges, anonymous_bytes());
        if now == last {
            return;
        }
        last = now;
    }
}

fn step(what: &str, dir: &Path, keys: u64) -> Outcome<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["child", what, "--keys", &keys.to_string(), "--dir"]).arg(dir);
    Ok(command)
}

fn spawn(what: &str, dir: &Path, keys: u64) -> Outcome<Child> {
    Ok(step(what, dir, keys)?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?)
}

fn listen(child: &mut Child) -> Outcome<(f64, f64)> {
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    let figures: Vec<f64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match figures[..] {
        [first, second] => Ok((first, second)),
        _ => Err("the child failed".into()),
    }
}

/// The figures that a step says.
pub(crate) fn ask(what: &str, dir: &Path, keys: u64) -> Outcome<(f64, f64)> {
    let mut child = spawn(what, dir, keys)?;
    let figures = listen(&mut child)?;
    if !child.wait()?.success() {
        return Err(format!("the step {what} failed").into());
    }
    Ok(figures)
}

/// What a step says, as it words it.
pub(crate) fn hear(what: &str, dir: &Path, keys: u64) -> Outcome<String> {
    let output = step(what, dir, keys)?.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("the step {what} failed").into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Loads a store in another process and kills that process.
pub(crate) fn load_and_kill(dir: &Path, keys: u64) -> Outcome<()> {
    let mut child = spawn("load", dir, keys)?;
    let loaded = listen(&mut child);
    child.kill()?;
    child.wait()?;
    loaded.map(|_| ())
}
