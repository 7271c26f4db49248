//! Where and how a run was made, for whoever wants to make it again.

use std::fs;
use std::path::Path;
use std::process::Command;

use bench::measure::load_average;
use serde::Serialize;

/// What a run's figures depend on beside the stores.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Machine {
    pub(crate) date: String,
    /// Of this project, as it lies where it was built.
    pub(crate) commit: String,
    pub(crate) compiler: String,
    /// The options, but where the files went.
    pub(crate) options: String,
    pub(crate) hardware: String,
    pub(crate) kernel: String,
    pub(crate) file_system: String,
    /// Whether the system gives pages of 2 MB.
    pub(crate) huge_pages: String,
    /// The load averages before the run.
    pub(crate) load: String,
}

impl Machine {
    /// This one. The stores are to lie in `root`.
    pub(crate) fn new(root: &Path, options: String) -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let info = read("/proc/cpuinfo");
        let model = info.lines().find(|line| line.starts_with("model name"));
        let model = model.and_then(|line| line.split(": ").nth(1)).unwrap_or("processor");
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let memory = read("/proc/meminfo");
        let kib = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
        let gib = kib.unwrap_or(0) as f64 / f64::from(1 << 20);
        let huge_pages = read("/sys/kernel/mm/transparent_hugepage/enabled");
        let chosen = huge_pages.split(['[', ']']).nth(1).unwrap_or("not there");
        let source = env!("CARGO_MANIFEST_DIR");
        Self {
            date: said("date", &["-u", "+%F"]),
            commit: said("git", &["-C", source, "describe", "--always", "--dirty", "--abbrev=10"]),
            compiler: said("rustc", &["--version"]),
            options,
            hardware: format!("{cores} cores of {model}, {gib:.0} GiB"),
            kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
            file_system: file_system(root).unwrap_or_default(),
            huge_pages: chosen.to_owned(),
            load: load_average(),
        }
    }

    /// In a sentence.
    pub(crate) fn text(&self) -> String {
        let Self { hardware, kernel, file_system, huge_pages, load, compiler, commit, .. } = self;
        let mut text = format!(
            "{hardware}, {kernel}, {file_system}, transparent huge pages {huge_pages}, load before {load}; {compiler}, commit {commit}"
        );
        if commit.ends_with("-dirty") {
            text.push_str(" (**with changes that are not committed**)");
        }
        let newest = load.split(' ').next().and_then(|load| load.parse::<f64>().ok());
        if newest.is_none_or(|load| load > 0.5) {
            text.push_str(" (**not alone on the machine at the start**)");
        }
        text
    }
}

/// The first line that a command says.
fn said(command: &str, words: &[&str]) -> String {
    let output = Command::new(command).args(words).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.unwrap_or_default().lines().next().unwrap_or("unknown").to_owned()
}

/// The file system that a directory lies on, with its options.
fn file_system(dir: &Path) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = |line: &str| {
        let mut words = line.split(' ').skip(1);
        let (at, kind, options) = (words.next()?, words.next()?, words.next()?);
        dir.starts_with(at).then(|| (at.len(), format!("{kind} ({options})")))
    };
    // Of those mounted at one place, the last one hides the others.
    Some(mounts.lines().filter_map(mount).max_by_key(|(len, _)| *len)?.1)
}
