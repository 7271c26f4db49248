//! `inspect`: what one file of a store holds, whatever the rest of the store is like.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use caskade_codec::Fault as Unreadable;
use caskade_codec::hint::{self, Class, Hint};
use caskade_codec::journal::{self, Groups};
use caskade_codec::manifest::{self, Manifest, State};
use caskade_codec::meta::{self, StoreMeta};
use caskade_codec::names::{FileName, StoreName};
use caskade_codec::record::{BatchPart, Flags, Frame, Kind, Marker, Record};
use caskade_codec::segment;
use caskade_codec::snapshot::{self, Snapshot};
use caskade_codec::twin::Copies;
use serde_json::{Value, json};

use super::pieces::Pieces;
use crate::args::InspectArgs;
use crate::fault::{Fault, Outcome};
use crate::interrupt;

/// How much of a key or a value is shown if not all of it.
const GLANCE: usize = 48;

/// Shows a file, by what its first bytes say it is.
pub(crate) fn inspect(args: &InspectArgs) -> Outcome {
    if args.file.is_dir() {
        return Err(Fault::Usage(format!(
            "{} is a folder; name one of its files: STORE, shard-000/MANIFEST, shard-000/KEYDIR, a \
             segment (.seg), a hint, or a journal",
            args.file.display()
        )));
    }
    let file = File::open(&args.file).map_err(|fault| Fault::system("open", &args.file, fault))?;
    // A device may have no end.
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return Err(Fault::Usage(format!("{} is no file of a store", args.file.display())));
    }
    let mut page = Page { out: BufWriter::new(io::stdout().lock()), args };
    let mut pieces = Pieces::new(&args.file)?;
    if pieces.bytes(0, segment::HEADER_LEN)?.starts_with(&segment::MAGIC) {
        let result = page.segment(&mut pieces);
        page.out.flush()?;
        return result;
    }
    let bytes = fs::read(&args.file).map_err(|source| Fault::system("read", &args.file, source))?;
    let is = |magic: [u8; 8]| bytes.starts_with(&magic);
    let result = if is(hint::MAGIC) {
        page.hint(&bytes)
    } else if is(snapshot::MAGIC) {
        page.snapshot(&bytes)
    } else if is(journal::MAGIC) {
        page.journal(&bytes)
    } else if let Ok((store, copies)) = StoreMeta::decode(&bytes) {
        page.store(&store, copies)
    } else {
        match Manifest::decode(&bytes) {
            Ok((manifest, copies)) => page.manifest(&manifest, copies),
            // Neither is its first copy's beginning damaged, nor is it one of ours.
            Err(fault) if is(manifest::MAGIC) || is(meta::MAGIC) => {
                Err(unreadable(&args.file, fault))
            }
            Err(_) => Err(nothing_known(&args.file)),
        }
    };
    page.out.flush()?;
    result
}

/// The first bytes say nothing; the name may.
fn nothing_known(file: &Path) -> Fault {
    let name = file.file_name().unwrap_or_default();
    let (store, shard) = (StoreName::parse(name), FileName::parse(name));
    match (store, shard) {
        (StoreName::Lock | StoreName::Reserve, _) => {
            Fault::Usage(format!("{} holds no data: nothing to show", file.display()))
        }
        (StoreName::Unknown, FileName::Unknown) => {
            Fault::Usage(format!("{} is no file of a store", file.display()))
        }
        _ => Fault::Damaged(format!(
            "{}: damaged: it does not begin as a file of its name does",
            file.display()
        )),
    }
}

fn unreadable(file: &Path, fault: Unreadable) -> Fault {
    Fault::Damaged(format!("{}: {fault}", file.display()))
}

struct Page<'a, W> {
    out: W,
    args: &'a InspectArgs,
}

impl<W: Write> Page<'_, W> {
    /// A line: the object as JSON, or `text`.
    fn line(&mut self, text: &str, object: &Value) -> Outcome {
        if self.args.json {
            writeln!(self.out, "{object}")?;
        } else {
            writeln!(self.out, "{text}")?;
        }
        Ok(())
    }

    fn bytes(&self, bytes: &[u8]) -> String {
        let form = self.args.output;
        if self.args.whole || bytes.len() <= GLANCE {
            form.text(bytes)
        } else {
            format!("{}… ({} bytes)", form.text(&bytes[..GLANCE]), bytes.len())
        }
    }

    fn segment(&mut self, pieces: &mut Pieces) -> Outcome {
        let header = segment::Header::decode(pieces.bytes(0, segment::HEADER_LEN)?);
        let header = header.map_err(|fault| unreadable(&self.args.file, fault))?;
        let len = pieces.len()?;
        let role = match header.role {
            segment::Role::Log => "log",
            segment::Role::Merged => "merged",
        };
        self.line(
            &format!(
                "segment {} of shard {}, {role}, store {}, salt {:08x}, {} bytes",
                header.id, header.shard, header.uuid, header.salt, len
            ),
            &json!({
                "segment": header.id.0, "shard": header.shard.0, "role": role,
                "store": header.uuid.to_string(), "salt": header.salt, "bytes": len,
            }),
        )?;
        let from = self.args.offset.unwrap_or(segment::HEADER_LEN as u64);
        if !from.is_multiple_of(8) || from < segment::HEADER_LEN as u64 {
            return Err(Fault::Usage("records begin at multiples of 8, from 64 on".to_owned()));
        }
        if from > len {
            return Err(Fault::Usage(format!("the segment ends at {len}")));
        }
        self.records(pieces, header.salt, from)
    }

    fn records(&mut self, pieces: &mut Pieces, salt: u32, from: u64) -> Outcome {
        let mut offset = from;
        let mut damaged = 0;
        let mut left = self.args.limit;
        loop {
            let frame = pieces.frame(offset, salt)?;
            if left == 0 {
                note!("there is more; go on with --offset {offset}");
                break;
            }
            left -= 1;
            interrupt::check()?;
            let reason = match frame {
                Frame::Record(record) => {
                    self.record(offset, &record)?;
                    offset += record.frame_len as u64;
                    continue;
                }
                Frame::End => {
                    let text = format!("{offset:>10} end: nothing was written from here on");
                    self.line(&text, &json!({ "offset": offset, "end": true }))?;
                    break;
                }
                Frame::Torn => "the record runs past the end of the file".to_owned(),
                Frame::Corrupt(reason) => reason.to_string(),
            };
            damaged += 1;
            let next = pieces.next_behind(offset, salt)?;
            let then = next.map_or("no record follows".to_owned(), |next| {
                format!("the next record begins at {next}")
            });
            self.line(
                &format!("{offset:>10} damaged: {reason}; {then}"),
                &json!({ "offset": offset, "damage": reason, "next_record": next }),
            )?;
            let Some(next) = next else { break };
            offset = next;
        }
        self.out.flush()?;
        if damaged == 0 {
            return Ok(());
        }
        Err(Fault::Damaged(format!(
            "{}: damaged, unless it is the end of a log that was cut off by a crash",
            self.args.file.display()
        )))
    }

    fn record(&mut self, offset: u64, record: &Record<'_>) -> Outcome {
        let (kind, what) = match record.kind {
            Kind::Put => {
                ("put", format!("{} = {}", self.bytes(record.key), self.bytes(record.value)))
            }
            Kind::Tombstone => ("delete", self.bytes(record.key)),
            Kind::Batch => (
                "batch",
                BatchPart::decode(record.value).map_or("unreadable".to_owned(), |part| {
                    format!(
                        "{} changes, one of {} parts, coordinator {} at {}",
                        part.ops, part.parts, part.coordinator, part.coordinator_seqno
                    )
                }),
            ),
            Kind::Marker => (
                "marker",
                Marker::decode(record.value).map_or("unreadable".to_owned(), |marker| {
                    format!("durable up to {}", marker.durable)
                }),
            ),
        };
        let flags: Vec<&str> = [
            (Flags::IN_BATCH, "batch"),
            (Flags::LZ4, "lz4"),
            (Flags::ZSTD, "zstd"),
            (Flags::EXPIRY, "expires"),
        ]
        .into_iter()
        .filter_map(|(flag, name)| record.flags.contains(flag).then_some(name))
        .collect();
        let mut note = flags.join(" ");
        if let Some(expiry) = record.expiry {
            note = format!("{note} at {expiry}");
        }
        let note = if note.is_empty() { note } else { format!("  [{note}]") };
        self.line(
            &format!("{offset:>10} {:>8} {kind:<6} #{} {what}{note}", record.frame_len, record.seqno),
            &json!({
                "offset": offset, "bytes": record.frame_len, "kind": kind, "seqno": record.seqno.0,
                "key": self.args.output.text(record.key), "value": self.args.output.text(record.value),
                "flags": flags, "expires_at_unix_ms": record.expiry,
            }),
        )
    }

    fn hint(&mut self, bytes: &[u8]) -> Outcome {
        let hint = Hint::open(bytes).map_err(|fault| unreadable(&self.args.file, fault))?;
        let header = hint.header();
        let (binding, sealed) = (&header.binding, &header.sealed);
        self.line(
            &format!(
                "hint of segment {} of shard {}: {} frames, {} records, {} bytes of segment, seqnos {} to {}",
                binding.id, binding.shard, header.entries, sealed.records, sealed.len,
                sealed.min_seqno, sealed.max_seqno
            ),
            &json!({
                "segment": binding.id.0, "shard": binding.shard.0, "entries": header.entries,
                "records": sealed.records, "segment_bytes": sealed.len,
                "min_seqno": sealed.min_seqno.0, "max_seqno": sealed.max_seqno.0,
            }),
        )?;
        let from = self.args.offset.unwrap_or(0);
        let mut left = self.args.limit;
        for entry in hint.entries() {
            let entry = entry.map_err(|fault| unreadable(&self.args.file, fault))?;
            if entry.offset < from {
                continue;
            }
            if left == 0 {
                note!("there is more; go on with --offset {}", entry.offset);
                break;
            }
            left -= 1;
            interrupt::check()?;
            let kind = match entry.class {
                Class::Put => "put",
                Class::ExpiringPut => "put that expires",
                Class::Tombstone => "delete",
                Class::Other => "other",
            };
            self.line(
                &format!(
                    "{:>10} {:>8} #{} hash {:08x} {kind}",
                    entry.offset, entry.frame_len, entry.seqno, entry.hash
                ),
                &json!({
                    "offset": entry.offset, "bytes": entry.frame_len, "kind": kind,
                    "seqno": entry.seqno.0, "hash": entry.hash,
                }),
            )?;
        }
        Ok(())
    }

    fn snapshot(&mut self, bytes: &[u8]) -> Outcome {
        let snapshot = Snapshot::open(bytes).map_err(|fault| unreadable(&self.args.file, fault))?;
        let header = snapshot.header();
        self.line(
            &format!(
                "keydir of shard {}: {} keys in {} leaves, up to seqno {}, over {} segments",
                header.shard,
                header.keys,
                header.leaves,
                header.seqno,
                header.segments.len()
            ),
            &json!({
                "shard": header.shard.0, "keys": header.keys, "leaves": header.leaves,
                "seqno": header.seqno.0, "segments": header.segments.len(),
            }),
        )?;
        for segment in header.segments.iter().take(self.args.limit) {
            self.line(
                &format!(
                    "  segment {:>10}  {:>12} bytes, {:>12} live in {} records",
                    segment.id, segment.len, segment.live_bytes, segment.live_records
                ),
                &json!({
                    "segment": segment.id.0, "bytes": segment.len,
                    "live_bytes": segment.live_bytes, "live_records": segment.live_records,
                }),
            )?;
        }
        match snapshot.leaves().find_map(Result::err) {
            Some(fault) => Err(unreadable(&self.args.file, fault)),
            None => Ok(()),
        }
    }

    fn journal(&mut self, bytes: &[u8]) -> Outcome {
        let header =
            journal::Header::decode(bytes).map_err(|fault| unreadable(&self.args.file, fault))?;
        self.line(
            &format!(
                "journal of store {}: turn {}, {} bytes",
                header.uuid,
                header.turn,
                bytes.len()
            ),
            &json!({ "store": header.uuid.to_string(), "turn": header.turn, "bytes": bytes.len() }),
        )?;
        for group in Groups::new(bytes, header).take(self.args.limit) {
            interrupt::check()?;
            for range in group.ranges() {
                let (offset, end) = (range.offset, range.offset + range.bytes.len() as u64);
                self.line(
                    &format!(
                        "{:>10} group {} shard {} segment {} bytes {offset} to {end}",
                        group.offset, group.number, range.shard, range.segment
                    ),
                    &json!({
                        "offset": group.offset, "group": group.number, "shard": range.shard.0,
                        "segment": range.segment.0, "from": offset, "to": end,
                    }),
                )?;
            }
        }
        Ok(())
    }

    fn store(&mut self, store: &StoreMeta, copies: Copies) -> Outcome {
        self.line(
            &format!("store {}: {} shards, created at {} ms since 1970", store.uuid, store.shards, store.created_ms),
            &json!({ "store": store.uuid.to_string(), "shards": store.shards, "created_unix_ms": store.created_ms }),
        )?;
        self.copies(copies)
    }

    fn manifest(&mut self, manifest: &Manifest, copies: Copies) -> Outcome {
        self.line(
            &format!(
                "manifest {} of shard {}: {} segments, next id {}, next log seqno {}, horizon {}",
                manifest.generation,
                manifest.shard,
                manifest.segments.len(),
                manifest.next_segment,
                manifest.next_log_seqno,
                manifest.horizon
            ),
            &json!({
                "generation": manifest.generation, "shard": manifest.shard.0,
                "next_segment": manifest.next_segment.0, "horizon": manifest.horizon.0,
                "next_log_seqno": manifest.next_log_seqno.0,
            }),
        )?;
        for entry in manifest.segments.iter().take(self.args.limit) {
            let (text, object) = match &entry.state {
                State::Open => {
                    ("open".to_owned(), json!({ "segment": entry.id.0, "state": "open" }))
                }
                State::Sealed(sealed) => (
                    format!(
                        "sealed, {} bytes, {} records, {} bytes of tombstones, seqnos {} to {}",
                        sealed.len,
                        sealed.records,
                        sealed.tombstone_bytes,
                        sealed.min_seqno,
                        sealed.max_seqno
                    ),
                    json!({
                        "segment": entry.id.0, "state": "sealed", "bytes": sealed.len, "records": sealed.records,
                        "min_seqno": sealed.min_seqno.0, "max_seqno": sealed.max_seqno.0,
                    }),
                ),
            };
            self.line(&format!("  segment {:>10}  {text}", entry.id), &object)?;
        }
        self.copies(copies)
    }

    fn copies(&self, copies: Copies) -> Outcome {
        if copies.are_intact() {
            return Ok(());
        }
        let file = self.args.file.display();
        Err(Fault::Damaged(format!(
            "{file}: one of its two copies is damaged; the other one serves"
        )))
    }
}
