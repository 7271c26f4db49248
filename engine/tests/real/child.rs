//! The process that does not live long.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use caskade::{Background, Batch, Db, Durability, WriteOptions};

use crate::script::{Plan, Step};

const ORDERS: &str = "CASKADE_TEST_CHILD";
const NAME: &str = "child::child_that_dies";

/// Files of a life that are not the store's: they outlive it, also a power cut.
#[derive(Debug)]
pub(crate) struct Records {
    dir: tempfile::TempDir,
}

impl Records {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory") }
    }

    fn acknowledgements(&self) -> PathBuf {
        self.dir.path().join("acknowledged")
    }

    /// Where a trace of the child's calls may go.
    pub(crate) fn trace(&self) -> PathBuf {
        self.dir.path().join("trace")
    }

    /// The command that runs a child.
    pub(crate) fn child(&self, plan: &Plan, home: &Path) -> Command {
        let program = std::env::current_exe().expect("this test has a file");
        self.forget();
        let mut command = Command::new(program);
        self.order(&mut command, plan, home);
        command
    }

    /// The same under strace.
    pub(crate) fn traced_child(&self, plan: &Plan, home: &Path, options: &[&str]) -> Command {
        let program = std::env::current_exe().expect("this test has a file");
        self.forget();
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o"]).arg(self.trace()).args(options).arg(program);
        self.order(&mut command, plan, home);
        command
    }

    fn forget(&self) {
        File::create(self.acknowledgements()).expect("a file for acknowledgements");
    }

    fn order(&self, command: &mut Command, plan: &Plan, home: &Path) {
        let Plan { store, life, writers, steps, background } = plan;
        let is_manual = *background == Background::Manual;
        command
            .args([NAME, "--exact", "--test-threads=1", "--nocapture"])
            .env(ORDERS, format!("{store} {life} {writers} {steps} {is_manual}"))
            .env(format!("{ORDERS}_HOME"), home)
            .env(format!("{ORDERS}_RECORDS"), self.acknowledgements())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
    }

    /// How many steps each writer saw done.
    pub(crate) fn read(&self, plan: &Plan) -> Vec<u64> {
        let file = File::open(self.acknowledgements()).expect("acknowledgements");
        let done = |writer| {
            let mut bytes = [0; 8];
            // A child that acknowledged nothing leaves an empty file.
            file.read_exact_at(&mut bytes, writer * 8).map_or(0, |()| u64::from_le_bytes(bytes))
        };
        (0..plan.writers).map(done).collect()
    }
}

/// A child that is killed at the latest when the test forgets it.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        Self(command.spawn().expect("starts"))
    }

    pub(crate) fn kill(mut self) {
        self.0.kill().expect("kills");
        self.0.wait().expect("waits");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Not a test of its own: the process that is killed.
#[test]
fn child_that_dies() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let orders: Vec<&str> = orders.split(' ').collect();
    let number = |index: usize| orders[index].parse().expect("a number");
    let plan = Plan {
        store: number(0),
        life: number(1),
        writers: number(2),
        steps: number(3),
        background: if orders[4] == "true" { Background::Manual } else { Background::Thread },
    };
    let path = |name: &str| PathBuf::from(std::env::var_os(name).expect("a path"));
    let home = path(&format!("{ORDERS}_HOME"));
    let records = path(&format!("{ORDERS}_RECORDS"));
    let records = File::options().write(true).open(records).expect("records");
    // A line in a trace: from here on the calls are the store's.
    let _ = std::fs::metadata("/the-child-begins");
    // A cut takes the file system away under a child; what it says then is not of interest.
    let Ok(db) = plan.builder(&home).open() else { return };
    std::thread::scope(|scope| {
        for writer in 1..plan.writers {
            let (plan, db, home, records) = (&plan, &db, &home, &records);
            scope.spawn(move || live(plan, writer, db, home, records));
        }
        live(&plan, 0, &db, &home, &records);
    });
    let _ = db.close();
}

fn live(plan: &Plan, writer: u64, db: &Db, home: &Path, records: &File) {
    for (number, step) in plan.steps(writer).enumerate() {
        if run(db, home, writer, step).is_err() {
            return;
        }
        let done = number as u64 + 1;
        records.write_all_at(&done.to_le_bytes(), writer * 8).expect("acknowledges");
        if plan.background == Background::Manual {
            db.run_background();
        }
    }
}

pub(crate) fn run(db: &Db, home: &Path, writer: u64, step: Step) -> caskade::Result<()> {
    match step {
        Step::Write { mut changes, is_sync } => {
            let options = WriteOptions::new();
            let options = if is_sync { options.durability(Durability::Sync) } else { options };
            if changes.len() == 1 {
                let (key, value) = changes.remove(0);
                return match value {
                    Some(value) => db.put_with(&key, &value, options).map(drop),
                    None => db.delete_with(&key, options).map(drop),
                };
            }
            let mut batch = Batch::new();
            for (key, value) in changes {
                match value {
                    Some(value) => batch.put(&key, &value),
                    None => batch.delete(&key),
                };
            }
            db.write_with(&batch, options).map(drop)
        }
        Step::Sync => db.sync(),
        Step::Compact => db.compact().map(drop),
        Step::Checkpoint => {
            let copy = home.with_file_name(format!("copy-{writer}"));
            let _ = std::fs::remove_dir_all(&copy);
            db.checkpoint(&copy).map(drop)
        }
    }
}
