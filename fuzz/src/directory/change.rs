//! What is done to the files.

use super::base::{self, Base, Files};
use super::forge;
use crate::input::Input;
use caskade::Db;

/// How much of what is read is known in advance; the least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trust {
    /// Bytes came from the input.
    Forgeries,
    /// Bytes of the store came to other places, or went.
    Moves,
    /// Single bits changed.
    Flips,
}

impl Trust {
    /// What was reported as lost is gone, from then on, and older values are back.
    pub(super) fn beside(self, db: &Db) -> Self {
        let has_losses = db.open_report().losses().next().is_some();
        if has_losses { self.min(Self::Moves) } else { self }
    }
}

/// A place in so many bytes, or at their end.
fn place(input: &mut Input<'_>, len: usize) -> usize {
    usize::from(input.u16()) % (len + 1)
}

/// One change to the files.
pub(super) fn change(input: &mut Input<'_>, base: &Base, files: &mut Files) -> Trust {
    let kind = input.u8() % 12;
    if kind == 11 {
        let (name, bytes) = (base::name(input, base), input.short().to_vec());
        files.insert(name, bytes);
        return Trust::Forgeries;
    }
    let index = usize::from(input.u8()) % files.len().max(1);
    if kind >= 8 {
        return rearrange(kind, index, input, base, files);
    }
    let Some((path, bytes)) = files.iter_mut().nth(index) else { return Trust::Moves };
    let at = place(input, bytes.len());
    match kind {
        0 | 1 => {
            let bit = input.u8() & 7;
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << bit;
            }
            return Trust::Flips;
        }
        2 => {
            forge::overwrite(bytes, at, input.short());
            return Trust::Forgeries;
        }
        3 => {
            *bytes = input.short().to_vec();
            return Trust::Forgeries;
        }
        4 => {
            forge::overwrite(bytes, at, input.short());
            forge::seal(path, bytes);
            if input.bool() {
                forge::agree(files);
            }
            return Trust::Forgeries;
        }
        5 => bytes.truncate(at),
        6 => bytes.resize(bytes.len() + usize::from(input.u16()) % 9000, 0),
        _ => {
            let end = (at + place(input, 4096)).min(bytes.len());
            if input.bool() {
                bytes.drain(at..end);
            } else {
                bytes[at..end].fill(0);
            }
        }
    }
    Trust::Moves
}

/// A change to the file of that number for which it takes others.
fn rearrange(
    kind: u8,
    index: usize,
    input: &mut Input<'_>,
    base: &Base,
    files: &mut Files,
) -> Trust {
    let Some((path, old)) = files.iter().nth(index) else { return Trust::Moves };
    let (path, mut bytes) = (path.clone(), old.clone());
    let other = files.keys().nth(usize::from(input.u8()) % files.len()).expect("one is there");
    match kind {
        8 => {
            // A run of the other file overwrites a run of this one, or comes between.
            let (at, source) = (place(input, bytes.len()), &files[other]);
            let from = place(input, source.len());
            let run = &source[from..(from + place(input, 4096)).min(source.len())];
            if input.bool() {
                bytes.splice(at..at, run.iter().copied());
            } else {
                forge::overwrite(&mut bytes, at, run);
            }
            files.insert(path, bytes);
        }
        9 => {
            // They change places, or this one gets a new name beside its own.
            let to = if input.bool() { other.clone() } else { base::name(input, base) };
            if let Some(there) = files.insert(to, bytes) {
                files.insert(path, there);
            }
        }
        _ => _ = files.remove(&path),
    }
    Trust::Moves
}
