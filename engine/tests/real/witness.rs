//! Holds a store that was left behind against what was acknowledged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::model::{Blow, Key, Model, Put};
use crate::script::{Plan, Step, keys};

/// What each writer may rely on. Writers share no key, so that each sees a prefix of its own steps
/// in every shard, wherever those of the others fell between.
pub(crate) struct Witness {
    home: PathBuf,
    models: Vec<Model>,
}

impl Witness {
    /// Creates the store of a plan, with every key in it.
    pub(crate) fn new(plan: &Plan, home: &Path) -> Self {
        let db = plan.builder(home).open().expect("creates the store");
        let model = |writer| {
            let shard_of = keys(writer)
                .map(|key| {
                    let version = db.put(&key, b"first").expect("puts");
                    (key, (version.to_u64() >> 56) as usize)
                })
                .collect();
            let mut model = Model::new(usize::from(plan.shards()), shard_of);
            for key in keys(writer) {
                let put = Put { value: b"first".to_vec(), expiry: None };
                model.write(vec![(key, Some(put))], true);
            }
            model.durable_to(&model.mark());
            model
        };
        let models = (0..plan.writers).map(model).collect();
        db.close().expect("closes");
        Self { home: home.to_owned(), models }
    }

    /// What a life did: how many steps of each writer were done, with perhaps one after them, and
    /// of how many the promises count.
    pub(crate) fn heard(&mut self, plan: &Plan, promised: &[u64], done: &[u64]) {
        let writers = (0..).zip(&mut self.models).zip(promised.iter().zip(done));
        for ((writer, model), (promised, done)) in writers {
            for (number, step) in (0..=*done).zip(plan.steps(writer)) {
                let (is_promised, is_done) = (number < *promised, number < *done);
                match step {
                    Step::Write { changes, is_sync } => {
                        note(model, changes, is_sync && is_promised, is_done);
                    }
                    Step::Sync if is_promised => model.durable_to(&model.mark()),
                    Step::Sync | Step::Compact | Step::Checkpoint => {}
                }
            }
        }
    }

    /// Opens the store after the end of a life and checks all of it.
    pub(crate) fn check(&mut self, plan: &Plan, blow: Blow) {
        let db = match plan.builder(&self.home).open() {
            Ok(db) => db,
            Err(error) => panic!("{plan:?}: does not open: {error}"),
        };
        let found: BTreeMap<Key, Put> = db
            .iter()
            .expect("iterates")
            .map(|entry| {
                let entry = entry.expect("every record reads");
                (entry.key.to_vec(), Put { value: entry.value.to_vec(), expiry: None })
            })
            .collect();
        assert_eq!(db.len(), found.len() as u64, "{plan:?}");
        for (writer, model) in (0..).zip(&mut self.models) {
            let mut own = BTreeMap::new();
            for key in keys(writer) {
                let value = db.get(&key).expect("reads").map(Vec::from);
                let listed = found.get(&key);
                assert_eq!(value.as_deref(), listed.map(|put| &*put.value), "{plan:?}");
                own.extend(listed.map(|put| (key, put.clone())));
            }
            if let Err(text) = model.recover(blow, &own, 0) {
                panic!("{plan:?}: writer {writer}: {text}");
            }
        }
        let report = db.verify(|_| true).expect("verifies");
        assert!(report.is_clean(), "{plan:?}: {report:?}");
        if plan.life.is_multiple_of(3) {
            // Half of a life more: it writes, makes that durable and ends well.
            for (writer, model) in (0..).zip(&mut self.models) {
                let (key, value) = (keys(writer).next().expect("a key"), vec![plan.life as u8; 50]);
                db.put(&key, &value).expect("puts");
                note(model, vec![(key, Some(value))], false, true);
            }
            db.sync().expect("syncs");
            self.models.iter_mut().for_each(|model| model.durable_to(&model.mark()));
            db.close().expect("closes");
        }
    }
}

fn note(
    model: &mut Model,
    changes: Vec<(Key, Option<Vec<u8>>)>,
    is_sync: bool,
    is_acknowledged: bool,
) {
    let put = |value| Put { value, expiry: None };
    let changes = changes.into_iter().map(|(key, value)| (key, value.map(put))).collect();
    for shard in model.write(changes, is_acknowledged) {
        if is_sync && is_acknowledged {
            model.shard_durable_to(shard, model.shard_mark(shard));
        }
    }
}
