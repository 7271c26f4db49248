//! Hint files.

use crate::input::{Input, Mode};
use caskade_codec::checksum;
use caskade_codec::hint::{Binding, Builder, Class, Entry, HEADER_LEN, Hint, file_len_max};
use caskade_codec::ids::Seqno;
use caskade_codec::record::{ALIGNMENT, FRAME_LEN_MIN};
use caskade_codec::segment::{self, Role, SEGMENT_LEN_MAX, Sealed};

/// Opens hints and compares each entry with the rules; builds hints and reads them back.
pub fn hint(data: &[u8]) {
    let mut input = Input::new(data);
    match input.mode() {
        Mode::Raw => check(input.rest()),
        Mode::Mended => {
            let mut file = input.rest().to_vec();
            mend(&mut file);
            check(&file);
        }
        Mode::Built => built(input),
    }
}

/// Sets the length and the checksums of the body and of the header right.
pub(crate) fn mend(file: &mut [u8]) {
    let Some((head, body)) = file.split_first_chunk_mut::<HEADER_LEN>() else { return };
    head[112..120].copy_from_slice(&(body.len() as u64).to_le_bytes());
    head[120..124].copy_from_slice(&checksum::of(body).to_le_bytes());
    let crc = checksum::of(&head[..124]);
    head[124..].copy_from_slice(&crc.to_le_bytes());
}

fn check(file: &[u8]) {
    let Ok(hint) = Hint::open(file) else { return };
    let header = *hint.header();
    let mut entries = Vec::new();
    let mut fault = None;
    let mut walk = hint.entries();
    for entry in walk.by_ref() {
        assert_eq!(fault, None, "a fault comes last");
        match entry {
            Ok(entry) => entries.push(entry),
            Err(found) => fault = Some(found),
        }
    }
    assert!(walk.next().is_none() && walk.next().is_none(), "a walk ends once");
    assert!(entries.len() as u64 <= header.entries);
    assert!(entries.len() <= file.len() - HEADER_LEN, "every entry takes space");
    check_entries(&entries, header.binding.role, &header.sealed);
    if fault.is_none() {
        assert_eq!(entries.len() as u64, header.entries);
        let end = entries.last().map_or(64, |last| last.offset + u64::from(last.frame_len));
        assert_eq!(end, header.sealed.len, "the last frame ends the segment");
        assert!(file.len() as u64 <= file_len_max(header.sealed.len));
        let first = entries.first().map_or(Seqno::NONE, |first| first.seqno);
        assert_eq!(first, header.first_seqno);
        let again = build(header.binding, &header.sealed, &entries);
        assert_eq!(again, file, "a hint has one encoding");
    }
}

fn check_entries(entries: &[Entry], role: Role, sealed: &Sealed) {
    let mut offset = segment::HEADER_LEN as u64;
    let mut previous = None;
    for entry in entries {
        assert_eq!(entry.offset, offset, "entries follow one another");
        let len = entry.frame_len as usize;
        assert!(len >= FRAME_LEN_MIN && len.is_multiple_of(ALIGNMENT));
        offset += u64::from(entry.frame_len);
        assert!(offset <= sealed.len);
        assert!((sealed.min_seqno..=sealed.max_seqno).contains(&entry.seqno));
        assert!(entry.class != Class::Other || entry.hash == 0);
        if role == Role::Log {
            assert!(previous.is_none_or(|previous: Seqno| previous.next() == entry.seqno));
        }
        previous = Some(entry.seqno);
    }
}

fn build(binding: Binding, sealed: &Sealed, entries: &[Entry]) -> Vec<u8> {
    let mut builder = Builder::new(binding);
    for entry in entries {
        builder.push(entry);
    }
    assert_eq!(builder.entries(), entries.len() as u64);
    builder.finish(sealed)
}

/// Builds a hint and reads it back; then changes one byte of the body.
fn built(mut input: Input<'_>) {
    let (uuid, shard) = (input.uuid(), input.shard());
    let binding = Binding { uuid, shard, id: input.segment_id(), role: input.role() };
    let (place, mask) = (usize::from(input.u16()), input.u8());
    let first_seqno = input.seqno().0 >> 1;
    let is_batched = input.bool();
    let entries = read_entries(&mut input, binding.role, first_seqno.max(1));
    let sealed = sealed_for(&entries, is_batched);
    let mut file = build(binding, &sealed, &entries);
    check(&file);
    let hint = Hint::open(&file).expect("a built hint opens");
    assert_eq!((hint.header().binding, hint.header().sealed), (binding, sealed));
    let read: Result<Vec<_>, _> = hint.entries().collect();
    assert_eq!(read.as_deref(), Ok(&entries[..]));

    if mask != 0 {
        let at = place % file.len();
        file[at] ^= mask;
        assert!(Hint::open(&file).is_err(), "no byte changes unnoticed");
        mend(&mut file);
        check(&file);
    }
}

fn read_entries(input: &mut Input<'_>, role: Role, first_seqno: u64) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut offset = segment::HEADER_LEN as u64;
    let mut seqno = Seqno(first_seqno);
    while !input.is_empty() {
        let class = [Class::Put, Class::ExpiringPut, Class::Tombstone, Class::Other]
            [input.u8() as usize & 3];
        let units_wide = u64::from(if input.bool() { input.u32() } else { input.u16().into() });
        let units = (FRAME_LEN_MIN as u64 / 8 + units_wide).min(u64::from(u32::MAX) / 8);
        if offset + units * 8 > SEGMENT_LEN_MAX {
            break;
        }
        if role == Role::Merged {
            seqno = input.seqno();
        }
        let hash = if class == Class::Other { 0 } else { input.u32() };
        entries.push(Entry { offset, frame_len: (units * 8) as u32, class, hash, seqno });
        offset += units * 8;
        if role == Role::Log {
            seqno = seqno.next();
        }
    }
    entries
}

fn sealed_for(entries: &[Entry], has_batch: bool) -> Sealed {
    let seqnos = || entries.iter().map(|entry| entry.seqno);
    let of = |class: Class| entries.iter().filter(move |entry| entry.class == class);
    Sealed {
        len: 64 + entries.iter().map(|entry| u64::from(entry.frame_len)).sum::<u64>(),
        digest: 7,
        records: entries.iter().filter(|entry| entry.class != Class::Other).count() as u64,
        min_seqno: seqnos().min().unwrap_or_default(),
        max_seqno: seqnos().max().unwrap_or_default(),
        expiry_max: 0,
        tombstone_bytes: of(Class::Tombstone).map(|entry| u64::from(entry.frame_len)).sum(),
        has_batch,
    }
}
