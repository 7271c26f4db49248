//! Reading on behind damage, with `--skip-damaged`.

use std::path::Path;

use caskade::{Db, Error, LossKind, RecoveryMode};

use super::upkeep::places_are;
use super::{open_quietly, tell_of_files, tell_of_loss};
use crate::fault::{Fault, Outcome};

/// So many places are told; the rest are counted.
const TOLD_MAX: usize = 20;

/// What of a store cannot be read.
#[derive(Debug)]
pub(super) struct Damaged {
    is_skipped: bool,
    told: Vec<String>,
    places: usize,
}

impl Damaged {
    /// Opens a store without a lock. Nothing is written to it.
    pub(super) fn open(path: &Path, is_skipped: bool) -> Outcome<(Db, Self)> {
        let mut damaged = Self { is_skipped, told: Vec::new(), places: 0 };
        let mode = if is_skipped { RecoveryMode::Salvage } else { RecoveryMode::Default };
        let db = open_quietly(Db::builder(path).read_only(true).recovery_mode(mode));
        let db = db.map_err(|fault| damaged.advise(fault))?;
        tell_of_files(db.open_report());
        for loss in db.open_report().losses() {
            if loss.kind == LossKind::Corruption {
                damaged.note(|| {
                    format!(
                        "shard {} segment {} offset {}: {}",
                        loss.shard, loss.segment, loss.offset, loss.reason
                    )
                });
            } else {
                tell_of_loss(loss);
            }
        }
        Ok((db, damaged))
    }

    /// Hears of a record that cannot be read. Only with `--skip-damaged` it is no error.
    pub(super) fn pass(&mut self, error: Error) -> Outcome {
        match error {
            Error::Corrupt { shard, segment, offset, reason } if self.is_skipped => {
                self.note(|| format!("shard {shard} segment {segment} offset {offset}: {reason}"));
                Ok(())
            }
            error => Err(self.advise(error.into())),
        }
    }

    /// Says what was passed over. It makes the command fail, though it did the rest.
    pub(super) fn finish(self) -> Outcome {
        if self.places == 0 {
            return Ok(());
        }
        for place in &self.told {
            note!("{place}");
        }
        if self.places > self.told.len() {
            note!("and {} more; `caskade verify` lists all", self.places - self.told.len());
        }
        Err(Fault::Damaged(format!(
            "{} damaged: the records there were passed over, and older values of their keys may \
             stand in for them",
            places_are(self.places)
        )))
    }

    fn note(&mut self, place: impl FnOnce() -> String) {
        self.places += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(place());
        }
    }

    /// The command can do more about damage than others.
    fn advise(&self, fault: Fault) -> Fault {
        match fault {
            Fault::Store(error @ Error::Corrupt { .. }) if !self.is_skipped => {
                Fault::Damaged(format!(
                    "{error}\n  --skip-damaged goes on behind it. `caskade repair` lists what is \
                     lost, and saves the rest elsewhere."
                ))
            }
            fault => fault,
        }
    }
}
