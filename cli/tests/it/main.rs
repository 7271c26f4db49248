//! The `caskade` binary as its users meet it: what it prints where, and its exit codes.

mod demo;
mod documents;
mod faults;
mod moving;
mod repair;
mod values;
mod watching;

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A folder with a store in it that does not exist yet.
struct Home {
    folder: tempfile::TempDir,
}

/// What a command did.
struct Ran {
    code: i32,
    stdout: Vec<u8>,
    stderr: String,
}

impl Home {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// Runs `caskade COMMAND STORE ARGS`.
    fn run<S: AsRef<OsStr>>(&self, command: &str, args: &[S]) -> Ran {
        let mut line: Vec<&OsStr> = vec![command.as_ref()];
        let store = self.store();
        line.push(store.as_ref());
        line.extend(args.iter().map(AsRef::as_ref));
        caskade(&line, b"")
    }

    /// Puts some keys, `key:000` on, with values that begin with their key.
    fn fill(&self, keys: u32) {
        let db = caskade::Db::builder(self.store()).shards(2).open().unwrap();
        for i in 0..keys {
            db.put(format!("key:{i:03}").as_bytes(), format!("key:{i:03} value").as_bytes())
                .unwrap();
        }
        db.close().unwrap();
    }

    /// The one segment of the store's shards that holds `needle`, and where.
    fn find(&self, needle: &[u8]) -> (PathBuf, usize) {
        let shards = std::fs::read_dir(self.store()).unwrap().map(|entry| entry.unwrap().path());
        let files =
            shards.filter(|path| path.is_dir()).flat_map(|shard| std::fs::read_dir(shard).unwrap());
        let found = files.map(|entry| entry.unwrap().path()).filter_map(|path| {
            let bytes = std::fs::read(&path).unwrap();
            let at = bytes.windows(needle.len()).position(|window| window == needle)?;
            (path.extension()? == "seg").then_some((path, at))
        });
        found.last().expect("some segment holds it")
    }
}

fn caskade<S: AsRef<OsStr>>(args: &[S], stdin: &[u8]) -> Ran {
    let mut child = command(args).stdin(Stdio::piped()).spawn().unwrap();
    // A command that fails early does not read its input.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    Ran::new(child.wait_with_output().unwrap())
}

fn command<S: AsRef<OsStr>>(args: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_caskade"));
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Ran {
    fn new(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it was not killed"),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// Checks the exit code, and answers what was printed.
    #[track_caller]
    fn ok(&self) -> &str {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.text(), self.stderr);
        self.text()
    }

    /// Checks that it failed with `code`, said `why` on stderr, and nothing on stdout.
    #[track_caller]
    fn fails(&self, code: i32, why: &str) {
        assert_eq!(self.code, code, "stderr: {}", self.stderr);
        assert!(self.stderr.contains(why), "'{why}' is not in: {}", self.stderr);
        assert_eq!(self.text(), "");
    }
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}
