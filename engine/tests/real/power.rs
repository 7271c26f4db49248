//! Power cuts: a file system that stops between any two writes, and is mounted again.
//!
//! The shutdown call of ext4 drops all that the kernel has not yet sent to the device, and leaves
//! the file system's journal as it is. What this cannot do is lose what the device itself had
//! taken but not kept; the crash simulation does that.
//!
//! The cut is not a moment. An fdatasync that is under way when the kernel gives up the file system's
//! journal may find its transaction gone, and take that for done: it answers that all is well, and
//! nothing of it is on the device (a plain C program that appends and syncs sees it in one of seven
//! cuts). So only what was acknowledged before the cut began must be there.

use std::thread::sleep;
use std::time::Duration;

use caskade::Background;
use caskade_shard::storage::sim::Rng;

use crate::child::{Records, Running};
use crate::model::Blow;
use crate::mounts::Mount;
use crate::script::Plan;
use crate::witness::Witness;
use crate::{count, say};

const LIVES: u64 = 10;

#[test]
fn a_power_cut_in_ordered_mode_loses_nothing_durable() {
    cut("data=ordered", 0);
}

#[test]
fn a_power_cut_in_writeback_mode_loses_nothing_durable() {
    cut("data=writeback", 1000);
}

fn cut(journal_mode: &str, first_store: u64) {
    let cuts = count("CASKADE_CUTS", 120) / 2;
    let (mut done, mut steps) = (0, 0);
    for store in first_store..first_store + cuts.div_ceil(LIVES) {
        let dir = tempfile::tempdir().expect("a directory");
        // The kernel's own interval of five seconds would let each life end before it.
        let options = format!("{journal_mode},commit=1");
        let Some(mount) = Mount::ext4(&dir.path().join("image"), 64 << 20, &options) else {
            return;
        };
        let home = mount.home();
        let mut plan =
            Plan { store, life: 0, writers: 2, steps: u64::MAX, background: Background::Thread };
        let mut witness = Witness::new(&plan, &home);
        let mut rng = Rng::new(store);
        for life in 1..=LIVES.min(cuts - (store - first_store) * LIVES) {
            plan.life = life;
            let longest = *rng.pick(&[40, 200, 1500]);
            let told = live(&mount, &plan, Duration::from_millis(rng.below(longest)));
            steps += told.before.iter().sum::<u64>();
            witness.heard(&plan, &told.before, &told.in_the_end);
            if rng.chance(3, 10) {
                // The power fails again while the store recovers.
                let again = Plan { steps: 0, ..plan.clone() };
                live(&mount, &again, Duration::from_millis(rng.below(20)));
            }
            witness.check(&plan, Blow::PowerCut);
            done += 1;
        }
    }
    say(&format!("{done} power cuts ({journal_mode}) after {steps} acknowledged steps"));
    assert!(steps > done, "the children did next to nothing");
}

/// What was acknowledged before a power cut began, and when all was over.
struct Told {
    before: Vec<u64>,
    in_the_end: Vec<u64>,
}

/// A life that ends with a power cut, and what was acknowledged in it.
fn live(mount: &Mount, plan: &Plan, how_long: Duration) -> Told {
    let records = Records::new();
    let child = Running::start(records.child(plan, &mount.home()));
    sleep(how_long);
    let before = records.read(plan);
    mount.cut_power();
    child.kill();
    mount.turn_off_and_on();
    Told { before, in_the_end: records.read(plan) }
}
