//! `KEYDIR`.

use crate::input::{Input, Mode};
use caskade_codec::checksum;
use caskade_codec::snapshot::{Header, Position, SLOT_MAX, Segment, Snapshot, encode_leaf};

type OwnedLeaf = (u32, Vec<(u32, u64)>);

/// Reads snapshots and compares each entry with the rules; builds them and reads them back.
pub fn snapshot(data: &[u8]) {
    let mut input = Input::new(data);
    match input.mode() {
        Mode::Raw => check(input.rest()),
        Mode::Mended => {
            let mut file = input.rest().to_vec();
            let _ = mend(&mut file);
            check(&file);
        }
        Mode::Built => built(input),
    }
}

fn u32_at(file: &[u8], at: usize) -> Option<usize> {
    let bytes = file.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes) as usize)
}

/// Sets the checksums of the header and of each leaf right, as far as the lengths lead.
pub(crate) fn mend(file: &mut [u8]) -> Option<()> {
    let table_end = 72 + 36 * u32_at(file, 64)?;
    let crc = checksum::of(file.get(..table_end)?);
    file.get_mut(table_end..table_end + 4)?.copy_from_slice(&crc.to_le_bytes());
    let mut at = table_end + 4;
    for index in 0.. {
        let count = u32_at(file, at + 4)?;
        let widths = file.get(at + 12..at + 16)?.iter().map(|&width| usize::from(width));
        let end = at + 16 + count * (1 + widths.sum::<usize>());
        let crc = checksum::extend(index, file.get(at + 4..end)?);
        file[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        at = end;
    }
    None
}

fn check(file: &[u8]) {
    let Ok(snapshot) = Snapshot::open(file) else { return };
    let header = snapshot.header();
    let encoded = header.encode();
    assert!(file.starts_with(&encoded), "a header has one encoding");
    let (mut leaves, mut fault) = (Vec::<OwnedLeaf>::new(), None);
    let mut walk = snapshot.leaves();
    for leaf in walk.by_ref() {
        assert_eq!(fault, None, "a fault comes last");
        match leaf {
            Ok(leaf) => leaves.push((leaf.first_hash, leaf.entries(file))),
            Err(found) => fault = Some(found),
        }
    }
    assert!(walk.next().is_none() && walk.next().is_none(), "a walk ends once");
    assert!(leaves.len() <= header.leaves as usize);
    check_leaves(header, &leaves);
    if fault.is_none() {
        assert_eq!(leaves.len(), header.leaves as usize);
        let keys: usize = leaves.iter().map(|(_, entries)| entries.len()).sum();
        assert_eq!(keys as u64, header.keys);
        // A reader takes widths that are greater than they need be; a writer makes none.
        let again = file_of(header, &leaves);
        let has_empty_leaf = leaves.iter().any(|(_, entries)| entries.is_empty());
        assert!(again.len() < file.len() || again == file || has_empty_leaf);
        assert!(again.len() <= file.len());
        assert_eq!(read(&again), leaves);
    }
}

fn check_leaves(header: &Header, leaves: &[OwnedLeaf]) {
    assert!(header.segments.is_sorted_by(|a, b| a.slot < b.slot));
    assert!(header.segments.iter().all(|segment| (1..=SLOT_MAX).contains(&segment.slot)));
    assert!(leaves.is_sorted_by(|a, b| a.0 < b.0), "leaves are in the order of their hashes");
    let ends = leaves.iter().skip(1).map(|next| Some(next.0)).chain([None]);
    for ((first_hash, entries), end) in leaves.iter().zip(ends) {
        for (hash, location) in entries {
            assert!(hash >= first_hash && end.is_none_or(|end| *hash < end));
            let slot = (location >> 40) as u32;
            assert!(header.segments.binary_search_by_key(&slot, |segment| segment.slot).is_ok());
        }
    }
}

fn file_of(header: &Header, leaves: &[OwnedLeaf]) -> Vec<u8> {
    let mut file = header.encode();
    for (index, (first_hash, entries)) in (0..).zip(leaves) {
        encode_leaf(index, *first_hash, entries, &mut file);
    }
    file
}

fn read(file: &[u8]) -> Vec<OwnedLeaf> {
    let snapshot = Snapshot::open(file).expect("a built snapshot opens");
    let leaves = snapshot.leaves().map(|leaf| {
        let leaf = leaf.expect("a built leaf is valid");
        (leaf.first_hash, leaf.entries(file))
    });
    leaves.collect()
}

/// Builds a snapshot and reads it back; then changes one byte.
fn built(mut input: Input<'_>) {
    let (place, mask) = (usize::from(input.u16()), input.u8());
    let mut header = Header {
        uuid: input.uuid(),
        shard: input.shard(),
        keys: 0,
        seqno: input.seqno(),
        position: Position { segment: input.segment_id(), offset: input.u64() },
        leaves: 0,
        segments: read_segments(&mut input),
    };
    let leaves = read_leaves(&mut input, &header.segments);
    header.leaves = leaves.len() as u32;
    header.keys = leaves.iter().map(|(_, entries)| entries.len() as u64).sum();
    let mut file = file_of(&header, &leaves);
    check(&file);
    assert_eq!(Snapshot::open(&file).expect("a built snapshot opens").header(), &header);
    assert_eq!(read(&file), leaves);

    if mask != 0 {
        let at = place % file.len();
        file[at] ^= mask;
        assert!(is_refused(&file), "no byte changes unnoticed");
        let _ = mend(&mut file);
        check(&file);
    }
}

fn is_refused(file: &[u8]) -> bool {
    match Snapshot::open(file) {
        Ok(snapshot) => snapshot.leaves().any(|leaf| leaf.is_err()),
        Err(_) => true,
    }
}

fn read_segments(input: &mut Input<'_>) -> Vec<Segment> {
    let mut slot = 0;
    let mut segments = Vec::new();
    for _ in 0..=input.u8() & 7 {
        let skipped = if input.u8() & 7 == 7 { u32::from(input.u16()) } else { 0 };
        slot += 1 + skipped;
        let (id, len) = (input.segment_id(), input.positive());
        let (live_bytes, live_records) = (input.positive(), input.positive());
        segments.push(Segment { slot, id, len, live_bytes, live_records });
    }
    segments
}

/// Leaves whose locations point into the table's segments.
fn read_leaves(input: &mut Input<'_>, segments: &[Segment]) -> Vec<OwnedLeaf> {
    let mut leaves = Vec::new();
    let mut first_hash = 0_u32;
    loop {
        let step = if input.bool() { input.u32() } else { input.u8().into() };
        let next = first_hash.checked_add(step.max(1));
        let last = next.map_or(u32::MAX, |next| next - 1);
        let mut entries = Vec::new();
        for _ in 0..input.u8() % 40 {
            let above = if input.bool() { input.u32() } else { input.u16().into() };
            let slot = segments[usize::from(input.u8()) % segments.len()].slot;
            let units = if input.bool() { input.u32() } else { input.u16().into() };
            let class = u64::from(input.u8());
            let location = u64::from(slot) << 40 | class << 32 | u64::from(units);
            entries.push((first_hash.saturating_add(above).min(last), location));
        }
        leaves.push((first_hash, entries));
        match next {
            Some(next) if !input.is_empty() => first_hash = next,
            _ => return leaves,
        }
    }
}
