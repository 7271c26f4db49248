//! Changes that no checksum notices.

use super::base::Files;
use crate::record::mend as mend_frame;
use crate::{hint, snapshot};
use caskade_codec::manifest::{self, Manifest, State};
use caskade_codec::names::{self, FileName, StoreName};
use caskade_codec::record::{ALIGNMENT, Frame, seed};
use caskade_codec::segment::{HEADER_LEN, Scanner, Tally};
use caskade_codec::{checksum, journal, meta, twin};
use std::path::Path;

/// Puts `run` at `at`, as far as the file goes.
pub(super) fn overwrite(bytes: &mut [u8], at: usize, run: &[u8]) {
    let len = run.len().min(bytes.len() - at);
    bytes[at..at + len].copy_from_slice(&run[..len]);
}

/// Sets the checksums of a file right, by its name.
pub(super) fn seal(path: &Path, bytes: &mut Vec<u8>) {
    let name = path.file_name().expect("a file has a name");
    match (StoreName::parse(name), FileName::parse(name)) {
        (StoreName::Store, _) => seal_twin(meta::MAGIC, bytes),
        (StoreName::Journal(_), _) => seal_journal(bytes),
        (_, FileName::Manifest) => seal_twin(manifest::MAGIC, bytes),
        (_, FileName::Segment(_)) => seal_segment(bytes),
        (_, FileName::Hint(_)) => hint::mend(bytes),
        (_, FileName::Keydir) => _ = snapshot::mend(bytes),
        _ => {}
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Both copies get the first one's payload.
fn seal_twin(magic: [u8; 8], bytes: &mut Vec<u8>) {
    let payload = u32_at(bytes, 12).and_then(|len| bytes.get(16..16 + len as usize));
    if let Some(payload) = payload {
        *bytes = twin::encode(magic, payload);
    }
}

fn seal_segment(bytes: &mut [u8]) {
    let Some(head) = bytes.first_chunk_mut::<HEADER_LEN>() else { return };
    let crc = checksum::of(&head[..60]);
    head[60..].copy_from_slice(&crc.to_le_bytes());
    let salt = u32_at(bytes, 40).expect("a header has a salt");
    let mut at = HEADER_LEN;
    while at < bytes.len() {
        at += mend_frame(&mut bytes[at..], seed(salt, at as u64)).unwrap_or(ALIGNMENT);
    }
}

fn seal_journal(bytes: &mut [u8]) {
    let Some(head) = bytes.first_chunk_mut::<{ journal::BLOCK_LEN }>() else { return };
    let crc = checksum::of(&head[..508]);
    head[508..].copy_from_slice(&crc.to_le_bytes());
    let salt = u32_at(bytes, 12).expect("a header has a salt");
    let mut at = journal::BLOCK_LEN;
    while let Some(len @ 1..) = u32_at(bytes, at + 28) {
        let Some(group) = bytes.get_mut(at..at + len as usize).filter(|group| group.len() >= 32)
        else {
            break;
        };
        let crc = checksum::extend(salt ^ (at / journal::BLOCK_LEN) as u32, &group[4..]);
        group[..4].copy_from_slice(&crc.to_le_bytes());
        at += len as usize;
    }
}

/// Makes each manifest say of its sealed segments what their files hold now.
pub(super) fn agree(files: &mut Files) {
    let manifests: Vec<_> =
        files.keys().filter(|path| path.ends_with(names::MANIFEST)).cloned().collect();
    for path in manifests {
        let Ok((mut manifest, _)) = Manifest::decode(&files[&path]) else { continue };
        for entry in &mut manifest.segments {
            let segment = files.get(&path.with_file_name(names::segment(entry.id)));
            if let (State::Sealed(sealed), Some(bytes)) = (&mut entry.state, segment) {
                let mut tally = Tally::default();
                for (_, frame) in Scanner::new(bytes, entry.salt, HEADER_LEN as u64) {
                    if let Frame::Record(record) = frame {
                        tally.push(&record);
                    }
                }
                *sealed = tally.finish();
            }
        }
        files.insert(path, manifest.encode());
    }
}
