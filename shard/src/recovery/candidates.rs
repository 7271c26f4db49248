//! Records that may be the newest of their keys.
//!
//! There are as many as records in the log, so what is done with all of them at once waits for
//! memory. Those of a segment are therefore put in the order of their hashes' parts while the
//! processor's cache still has them, and all segments' are then taken together a part at a time.

use caskade_codec::hint;
use caskade_codec::ids::Seqno;

use crate::location::Location;

/// As many shares of all hashes, in their order.
const PARTS: usize = 256;

/// A record that may be the newest of its key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    /// Its sequence number and, in the lowest bit, whether it is a put.
    version: u64,
    pub(super) location: Location,
    pub(super) hash: u32,
    pub(super) len: u32,
}

const _: () = assert!(size_of::<Candidate>() == 24 && Seqno::MAX.0 < 1 << 63);

impl Candidate {
    pub(super) fn new(hash: u32, seqno: Seqno, is_put: bool, location: Location, len: u32) -> Self {
        Self { version: seqno.0 << 1 | u64::from(is_put), location, hash, len }
    }

    pub(super) fn from_hint(slot: u32, entry: &hint::Entry) -> Option<Self> {
        let is_put = entry.class.is_put();
        let is_left_out = planted!("hint-without-tombstones") && !is_put;
        let location = || Location::new(slot, entry.offset, entry.frame_len as usize);
        (entry.class != hint::Class::Other && !is_left_out)
            .then(|| Self::new(entry.hash, entry.seqno, is_put, location(), entry.frame_len))
    }

    pub(super) fn seqno(&self) -> Seqno {
        Seqno(self.version >> 1)
    }

    pub(super) fn is_put(&self) -> bool {
        self.version & 1 == 1
    }

    fn part(&self) -> usize {
        (self.hash / (u32::MAX / PARTS as u32 + 1)) as usize
    }
}

/// Puts the candidates of a segment in the order of their parts.
pub(super) fn arrange(candidates: &mut Vec<Candidate>) {
    let Some(&any) = candidates.first() else { return };
    let mut counts = [0; PARTS];
    for candidate in &*candidates {
        counts[candidate.part()] += 1;
    }
    // Where the next candidate of a part goes.
    let mut next = [0; PARTS];
    for part in 1..PARTS {
        next[part] = next[part - 1] + counts[part - 1];
    }
    let mut arranged = vec![any; candidates.len()];
    for candidate in &*candidates {
        let next = &mut next[candidate.part()];
        arranged[*next] = *candidate;
        *next += 1;
    }
    *candidates = arranged;
}

/// Calls `f` with all candidates of each part in turn; each source was [arranged](arrange).
pub(super) fn for_each_part(sources: &[Vec<Candidate>], mut f: impl FnMut(&[Candidate])) {
    let mut rests: Vec<&[Candidate]> = sources.iter().map(Vec::as_slice).collect();
    let mut gathered = Vec::new();
    for part in 0..PARTS {
        gathered.clear();
        for rest in &mut rests {
            let len = rest.iter().take_while(|candidate| candidate.part() == part).count();
            gathered.extend_from_slice(rest.split_off(..len).expect("they are there"));
        }
        f(&gathered);
    }
    assert!(rests.iter().all(|rest| rest.is_empty()), "a source was not arranged");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_in_order_with_all_sources() {
        let candidate = |source: u32, number: u32| {
            let hash = number.wrapping_mul(0x9E37_79B9);
            let location = Location::new(source + 1, u64::from(number) * 8, 48);
            let seqno = Seqno(u64::from(source) << 32 | u64::from(number));
            Candidate::new(hash, seqno, number.is_multiple_of(3), location, number)
        };
        let sources: Vec<Vec<_>> = [1000, 0, 3, 70_000]
            .iter()
            .zip(0..)
            .map(|(&len, source)| {
                let mut candidates = (0..len).map(|number| candidate(source, number)).collect();
                arrange(&mut candidates);
                candidates
            })
            .collect();
        let (mut seen, mut parts) = (Vec::new(), 0);
        for_each_part(&sources, |part| {
            assert!(part.iter().all(|candidate| candidate.hash >> 24 == parts));
            seen.extend(part.iter().map(|c| (c.seqno(), c.is_put(), c.hash, c.location, c.len)));
            parts += 1;
        });
        assert_eq!(parts, 256);
        seen.sort_unstable_by_key(|candidate| candidate.0);
        let all = [(0, 1000), (2, 3), (3, 70_000)].into_iter().flat_map(|(source, len)| {
            (0..len).map(move |number| {
                let c = candidate(source, number);
                (c.seqno(), c.is_put(), c.hash, c.location, number)
            })
        });
        assert!(all.eq(seen));
    }

    #[test]
    fn a_candidate_keeps_the_greatest_numbers() {
        for is_put in [false, true] {
            let location = Location::new(1, 8, 48);
            let candidate = Candidate::new(u32::MAX, Seqno::MAX, is_put, location, u32::MAX);
            assert_eq!((candidate.seqno(), candidate.is_put()), (Seqno::MAX, is_put));
        }
    }
}
