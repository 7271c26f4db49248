//! SIGKILL, at any time.

use std::thread::sleep;
use std::time::Duration;

use caskade::Background;
use caskade_shard::storage::sim::Rng;

use crate::child::{Records, Running};
use crate::model::Blow;
use crate::script::Plan;
use crate::witness::Witness;
use crate::{count, say};

const LIVES: u64 = 10;

#[test]
fn a_process_killed_at_any_time_loses_nothing_acknowledged() {
    let kills = count("CASKADE_KILLS", 200);
    let (mut steps, mut before_the_first) = (0, 0);
    for store in 0..kills.div_ceil(LIVES) {
        let dir = tempfile::tempdir().expect("a directory");
        let home = dir.path().join("db");
        let mut plan =
            Plan { store, life: 0, writers: 2, steps: u64::MAX, background: Background::Thread };
        let mut witness = Witness::new(&plan, &home);
        // When a process dies is up to the machine in any case.
        let mut rng = Rng::new(store);
        for life in 1..=LIVES.min(kills - store * LIVES) {
            plan.life = life;
            let records = Records::new();
            let child = Running::start(records.child(&plan, &home));
            let longest = *rng.pick(&[20_000, 60_000, 200_000]);
            sleep(Duration::from_micros(rng.below(longest)));
            child.kill();
            let acknowledged = records.read(&plan);
            let done = acknowledged.iter().sum::<u64>();
            steps += done;
            before_the_first += u64::from(done == 0);
            witness.heard(&plan, &acknowledged, &acknowledged);
            if rng.chance(3, 10) {
                // And the one that recovers is killed as well.
                let again = Plan { steps: 0, ..plan.clone() };
                let child = Running::start(records.child(&again, &home));
                sleep(Duration::from_micros(rng.below(15_000)));
                child.kill();
            }
            witness.check(&plan, Blow::Kill);
        }
    }
    say(&format!(
        "{kills} processes killed after {steps} acknowledged steps, {before_the_first} before their first"
    ));
    assert!(steps > kills, "the children did next to nothing");
}
