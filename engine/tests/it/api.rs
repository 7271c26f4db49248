//! The public API, as a list in a file: who changes it sees that, and says so in the changelog.
//!
//! The list is taken from the sources as `rustfmt` writes them. `CASKADE_BLESS=1 cargo test -p caskade
//! --test it api` writes it anew.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// Where public items stand: all modules of the crate, and those of the crates whose types it exports.
const SOURCES: [&str; 3] = ["src", "../shard/src", "../codec/src"];

/// What the crate exports: `(source, name, exported name)`.
fn exports() -> Vec<(usize, String, String)> {
    let root = read("src/lib.rs");
    let mut all = Vec::new();
    for statement in root.split(';') {
        let Some(found) = statement.rsplit_once("pub use ").map(|(_, found)| found) else {
            continue;
        };
        let source = if found.starts_with("caskade_shard") {
            1
        } else {
            usize::from(found.starts_with("caskade_codec")) * 2
        };
        let names = found.split_once('{').map_or_else(
            || found.rsplit("::").next().expect("a name").to_owned(),
            |(_, names)| names.replace(['}', '\n', ' '], ""),
        );
        all.extend(names.split(',').filter(|name| !name.is_empty()).map(|name| {
            // It is exported by a module of ours under another name.
            let (source, own) =
                if name == "ShardOpenReport" { (1, "ShardReport") } else { (source, name) };
            (source, own.to_owned(), name.to_owned())
        }));
    }
    all
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("it is there")
}

fn files(dir: &Path, all: &mut Vec<String>) {
    let mut entries: Vec<_> = std::fs::read_dir(dir)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push(std::fs::read_to_string(path).expect("a source"));
        }
    }
}

/// The items of one type: its definition with public fields or variants, methods, and traits.
fn items_of(name: &str, source: &str) -> Vec<String> {
    let mut items = Vec::new();
    let mut lines = source.lines().peekable();
    let (mut cfg, mut attributes) = (String::new(), Vec::new());
    while let Some(line) = lines.next() {
        if line == "mod tests {" {
            break;
        }
        if let Some(feature) = line.strip_prefix("#[cfg(feature = ") {
            cfg = format!(" (feature {})", feature.trim_end_matches(")]"));
            continue;
        }
        if line.starts_with("#[derive(") || line == "#[non_exhaustive]" {
            attributes.push(line);
            continue;
        }
        let mut head = line.to_owned();
        let is_open = |head: &str| !head.ends_with([';', '{', '}']);
        let is_item = line.starts_with("pub ") || line.starts_with("impl");
        while is_item && is_open(&head) {
            head = format!("{head} {}", lines.next().expect("it ends").trim());
        }
        let is_block = head.ends_with('{');
        let shown = head.trim_end_matches([' ', '{', ';']).to_owned();
        if !is_item {
            continue;
        }
        let words: Vec<&str> = shown.split([' ', '<', '(', ';', ':', '{']).collect();
        let is_definition = matches!(words.as_slice(), ["pub", "struct" | "enum" | "type", own, ..] if *own == name);
        let is_from = shown.contains(&format!("From<{name}> for "));
        let is_impl = line.starts_with("impl") && (subject(&shown) == name || is_from);
        if is_definition {
            items.extend(attributes.iter().map(|&attribute| attribute.to_owned()));
        }
        attributes.clear();
        if is_definition || is_impl && shown.contains(" for ") {
            items.push(format!("{shown}{cfg}"));
        }
        let is_enum = shown.starts_with("pub enum");
        if !is_block {
            cfg.clear();
            continue;
        }
        while let Some(inner) = lines.next().filter(|inner| *inner != "}") {
            let indented = inner.strip_prefix("    ").unwrap_or(inner);
            let is_variant = is_enum && indented.starts_with(char::is_uppercase);
            let is_member = indented.starts_with("pub ") || is_variant;
            if !is_member || !(is_definition || is_impl) {
                continue;
            }
            let mut member = indented.to_owned();
            let ends = |member: &str| member.ends_with([',', ';', '{', '}']) && balanced(member);
            while !ends(&member) && !member.ends_with('{') {
                member = format!("{member} {}", lines.next().expect("it ends").trim());
            }
            // The fields of a variant stand on lines of their own.
            while is_variant && (member.ends_with('{') || !balanced(&member)) {
                let field = lines.next().expect("it ends").trim();
                if !field.starts_with("///") {
                    member = format!("{member} {field}");
                }
            }
            let member = member.trim_end_matches([' ', ',', '{', ';']);
            let member = member.replace("( ", "(").replace(", )", ")");
            items.push(format!("  {member}{cfg}"));
        }
        cfg.clear();
    }
    items
}

/// The type that an `impl` line is about.
fn subject(head: &str) -> &str {
    let head = head.rsplit_once(" for ").map_or_else(
        || head.trim_start_matches("impl").trim_start_matches(|c| c != ' ').trim(),
        |(_, subject)| subject,
    );
    head.split(['<', ' ']).next().unwrap_or_default()
}

fn balanced(text: &str) -> bool {
    let count = |of: char| text.chars().filter(|c| *c == of).count();
    count('(') == count(')') && (count('{') == count('}') || text.ends_with('{'))
}

fn list() -> String {
    let sources = SOURCES.map(|dir| {
        let mut all = Vec::new();
        files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(dir), &mut all);
        all
    });
    let mut types: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (source, name, exported) in exports() {
        let mut items = Vec::new();
        for text in &sources[source] {
            // Types of this name that others keep to themselves are none of ours.
            let is_here = ["struct", "enum", "type"].iter().any(|kind| {
                [" ", "<", "(", ";"]
                    .iter()
                    .any(|end| text.contains(&format!("pub {kind} {name}{end}")))
            });
            if is_here || source == 0 {
                items.extend(items_of(&name, text));
            }
        }
        types.insert(exported, items);
    }
    let mut out = String::new();
    for (name, items) in types {
        let _ = writeln!(out, "{name}\n{}\n", items.join("\n"));
    }
    out
}

#[test]
fn the_list_is_what_the_sources_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("API.txt");
    let now = list();
    if std::env::var_os("CASKADE_BLESS").is_some() {
        std::fs::write(&path, &now).expect("writes");
    }
    let before = std::fs::read_to_string(&path).expect("the list");
    for (old, new) in before.lines().zip(now.lines()) {
        assert_eq!(old, new, "the public API changed: CASKADE_BLESS=1 writes API.txt anew");
    }
    assert_eq!(before.lines().count(), now.lines().count(), "see CASKADE_BLESS");
    for known in ["  pub fn put(&self, key: &[u8], value: &[u8]) -> Result<Version>", "  NoSpace {"]
    {
        assert!(now.contains(known), "{known}");
    }
    assert!(!now.contains("pub(crate)"));
}
