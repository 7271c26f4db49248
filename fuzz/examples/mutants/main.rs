//! Mutants of a crate, all in one build: `scripts/mutants` runs it.
//!
//! A mutant is a place in the source changed as cargo-mutants lists it. Building each costs a minute,
//! and running all tests against each costs another. Here all of them are built at once, behind a
//! switch that reads an environment variable ([`rewrite`]), and each meets only the tests that come
//! by its place, the quickest first, until one fails ([`trial`]).

mod rewrite;
mod trial;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs};

use serde_json::Value;

/// A place and what is put there, as cargo-mutants lists it.
struct Mutant {
    /// What it is, for people.
    name: String,
    /// The file, from the workspace's root.
    file: String,
    /// The kind of place.
    genre: String,
    /// Where the place begins: line and column, from 1.
    start: (usize, usize),
    /// What stands there instead.
    replacement: String,
}

/// Numbers of mutants, which begin at 1: 0 is none.
type Numbers = BTreeSet<usize>;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [list, original, tree, package] = &arguments[..] else {
        panic!("usage: mutants LIST.json SOURCE TREE PACKAGE_FOLDER; see scripts/mutants");
    };
    let mutants = read_list(Path::new(list));
    let (original, tree) = (Path::new(original), Path::new(tree));
    let (left_out, refused) = fit(&mutants, original, tree, package);
    let tests = trial::Tests::build(tree);
    let tried = |number: &usize| !left_out.contains(number) && !refused.contains(number);
    let numbers: Vec<_> = (1..=mutants.len()).filter(tried).collect();
    let alive = tests.try_all(&mutants, &numbers);
    println!("{} mutants, {} do not compile", mutants.len(), refused.len());
    for number in &left_out {
        println!("not tried, for it cannot be switched: {}", mutants[number - 1].name);
    }
    println!("{} tried, {} alive:", numbers.len(), alive.len());
    for number in alive {
        println!("  {}", mutants[number - 1].name);
    }
}

fn read_list(path: &Path) -> Vec<Mutant> {
    let text = fs::read_to_string(path).expect("the list of mutants");
    let list: Vec<Value> = serde_json::from_str(&text).expect("a list in JSON");
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let number = |value: &Value| value.as_u64().expect("a number") as usize;
    list.iter()
        .map(|item| {
            let start = &item["span"]["start"];
            Mutant {
                name: text(&item["name"]),
                file: text(&item["file"]),
                genre: text(&item["genre"]),
                start: (number(&start["line"]), number(&start["column"])),
                replacement: text(&item["replacement"]),
            }
        })
        .collect()
}

/// Rewrites the package until it compiles. Answers the mutants that have no switch, and those that
/// the compiler refuses.
fn fit(mutants: &[Mutant], original: &Path, tree: &Path, package: &str) -> (Numbers, Numbers) {
    let mut refused = Numbers::new();
    loop {
        let copied = Command::new("cp")
            .args(["-r", "--"])
            .args([original.join(package).join("src"), tree.join(package)])
            .status();
        assert!(copied.expect("cp runs").success(), "copies the sources");
        let left_out = rewrite::rewrite(mutants, &refused, tree);
        rewrite::add_switch(&tree.join(package).join("src"));
        let check = Command::new("cargo")
            .args(["check", "--quiet", "--locked", "--message-format=json"])
            .current_dir(tree.join(package))
            .stderr(Stdio::null())
            .output()
            .expect("cargo runs");
        if check.status.success() {
            return (left_out, refused);
        }
        let found = rewrite::blamed(&String::from_utf8_lossy(&check.stdout), tree);
        assert!(!found.is_empty(), "the package does not compile, and no mutant is to blame");
        eprintln!("{} mutants do not compile", found.len());
        refused.extend(found);
    }
}
