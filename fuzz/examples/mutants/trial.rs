//! Lets each mutant meet the tests that come by its place, until one fails.

use std::collections::HashMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, available_parallelism};
use std::time::{Duration, Instant};
use std::{env, fs};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use crate::{Mutant, Numbers};

/// What is built and run against each mutant.
const SUITES: &str = "-p caskade-shard --lib -p caskade --test it --test crash";
/// Seeds of the crash simulation, unless the environment says otherwise.
const SEEDS: &str = "0..300";
/// A test that takes as many times as long as it does without a mutant, and some, hangs.
const PATIENCE: u32 = 15;
const PATIENCE_MIN: Duration = Duration::from_secs(8);

/// One test of one program.
struct Test {
    program: PathBuf,
    folder: PathBuf,
    name: String,
    /// How long it takes by itself.
    time: Duration,
    /// The mutants whose places it comes by.
    meets: Numbers,
    /// Mutants that it found.
    found: AtomicUsize,
}

/// All tests.
pub(crate) struct Tests(Vec<Test>);

/// Does `work` for each number below `count`, on all processors.
fn for_each(count: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    let workers = available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return;
                    }
                    work(index);
                }
            });
        }
    });
}

impl Tests {
    /// Builds the tests of `tree`, and finds out what they come by.
    pub(crate) fn build(tree: &Path) -> Self {
        let built = Command::new("cargo")
            .args(["test", "--quiet", "--locked", "--no-run", "--message-format=json"])
            .args(SUITES.split(' '))
            .current_dir(tree)
            .stderr(Stdio::inherit())
            .output()
            .expect("cargo runs");
        assert!(built.status.success(), "the tests do not compile");
        let mut tests = Vec::new();
        for line in String::from_utf8_lossy(&built.stdout).lines() {
            let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
            let (Some(program), Some(manifest)) =
                (message["executable"].as_str(), message["manifest_path"].as_str())
            else {
                continue;
            };
            let folder = Path::new(manifest).parent().expect("a package has a folder");
            let listed = Command::new(program).arg("--list").current_dir(folder).output();
            let listed = listed.expect("the program lists its tests").stdout;
            for line in String::from_utf8_lossy(&listed).lines() {
                let Some(name) = line.strip_suffix(": test") else { continue };
                tests.push(Test {
                    program: program.into(),
                    folder: folder.into(),
                    name: name.to_owned(),
                    time: Duration::ZERO,
                    meets: Numbers::new(),
                    found: AtomicUsize::new(0),
                });
            }
        }
        let tests: Vec<_> = tests.into_iter().map(Mutex::new).collect();
        for_each(tests.len(), |index| {
            tests[index].lock().expect("one at a time").get_to_know(index);
        });
        Self(tests.into_iter().map(|test| test.into_inner().expect("not poisoned")).collect())
    }

    /// Tries the mutants, and answers those that no test finds.
    pub(crate) fn try_all(&self, mutants: &[Mutant], numbers: &[usize]) -> Numbers {
        let alive = Mutex::new(Numbers::new());
        for_each(numbers.len(), |index| {
            let number = numbers[index];
            let by = self.found_by(number);
            let verdict = by.as_deref().unwrap_or("ALIVE");
            println!("{}: {verdict}", mutants[number - 1].name);
            if by.is_none() {
                alive.lock().expect("not poisoned").insert(number);
            }
        });
        alive.into_inner().expect("not poisoned")
    }

    fn found_by(&self, number: usize) -> Option<String> {
        let mut tests: Vec<_> = self.0.iter().filter(|test| test.meets.contains(&number)).collect();
        // What found many so far will find more; what takes long waits.
        let worth = |test: &&Test| {
            (test.time + Duration::from_millis(10))
                / (1 + test.found.load(Ordering::Relaxed) as u32)
        };
        let costs: HashMap<&str, Duration> =
            tests.iter().map(|test| (test.name.as_str(), worth(test))).collect();
        tests.sort_by_key(|test| costs[test.name.as_str()]);
        let test = tests.into_iter().find(|test| test.fails(number))?;
        test.found.fetch_add(1, Ordering::Relaxed);
        Some(test.name.clone())
    }
}

impl Test {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(["--exact", &self.name, "--test-threads=1"])
            .current_dir(&self.folder)
            .env("CASKADE_SEEDS", env::var("CASKADE_SEEDS").unwrap_or(SEEDS.to_owned()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Its children end with it.
            .process_group(0);
        command
    }

    /// Runs it without a mutant.
    fn get_to_know(&mut self, index: usize) {
        let met = env::temp_dir().join(format!("mutants-met-{}-{index}", std::process::id()));
        fs::write(&met, vec![0; 1 << 16]).expect("writes a file");
        let begin = Instant::now();
        let status = self.command().env("MUTANTS_MET", &met).status().expect("the test runs");
        self.time = begin.elapsed();
        assert!(status.success(), "{} fails without a mutant", self.name);
        let bytes = fs::read(&met).expect("reads the file");
        self.meets = (0..).zip(bytes).filter(|(_, byte)| *byte != 0).map(|(at, _)| at).collect();
        let _ = fs::remove_file(met);
    }

    /// Whether it fails, or never ends, while the mutant lives.
    fn fails(&self, number: usize) -> bool {
        let child = self.command().env("MUTANT", number.to_string()).spawn();
        let mut child = child.expect("the test runs");
        let end = Instant::now() + PATIENCE_MIN + self.time * PATIENCE;
        let succeeded = loop {
            match child.try_wait().expect("it is our child") {
                Some(status) => break status.success(),
                None if Instant::now() > end => break false,
                None => thread::sleep(Duration::from_millis(2)),
            }
        };
        let group = Pid::from_child(&child);
        let _ = kill_process_group(group, Signal::KILL);
        let _ = child.wait();
        !succeeded
    }
}
