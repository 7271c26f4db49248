//! The end of a life, and the recovery from it.

use std::collections::BTreeMap;
use std::path::Path;

use caskade_shard::storage::sim::{CrashEffect, SimDisk};

use super::checks::{differences, observe};
use super::{Blow, Key, Op, Outcome, Put, Run, STORE, ensure, fault};

impl Run {
    pub(super) fn crash_and_recover(&mut self) -> Outcome {
        self.tally.crashes += 1;
        let mut blow = self.strike();
        if self.sync_failed {
            // What a failed sync dropped shows only once the power goes.
            self.disk.power_cut(&mut self.rng);
            blow = Blow::PowerCut;
        }
        self.db = None;
        self.written.clear();
        if self.rng.chance(2, 3) {
            self.disk.faults().clear();
            self.is_faulty = false;
        }
        self.sync_failed = false;
        self.tamper()?;
        let twin = self.rng.chance(1, 3).then(|| self.disk.fork());
        let mut is_comparable = true;
        while self.rng.chance(1, 3) {
            let number = self.call_of_recovery()?;
            self.say(|| format!("recovery will die in call {number}"));
            self.disk.faults().crash_at_call(number, CrashEffect::Random);
            let opened = self.open("recovering");
            if let Err(text) = &opened {
                self.say(|| text.clone());
                if !self.has_died() && !self.is_faulty {
                    return opened;
                }
            }
            let again = self.strike();
            self.tally.crashes_in_recovery += 1;
            self.db = None;
            is_comparable &= again == Blow::Kill || blow == Blow::PowerCut;
            if again == Blow::PowerCut {
                blow = Blow::PowerCut;
            }
        }
        self.disk.faults().clear();
        let _ = self.disk.crashed();
        self.is_faulty = false;
        self.open("recovering")?;
        let (found, versions) = observe(&self.db(), &self.model)?;
        let now = self.now();
        self.model.recover(blow, &found, now).map_err(|text| format!("after {blow:?}: {text}"))?;
        self.say(|| format!("recovered after {blow:?}: {} keys", found.len()));
        for (shard, last) in self.last_seqno.iter_mut().enumerate() {
            *last =
                versions.iter().filter(|(s, _)| *s == shard).map(|(_, v)| *v).max().unwrap_or(0);
        }
        if let Some(twin) = twin.filter(|_| is_comparable) {
            self.compare_with_one_recovery(&twin, &found)?;
        }
        self.check_copy()?;
        self.check()
    }

    /// A call of the recovery that is to come, as a copy of the disk tells them; every other time
    /// one that changes something, for most only read.
    fn call_of_recovery(&mut self) -> Outcome<u64> {
        let copy = self.disk.fork();
        copy.faults().set_allocate_unsupported(self.config.no_allocate);
        copy.faults().start_trace();
        let opened = self.config.builder(Path::new(STORE), copy.storage()).open();
        let calls = copy.faults().take_trace();
        drop(opened);
        let first = calls.first().ok_or("a recovery without a call")?.number;
        let changes: Vec<_> = calls.iter().filter(|call| call.op.changes()).collect();
        let call = if self.rng.chance(1, 2) || changes.is_empty() {
            &calls[self.rng.below(calls.len() as u64) as usize]
        } else {
            self.rng.pick(&changes)
        };
        Ok(self.disk.faults().calls() + 1 + call.number - first)
    }

    /// However often recovery is interrupted, it comes to the same.
    fn compare_with_one_recovery(&self, twin: &SimDisk, found: &BTreeMap<Key, Put>) -> Outcome {
        twin.faults().set_allocate_unsupported(self.config.no_allocate);
        let other = self
            .config
            .builder(Path::new(STORE), twin.storage())
            .open()
            .map_err(fault("recovering at once"))?;
        let once = observe(&other, &self.model)?.0;
        ensure(once == *found, || {
            format!("recovery in steps differs from one: {}", differences(&once, found))
        })
    }

    fn strike(&mut self) -> Blow {
        let blow = if self.rng.chance(1, 2) { Blow::Kill } else { Blow::PowerCut };
        self.say(|| format!("{blow:?}"));
        match blow {
            Blow::Kill => self.disk.kill(),
            Blow::PowerCut => self.disk.power_cut(&mut self.rng),
        }
        let _ = self.disk.crashed();
        self.disk.faults().forget_crash();
        blow
    }

    /// What a recovered store must do like any other.
    pub(super) fn write_and_sync(&mut self) -> Outcome {
        for _ in 0..self.rng.below(4) {
            self.step(Op::Put)?;
        }
        if self.rng.chance(1, 2) {
            self.step(Op::Batch)?;
        }
        if self.rng.chance(1, 2) {
            self.step(Op::Sync)?;
        }
        self.check()
    }

    /// Deletes or damages index files, which the store must be able to do without.
    pub(super) fn tamper(&mut self) -> Outcome {
        let share = *self.rng.pick(&[0, 0, 1, 4]);
        for shard in 0..self.config.shards {
            let dir = Path::new(STORE).join(format!("shard-{shard:03}"));
            let Ok(entries) = self.disk.list(&dir) else { continue };
            for entry in entries {
                let name = entry.name.to_string_lossy().into_owned();
                if is_index(&name) && self.rng.chance(share, 4) {
                    let path = dir.join(&name);
                    let len = self.disk.read_file(&path).map_or(0, |bytes| bytes.len()) as u64;
                    if len > 0 && self.rng.chance(1, 3) {
                        let (offset, bit) = (self.rng.below(len), self.rng.below(8) as u32);
                        self.say(|| {
                            format!("{}: bit {bit} of byte {offset} flips", path.display())
                        });
                        self.disk.flip_bit(&path, offset, bit).map_err(|e| e.to_string())?;
                    } else {
                        self.say(|| format!("{} is deleted", path.display()));
                        self.disk.remove_file(&path).map_err(|e| e.to_string())?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn is_index(name: &str) -> bool {
    name == "KEYDIR" || Path::new(name).extension().is_some_and(|end| end == "hint")
}
