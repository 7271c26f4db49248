//! File names.

use crate::input::Input;
use caskade_codec::ids::{SegmentId, ShardId};
use caskade_codec::names::{self, FileName, JOURNALS, SHARDS_MAX, StoreName};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Parses any name: what is ours is spelled as we spell it. Formats numbers and parses them back.
pub fn names(data: &[u8]) {
    check(OsStr::from_bytes(data));
    let mut input = Input::new(data);
    let id = SegmentId(input.positive());
    let shard = ShardId(input.u16() % SHARDS_MAX);
    let in_shard = [
        (names::segment(id), FileName::Segment(id)),
        (names::hint(id), FileName::Hint(id)),
        (names::MANIFEST.to_owned(), FileName::Manifest),
        (names::KEYDIR.to_owned(), FileName::Keydir),
    ];
    for (name, expected) in in_shard {
        assert_eq!(FileName::parse(name.as_ref()), expected);
        assert_eq!(FileName::parse(names::temporary(&name).as_ref()), FileName::Temporary);
        check_changed(&name, input.clone());
    }
    let journal = input.u8() % JOURNALS;
    let in_store = [
        (names::shard(shard), StoreName::Shard(shard)),
        (names::journal(journal), StoreName::Journal(journal)),
        (names::STORE.to_owned(), StoreName::Store),
        (names::LOCK.to_owned(), StoreName::Lock),
        (names::RESERVE.to_owned(), StoreName::Reserve),
    ];
    for (name, expected) in in_store {
        assert_eq!(StoreName::parse(name.as_ref()), expected);
        check_changed(&name, input.clone());
    }
}

/// A name with one byte replaced, taken out or put in.
fn check_changed(name: &str, mut input: Input<'_>) {
    let mut bytes = name.as_bytes().to_vec();
    let at = usize::from(input.u8()) % bytes.len();
    match input.u8() % 3 {
        0 => bytes[at] = input.u8(),
        1 => _ = bytes.remove(at),
        _ => bytes.insert(at, input.u8()),
    }
    check(OsStr::from_bytes(&bytes));
}

fn check(name: &OsStr) {
    let in_shard = FileName::parse(name);
    let spelled = match in_shard {
        FileName::Segment(id) => Some(names::segment(id)),
        FileName::Hint(id) => Some(names::hint(id)),
        FileName::Manifest => Some(names::MANIFEST.to_owned()),
        FileName::Keydir => Some(names::KEYDIR.to_owned()),
        FileName::Temporary | FileName::Unknown => None,
    };
    assert!(spelled.is_none_or(|spelled| *name == *spelled), "{}", name.display());
    let in_store = StoreName::parse(name);
    let spelled = match in_store {
        StoreName::Store => Some(names::STORE.to_owned()),
        StoreName::Lock => Some(names::LOCK.to_owned()),
        StoreName::Reserve => Some(names::RESERVE.to_owned()),
        StoreName::Journal(index) => {
            assert!(index < JOURNALS);
            Some(names::journal(index))
        }
        StoreName::Shard(id) => {
            assert!(id.0 < SHARDS_MAX);
            Some(names::shard(id))
        }
        StoreName::Temporary | StoreName::Unknown => None,
    };
    assert!(spelled.is_none_or(|spelled| *name == *spelled), "{}", name.display());

    // A temporary file is named for one that it replaces, and only those are called so.
    let replaced = name.as_bytes().strip_suffix(b".tmp").map(OsStr::from_bytes);
    let in_shard_replaced = replaced.map(FileName::parse);
    let is_replaceable =
        !matches!(in_shard_replaced, None | Some(FileName::Temporary | FileName::Unknown));
    assert_eq!(in_shard == FileName::Temporary, is_replaceable, "{}", name.display());
    let in_store_replaced = replaced.map(StoreName::parse);
    let is_replaceable =
        matches!(in_store_replaced, Some(StoreName::Store | StoreName::Journal(_)));
    assert_eq!(in_store == StoreName::Temporary, is_replaceable, "{}", name.display());
}
