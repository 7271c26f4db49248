//! Types in and out: tables of a key type and a value type, through serde.
//!
//! Several tables share a store, each with its name before its keys. Values are JSON here, which
//! `caskade get` shows as it is; any other format of serde fits as well.
//!
//! `cargo run --release -p caskade --example typed`

use std::collections::BTreeSet;
use std::marker::PhantomData;

use caskade::Db;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A table of a store.
struct Table<K, V> {
    db: Db,
    /// Ends with a character that no name has, so that no table's keys begin like another's.
    prefix: Vec<u8>,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Serialize + DeserializeOwned, V: Serialize + DeserializeOwned> Table<K, V> {
    fn new(db: &Db, name: &str) -> Self {
        assert!(!name.contains(':'), "a table's name has no colon");
        Self { db: db.clone(), prefix: format!("{name}:").into_bytes(), types: PhantomData }
    }

    fn key(&self, key: &K) -> Result<Vec<u8>> {
        Ok([self.prefix.as_slice(), &serde_json::to_vec(key)?].concat())
    }

    fn put(&self, key: &K, value: &V) -> Result {
        self.db.put(&self.key(key)?, &serde_json::to_vec(value)?)?;
        Ok(())
    }

    fn get(&self, key: &K) -> Result<Option<V>> {
        let value = self.db.get(&self.key(key)?)?;
        Ok(value.map(|value| serde_json::from_slice(&value)).transpose()?)
    }

    /// Changes a value in one step: if somebody else wrote meanwhile, `change` runs again.
    fn update(&self, key: &K, mut change: impl FnMut(Option<V>) -> V) -> Result {
        let mut failure = None;
        let mut step = |old: Option<&[u8]>| {
            let old = old.map(serde_json::from_slice).transpose()?;
            serde_json::to_vec(&change(old))
        };
        self.db.update(&self.key(key)?, |old| match step(old) {
            Ok(new) => Some(new),
            Err(error) => {
                // What cannot be read stays as it is.
                failure = Some(error);
                old.map(<[u8]>::to_vec)
            }
        })?;
        failure.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Everything in the table, in no order. Looks at all keys of the store.
    fn entries(&self) -> Result<impl Iterator<Item = Result<(K, V)>>> {
        let prefix = self.prefix.clone();
        Ok(self.db.iter()?.filter_map(move |entry| {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return Some(Err(error.into())),
            };
            let key = entry.key.strip_prefix(prefix.as_slice())?;
            Some(parse(key, &entry.value))
        }))
    }
}

fn parse<K: DeserializeOwned, V: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<(K, V)> {
    Ok((serde_json::from_slice(key)?, serde_json::from_slice(value)?))
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    /// Records from before there was this field still read.
    #[serde(default)]
    visits: u32,
}

fn main() -> Result {
    let folder = tempfile::tempdir()?;
    let db = Db::open(folder.path().join("typed"))?;
    let users: Table<u64, User> = Table::new(&db, "users");
    let tags: Table<(u64, String), bool> = Table::new(&db, "tags");

    users.put(&1, &User { name: "Ada".to_owned(), visits: 0 })?;
    users.put(&2, &User { name: "Grace".to_owned(), visits: 7 })?;
    tags.put(&(1, "admin".to_owned()), &true)?;
    db.put(b"users:3", br#"{"name":"Alan"}"#)?;

    for id in [1, 1, 3] {
        users.update(&id, |user| {
            let user = user.expect("they are all there");
            User { visits: user.visits + 1, ..user }
        })?;
    }
    assert_eq!(users.get(&1)?, Some(User { name: "Ada".to_owned(), visits: 2 }));
    assert_eq!(users.get(&9)?, None);
    let all = users.entries()?.collect::<Result<Vec<_>>>()?;
    assert_eq!(all.iter().map(|(id, _)| *id).collect::<BTreeSet<_>>(), BTreeSet::from([1, 2, 3]));
    for (id, user) in all {
        println!("{id}: {} came {} times", user.name, user.visits);
    }
    assert_eq!(tags.entries()?.count(), 1, "tables do not see each other");

    db.put(b"users:4", b"no JSON")?;
    assert!(users.get(&4).is_err(), "what does not fit the type is an error, never a default");
    Ok(db.close()?)
}
