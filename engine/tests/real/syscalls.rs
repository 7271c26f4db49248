//! SIGKILL at every system call of a fixed workload.
//!
//! `strace` kills the process as it enters its n-th call of a kind, for every kind that the workload
//! makes and every n. The workload has one thread that writes and does the background work too, so
//! that the calls are nearly the same each time; what rayon's threads do is counted per thread.

use std::collections::BTreeMap;
use std::path::Path;

use caskade::Background;

use crate::child::Records;
use crate::model::Blow;
use crate::script::Plan;
use crate::witness::Witness;
use crate::{count, say};

/// Nothing changes between two of these that a kill could tell apart.
const WITHOUT_EFFECT: [&str; 8] = [
    "futex",
    "sched_yield",
    "sched_getaffinity",
    "rt_sigprocmask",
    "sigaltstack",
    "rseq",
    "set_robust_list",
    "getrandom",
];

/// Of a kind, about so many calls are made while a store opens.
const RECOVERY_CALLS: u64 = 12;

fn plan(store: u64) -> Plan {
    Plan { store, life: 1, writers: 1, steps: 60, background: Background::Manual }
}

#[test]
fn a_process_killed_at_every_system_call_loses_nothing_acknowledged() {
    let traces =
        std::process::Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    if !traces.is_ok_and(|status| status.success()) {
        say("SKIPPED: strace is missing or may not trace; nobody was killed at a system call");
        return;
    }
    let (mut kills, mut survivals) = (0, 0);
    let every = count("CASKADE_EVERY_CALL", 1);
    for store in 0..count("CASKADE_TRACED_STORES", 2) {
        for (call, (first, last)) in calls(store) {
            for number in (first..=last).step_by(every as usize) {
                if kill_at(store, &call, first, number) {
                    kills += 1;
                } else {
                    survivals += 1;
                }
            }
        }
    }
    say(&format!("{kills} processes killed at a system call; {survivals} did not come that far"));
    assert!(kills > survivals, "{survivals} processes came to their end");
}

/// For each kind of call the numbers of the first and the last that the store makes.
fn calls(store: u64) -> BTreeMap<String, (u64, u64)> {
    let dir = tempfile::tempdir().expect("a directory");
    let home = dir.path().join("db");
    let plan = plan(store);
    drop(Witness::new(&plan, &home));
    let records = Records::new();
    let status = records.traced_child(&plan, &home, &[]).status().expect("starts");
    assert!(status.success());
    let trace = std::fs::read_to_string(records.trace()).expect("a trace");
    let mut before = true;
    let mut by_thread: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    let mut ranges: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for line in trace.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((call, _)) = rest.trim_start().split_once('(') else { continue };
        if call.starts_with("<...") || WITHOUT_EFFECT.contains(&call) {
            continue;
        }
        before &= !rest.contains("/the-child-begins");
        let number = by_thread.entry((thread, call)).or_default();
        *number += 1;
        if !before {
            let range = ranges.entry(call.to_owned()).or_insert((*number, *number));
            *range = (range.0.min(*number), range.1.max(*number));
        }
    }
    assert!(ranges.contains_key("fdatasync") && ranges.contains_key("rename"), "{ranges:?}");
    ranges
}

/// Whether the process came so far. The one that recovers from it is killed early as well.
fn kill_at(store: u64, call: &str, first: u64, number: u64) -> bool {
    let dir = tempfile::tempdir().expect("a directory");
    let home = dir.path().join("db");
    let plan = plan(store);
    let mut witness = Witness::new(&plan, &home);
    let records = Records::new();
    let was_killed = end(&records, &plan, &home, call, number);
    let acknowledged = records.read(&plan);
    witness.heard(&plan, &acknowledged, &acknowledged);
    let again = Plan { steps: 0, ..plan.clone() };
    end(&records, &again, &home, call, first + number % RECOVERY_CALLS);
    witness.check(&plan, Blow::Kill);
    was_killed
}

fn end(records: &Records, plan: &Plan, home: &Path, call: &str, number: u64) -> bool {
    let injection = format!("inject={call}:signal=KILL:when={number}");
    let options = ["-e", &format!("trace={call}"), "-e", &injection];
    let status = records.traced_child(plan, home, &options).status().expect("starts");
    // strace ends as its child did.
    !status.success()
}
