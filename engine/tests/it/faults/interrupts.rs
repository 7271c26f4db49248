//! Signals that interrupt system calls, on the real file system: nobody may notice.
//!
//! `strace` makes every other call of a kind end with `EINTR`. Where there is no `strace`, or it may
//! not trace, the test says so and proves nothing.

use std::process::Command;

use caskade::{Db, Durability};

const CHILD_HOME: &str = "CASKADE_TEST_INTERRUPTED_HOME";

/// The calls of the store that a signal may interrupt. The first of a kind are the loader's.
const CALLS: [&str; 9] = [
    "openat",
    "pread64",
    "pwrite64",
    "fsync",
    "fdatasync",
    "ftruncate",
    "fallocate",
    "flock",
    "getrandom",
];
const LOADER_CALLS: u32 = 7;

/// Not a test of its own: the process whose calls are interrupted.
#[test]
fn child_that_is_interrupted() {
    let Some(home) = std::env::var_os(CHILD_HOME) else { return };
    for life in 0..8_u32 {
        let options = Db::builder(&home)
            .shards(2)
            .segment_bytes_max(16 << 10)
            .segment_bytes_min(4096)
            .durability(Durability::Sync);
        let db = options.open().expect("opens");
        for key in 0..20_u32 {
            let found = db.get(&key.to_le_bytes()).expect("gets").map(Vec::from);
            assert_eq!(found, (life > 0).then(|| vec![life as u8 - 1; 1500]));
            db.put(&key.to_le_bytes(), &[life as u8; 1500]).expect("puts");
        }
        db.compact().expect("compacts");
        assert!(db.verify(|_| true).expect("verifies").is_clean());
        db.close().expect("closes");
    }
    println!("the child came to its end");
}

#[test]
fn interrupted_calls_are_repeated() {
    let traces = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    if !traces.is_ok_and(|status| status.success()) {
        println!("SKIPPED: strace is missing or may not trace; nothing was interrupted");
        return;
    }
    let program = std::env::current_exe().expect("this test has a file");
    for call in CALLS {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("trace");
        let from = if call == "openat" || call == "pread64" { LOADER_CALLS } else { 1 };
        let output = Command::new("strace")
            .args(["-f", "-qq", "-e", &format!("inject={call}:error=EINTR:when={from}+2"), "-e"])
            .args([&format!("trace={call}"), "-o"])
            .arg(&log)
            .arg(&program)
            .args(["child_that_is_interrupted", "--test-threads=1", "--nocapture"])
            .env(CHILD_HOME, dir.path().join("db"))
            .output()
            .expect("starts");
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("the child came to its end"), "{call}: {said}");
        let trace = std::fs::read_to_string(&log).expect("a trace");
        assert!(
            trace.contains("EINTR") && trace.contains("INJECTED"),
            "{call}: never interrupted:\n{trace}"
        );
    }
}
