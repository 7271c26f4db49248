//! Figures, plots, benchmarks, and what Ctrl-C does to long work.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Home, Ran, caskade, command};

fn interrupt(child: &std::process::Child) {
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

#[test]
fn a_plot_has_every_shard_and_segment() {
    let home = Home::new();
    home.fill(500);
    home.fill(500);
    let file = home.path("plot.svg");
    let ran = home.run("stats", &["--plot", file.to_str().unwrap()]);
    assert_eq!(ran.ok(), "");
    assert!(ran.stderr.contains("drawn into"));
    let svg = std::fs::read_to_string(&file).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    assert!(svg.contains("prefers-color-scheme: dark"));
    let stats = home.run("stats", &["--json", "--segments"]);
    let stats: Value = serde_json::from_str(stats.ok()).unwrap();
    let segments = stats["segments"].as_array().unwrap();
    assert!(!segments.is_empty());
    for one in segments {
        assert!(svg.contains(&format!("segment {}: ", one["segment"])), "{one}");
    }
    assert!(svg.contains("shard 0: ") && svg.contains("shard 1: "));
    home.run("stats", &["--plot", "/no/such/folder/x.svg"]).fails(5, "write /no/such/folder");
}

#[test]
fn watching_sees_what_is_written_and_ends_with_ctrl_c() {
    let home = Home::new();
    home.fill(10);
    let store = home.store();
    let args = ["stats", store.to_str().unwrap(), "--watch", "50ms", "--json"];
    let mut child = command(&args).stdin(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut keys = || {
        let line = lines.next().unwrap().unwrap();
        serde_json::from_str::<Value>(&line).unwrap()["total"]["keys"].as_u64().unwrap()
    };
    assert_eq!(keys(), 10);
    home.run("put", &["another", "1"]).ok();
    while keys() != 11 {}
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0), "that is how a watch ends");
}

#[test]
fn a_benchmark_measures_and_tidies_up() {
    let home = Home::new();
    let ran = home.run("bench", &["--records", "2000", "--time", "500ms", "--value-bytes", "50"]);
    for mix in ["load  put", "A     read", "A     update", "B ", "C ", "D     insert", "F     rmw"]
    {
        assert!(ran.ok().contains(mix), "{mix}: {}", ran.text());
    }
    assert!(!home.store().exists());

    home.fill(20);
    let args = ["--records", "2000", "--time", "500ms", "--mixes", "d,A"];
    home.run("bench", &args).fails(2, "nothing is written over it");
    let existing =
        [&args[..], &["--existing", "--json", "--durable", "--value-bytes", "10"]].concat();
    let report: Value = serde_json::from_str(home.run("bench", &existing).ok()).unwrap();
    assert_eq!(report["runs"][0]["operation"], "put");
    assert_eq!(report["runs"][1]["mix"], "D");
    assert!(report["runs"][1]["p99_ns"].as_u64().unwrap() > 0);
    assert_eq!(home.run("count", &[""; 0]).ok(), "20\n", "its keys are gone, the others stay");
    home.run("bench", &["--mixes", "e"]).fails(2, "possible values: a, b, c, d, f");
}

/// Sends Ctrl-C after a while, until it hits a command at work.
fn interrupted(args: &[&str]) -> Ran {
    for wait in [5, 10, 20, 40, 80, 3] {
        let mut child = command(args).stdin(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        interrupt(&child);
        // As `timeout` does it. A person's second Ctrl-C comes later, and ends the process at once.
        interrupt(&child);
        drop(child.stdin.take());
        let output = child.wait_with_output().unwrap();
        // A process that has not begun to listen dies of the signal.
        if output.status.code().is_some() {
            let ran = Ran::new(output);
            if ran.code == 130 {
                return ran;
            }
        }
    }
    panic!("no Ctrl-C hit {args:?}");
}

#[test]
fn long_work_stops_cleanly() {
    let home = Home::new();
    let db = caskade::Db::builder(home.store()).shards(2).open().unwrap();
    for round in 0..2_u8 {
        for i in 0..150_000_u32 {
            db.put(&i.to_le_bytes(), &[round; 100]).unwrap();
        }
    }
    db.close().unwrap();
    let path = |name: &str| home.path(name).to_str().unwrap().to_owned();
    let store = path("store");
    for args in [
        &["export", &store, "--file", &path("dump")][..],
        &["scan", &store, "--prefix", "no such key"],
        &["reshard", &store, "5"],
        &["repair", &store, "--into", &path("saved")],
        &["bench", &path("bench"), "--records", "1000000"],
    ] {
        let ran = interrupted(args);
        assert!(ran.stderr.ends_with("caskade: interrupted\n"), "{args:?}: {}", ran.stderr);
    }
    let left: Vec<_> = std::fs::read_dir(home.path("")).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing is left lying about: {left:?}");
    assert_eq!(home.run("count", &["--exact"]).ok(), "150000\n");
    assert!(caskade(&["verify", &store], b"").ok().contains("all are as they were written"));
}

/// Whoever waits for input does not look whether to stop.
#[test]
fn waiting_for_input_ends_with_ctrl_c() {
    let home = Home::new();
    home.fill(10);
    let store = home.store();
    let store = store.to_str().unwrap();
    for args in [&["put", store, "k"][..], &["import", store]] {
        let mut child = command(args).stdin(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(300));
        interrupt(&child);
        let stdin = child.stdin.take();
        let begun = Instant::now();
        let ran = Ran::new(child.wait_with_output().unwrap());
        assert_eq!((ran.code, ran.stderr.as_str()), (130, "caskade: interrupted\n"), "{args:?}");
        assert!(begun.elapsed() < Duration::from_secs(10));
        drop(stdin);
    }
    assert_eq!(home.run("count", &[""; 0]).ok(), "10\n");
}
