//! Reading, writing, scanning.

use std::collections::BTreeSet;
use std::process::Stdio;

use serde_json::Value;

use crate::{Home, Ran, caskade, command};

#[test]
fn a_value_goes_in_and_comes_out() {
    let home = Home::new();
    assert_eq!(home.run("put", &["--create", "greeting", "hello"]).ok(), "");
    // Where stdout is no terminal, the value comes as it is.
    assert_eq!(home.run("get", &["greeting"]).ok(), "hello");
    assert_eq!(home.run("get", &["greeting", "--out", "hex"]).ok(), "68656c6c6f\n");
    home.run("get", &["nobody"]).fails(1, "there is no key 'nobody'");
    assert_eq!(home.run("del", &["greeting"]).ok(), "");
    home.run("get", &["greeting"]).fails(1, "there is no key 'greeting'");
    home.run("del", &["greeting", "other"]).fails(1, "there is no key 'other'");
}

#[test]
fn any_bytes_go_through_stdin_and_files() {
    let home = Home::new();
    let all: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let store = home.store();
    let store = store.to_str().unwrap();
    caskade(&["put", "--create", store, "piped"], &all).ok();
    let piped = home.run("get", &["piped"]);
    assert!(piped.code == 0 && piped.stdout == all);

    let file = home.path("value");
    std::fs::write(&file, &all).unwrap();
    home.run("put", &["from-file", "--file", file.to_str().unwrap()]).ok();
    assert!(home.run("get", &["from-file", "--out", "raw"]).stdout == all);
    home.run("put", &["x", "--file", "/nowhere/at/all"]).fails(5, "read /nowhere/at/all");
}

#[test]
fn keys_are_written_as_they_are_printed() {
    let home = Home::new();
    home.run("put", &["--create", r"a\x00\\b", "1"]).ok();
    assert_eq!(home.run("scan", &["--keys-only"]).ok(), "a\\x00\\\\b\n");
    assert_eq!(home.run("get", &["61005c62", "--in", "hex"]).ok(), "1");
    home.run("get", &[r"a\q"]).fails(2, "use --in raw");
    home.run("get", &["abc", "--in", "hex"]).fails(2, "hexadecimal");
    home.run("get", &["abc", "--json", "--out", "raw"]).fails(2, "JSON holds text only");
    home.run("scan", &["--cursor", "next"]).fails(2, "that an earlier scan ended with");
}

#[test]
fn a_value_that_is_there_can_be_left_alone() {
    let home = Home::new();
    home.run("put", &["--create", "k", "1", "--if-absent"]).ok();
    home.run("put", &["k", "2", "--if-absent"]).fails(1, "left as it was");
    assert_eq!(home.run("get", &["k"]).ok(), "1");
    home.run("put", &["lease", "mine", "--if-absent", "--ttl", "7d"]).ok();
    let lease: Value = serde_json::from_str(home.run("get", &["lease", "--json"]).ok()).unwrap();
    assert!(lease["expires_at_unix_ms"].is_u64(), "{lease}");
}

#[test]
fn a_ttl_ends() {
    let home = Home::new();
    home.run("put", &["--create", "short", "1", "--ttl", "1ms"]).ok();
    home.run("put", &["long", "1", "--ttl", "7d"]).ok();
    std::thread::sleep(std::time::Duration::from_millis(20));
    home.run("get", &["short"]).fails(1, "there is no key");
    let long: Value = serde_json::from_str(home.run("get", &["long", "--json"]).ok()).unwrap();
    assert_eq!((&long["key"], &long["value"]), (&"long".into(), &"1".into()));
    assert!(long["expires_at_unix_ms"].as_u64().unwrap() > 1_700_000_000_000);
    assert_eq!(home.run("count", &["--exact"]).ok(), "1\n");
    home.run("put", &["x", "1", "--ttl", "0s"]).fails(2, "more than nothing");
    home.run("put", &["x", "1", "--ttl", "soon"]).fails(2, "500ms, 90s, 15m, 2h or 7d");
}

#[test]
fn a_scan_can_be_resumed_and_sees_every_key_once() {
    let home = Home::new();
    home.fill(500);
    let (mut seen, mut cursor) = (BTreeSet::new(), String::from("0"));
    loop {
        let page =
            home.run("scan", &["--limit", "37", "--keys-only", "--json", "--cursor", &cursor]);
        let mut next = None;
        for line in page.ok().lines() {
            let object: Value = serde_json::from_str(line).unwrap();
            match object["next_cursor"].as_str() {
                Some(at) => next = Some(at.to_owned()),
                None => assert!(seen.insert(object["key"].as_str().unwrap().to_owned()), "{line}"),
            }
        }
        let Some(next) = next else { break };
        assert!(page.stderr.contains(&format!("--cursor {next}")));
        cursor = next;
    }
    assert_eq!(seen, (0..500).map(|i| format!("key:{i:03}")).collect());
}

#[test]
fn a_prefix_picks_keys() {
    let home = Home::new();
    home.fill(200);
    let lines: BTreeSet<String> =
        home.run("scan", &["--prefix", "key:19"]).ok().lines().map(str::to_owned).collect();
    assert_eq!(lines, (190..200).map(|i| format!("key:{i}\tkey:{i} value")).collect());
    assert_eq!(home.run("count", &["--prefix", "key:19"]).ok(), "10\n");
    assert_eq!(home.run("count", &[""; 0]).ok(), "200\n");
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let home = Home::new();
    home.fill(20_000);
    let store = home.store();
    let mut child =
        command(&["scan", store.to_str().unwrap()]).stdin(Stdio::null()).spawn().unwrap();
    drop(child.stdout.take());
    let ran = Ran::new(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
}

#[test]
fn figures_are_json_too() {
    let home = Home::new();
    home.fill(300);
    let stats: Value = serde_json::from_str(home.run("stats", &["--json"]).ok()).unwrap();
    assert_eq!(stats["total"]["keys"], 300);
    assert_eq!(stats["shards"].as_array().unwrap().len(), 2);
    let text = home.run("stats", &["--shards"]);
    assert!(text.ok().lines().any(|line| line.starts_with("keys") && line.contains("300")));
}

#[test]
fn compacting_gives_space_back() {
    let home = Home::new();
    home.fill(2_000);
    home.fill(2_000);
    let report: Value = serde_json::from_str(home.run("compact", &["--json"]).ok()).unwrap();
    let bytes = |name: &str| report[name].as_u64().unwrap();
    // The background may have been quicker; either way one record of a key is left, of some 44 bytes.
    assert!(bytes("total_bytes_after") <= bytes("total_bytes_before"), "{report}");
    assert!(bytes("total_bytes_after") < 2_000 * 60, "{report}");
    assert_eq!(home.run("get", &["key:1999"]).ok(), "key:1999 value");
}

#[test]
fn a_backup_opens_and_grows() {
    let home = Home::new();
    home.fill(100);
    let backup = home.path("backup");
    let backup = backup.to_str().unwrap();
    home.run("backup", &[backup]).ok();
    assert_eq!(caskade(&["count", backup], b"").ok(), "100\n");
    home.run("put", &["another", "1"]).ok();
    assert_eq!(caskade(&["count", backup], b"").ok(), "100\n");
    let report: Value = serde_json::from_str(home.run("backup", &[backup, "--json"]).ok()).unwrap();
    assert!(report["segments_kept"].as_u64().unwrap() > 0, "{report}");
    assert_eq!(caskade(&["count", backup], b"").ok(), "101\n");
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = caskade(&["completions", shell], b"");
        assert!(script.ok().contains("inspect") && script.ok().contains("if-absent"), "{shell}");
    }
}
