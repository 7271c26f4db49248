//! The demo, on few records.

use serde_json::Value;

use crate::{Home, caskade};

#[test]
fn it_works_without_a_terminal() {
    let home = Home::new();
    let folder = home.path("demo");
    let ran = caskade(&["demo", "--records", "5000", "--dir", folder.to_str().unwrap()], b"");
    let text = ran.ok();
    assert!(text.contains("every acknowledged write is there"), "{text}");
    assert!(text.contains("p99.9") && text.contains("Space amplification"), "{text}");
    assert_eq!(text.find(|char: char| char.is_control() && char != '\n'), None);
    assert_eq!(ran.stderr, "");
    assert!(!folder.exists(), "it tidies up");
}

#[test]
fn it_is_json_too() {
    let home = Home::new();
    let folder = home.path("demo");
    let args = [
        "demo",
        "--records",
        "2000",
        "--json",
        "--keep",
        "--threads",
        "1",
        "--dir",
        folder.to_str().unwrap(),
    ];
    let report: Value = serde_json::from_str(caskade(&args, b"").ok()).unwrap();
    assert_eq!(report["recovery"]["lost"], 0);
    assert!(report["recovery"]["acknowledged"].as_u64().unwrap() > 0);
    let names: Vec<&str> = report["operations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names[0], "put, new key");
    assert_eq!(report["operations"][0]["calls"], 2000);
    // What it leaves with --keep is a store.
    let store = folder.join("store");
    caskade(&["verify", store.to_str().unwrap()], b"").ok();
    caskade(&args, b"").fails(2, "exists; the demo wants a folder of its own");
}
