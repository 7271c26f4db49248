//! What a store has to do to take part.

use crate::Outcome;

/// Called with a value, or with none for an absent key.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(Option<&[u8]>);

/// A key and a value.
pub(crate) type Pair<'a> = ([u8; 16], &'a [u8]);

/// What an acknowledged write survives in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The death of the process, where the store has such a mode; a power cut may cost some of the newest.
    Buffered,
    /// A power cut.
    Durable,
}

/// An open store. One call is one operation: whatever transaction it needs begins and ends in it.
pub(crate) trait Store: Sync {
    /// Writes as [`Mode::Buffered`] says.
    fn put(&self, key: &[u8; 16], value: &[u8]) -> Outcome<()>;

    /// Writes all pairs, as [`Mode::Buffered`] says, the way that a load by someone in a hurry does.
    fn put_batch(&self, pairs: &[Pair<'_>]) -> Outcome<()> {
        pairs.iter().try_for_each(|(key, value)| self.put(key, value))
    }

    /// Writes as [`Mode::Durable`] says, before it returns. The store was opened for that.
    fn put_durable(&self, key: &[u8; 16], value: &[u8]) -> Outcome<()>;

    /// Writes all pairs or none, and durably. None if the store cannot.
    fn batch_durable(&self, pairs: &[Pair<'_>]) -> Option<Outcome<()>>;

    /// Copies the value into `out`, or takes it there as the store hands it out. Answers whether there is one.
    fn get_into(&self, key: &[u8; 16], out: &mut Vec<u8>) -> Outcome<bool>;

    /// Shows the value, in hand in the way that costs the store least and lets the caller keep it, or
    /// use it within the transaction. Answers whether there is one.
    fn get_held(&self, key: &[u8; 16], look: &mut dyn FnMut(&[u8])) -> Outcome<bool>;

    /// Visits the values of many keys, in any order.
    fn get_many(&self, keys: &[[u8; 16]], visit: Visit<'_>) -> Outcome<()> {
        let mut out = Vec::new();
        for key in keys {
            let found = self.get_into(key, &mut out)?;
            visit(found.then_some(&out[..]));
        }
        Ok(())
    }

    /// Gets the values of many keys, to keep. Answers how many there are; None if there is no such call.
    fn get_many_held(&self, _keys: &[[u8; 16]]) -> Option<Outcome<usize>> {
        None
    }

    /// Visits every key and value in the order that is cheapest for the store.
    fn scan(&self, visit: &mut dyn FnMut(&[u8], &[u8])) -> Outcome<()>;

    /// Brings what was acknowledged to where it survives the death of the process.
    fn flush(&self) -> Outcome<()> {
        Ok(())
    }

    /// Writes out what a store gathers in memory, and waits until the background has nothing left to do.
    fn settle(&self) -> Outcome<()>;

    /// Bytes of an index that lives in memory-mapped files, for those that have one apart from the data.
    fn mapped_index_bytes(&self) -> u64 {
        0
    }

    /// Closes the store in an orderly way.
    fn close(self: Box<Self>) -> Outcome<()>;
}

/// Reads a byte of each cache line: whoever asks for a value wants it in the processor, whether or not
/// the store looked at it already.
pub(crate) fn touch(bytes: &[u8]) {
    let sum = bytes.iter().step_by(64).fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    std::hint::black_box(sum);
}

/// Waits until the files below `dir` have kept their size for so many seconds.
pub(crate) fn wait_for_still_files(dir: &std::path::Path, seconds: u32) -> Outcome<()> {
    use std::time::Duration;
    let mut last = 0;
    let mut still = 0;
    for _ in 0..300 {
        std::thread::sleep(Duration::from_millis(200));
        let now = bench::measure::disk_bytes(dir)?;
        still = if now == last { still + 1 } else { 0 };
        if still == 5 * seconds {
            break;
        }
        last = now;
    }
    Ok(())
}
