//! What `STORE` and `MANIFEST` have in common: two copies of a block.

use crate::input::{Input, Mode};
use caskade_codec::twin::{COPY_ALIGNMENT, Copies};
use caskade_codec::{checksum, twin};
use std::fmt::Debug;

/// The two files, as the harness sees them.
pub(crate) trait Twin: Sized + PartialEq + Debug {
    const MAGIC: [u8; 8];
    fn encode(&self) -> Vec<u8>;
    fn decode(file: &[u8]) -> Option<(Self, Copies)>;
    /// Any valid value.
    fn read(input: &mut Input<'_>) -> Self;
}

/// Decodes files of any kind of damage, and compares what was found with its own encoding.
pub(crate) fn check_all<T: Twin>(data: &[u8]) {
    let mut input = Input::new(data);
    match input.mode() {
        Mode::Raw => check::<T>(input.rest()),
        Mode::Mended => around_payload::<T>(input),
        Mode::Built => {
            let (damage, value) = (Damage::read(&mut input), T::read(&mut input));
            built(&value, &damage);
        }
    }
}

/// Overwrites bytes in up to two places.
#[derive(Debug)]
struct Damage {
    places: [(usize, u8); 2],
    cut: usize,
}

impl Damage {
    fn read(input: &mut Input<'_>) -> Self {
        let mut place = || (usize::from(input.u16()), input.u8());
        let places = [place(), place()];
        Self { places, cut: usize::from(input.u16()) }
    }

    fn apply(&self, file: &mut Vec<u8>) {
        for (place, mask) in self.places {
            let at = place % file.len();
            file[at] ^= mask;
        }
        if self.cut != 0 {
            file.truncate(self.cut);
        }
    }
}

/// The input is a payload; checksum and second copy are right.
fn around_payload<T: Twin>(mut input: Input<'_>) {
    let damage = Damage::read(&mut input);
    let version = input.u8();
    let mut file = twin::encode(T::MAGIC, input.rest());
    check::<T>(&file);
    if version & 7 == 7 {
        assert!(T::decode(&of_version(&file, version)).is_none(), "another version is refused");
    }
    damage.apply(&mut file);
    check::<T>(&file);
}

fn payload_len(file: &[u8]) -> usize {
    u32::from_le_bytes(*file[12..].first_chunk().expect("a block has a head")) as usize
}

/// Where the second copy begins.
fn second_at(file: &[u8]) -> usize {
    (16 + payload_len(file) + 4).next_multiple_of(COPY_ALIGNMENT)
}

/// The file with another version in both copies, and checksums to match.
fn of_version(file: &[u8], version: u8) -> Vec<u8> {
    let mut block = file[..16 + payload_len(file)].to_vec();
    block[8] = version;
    let crc = checksum::of(&block);
    block.extend_from_slice(&crc.to_le_bytes());
    let second_at = block.len().next_multiple_of(COPY_ALIGNMENT);
    let mut file = vec![0; second_at];
    file[..block.len()].copy_from_slice(&block);
    file.extend_from_slice(&block);
    file
}

fn check<T: Twin>(file: &[u8]) {
    let Some((value, copies)) = T::decode(file) else { return };
    let encoded = value.encode();
    let second_at = second_at(&encoded);
    assert_eq!(copies.are_intact(), file == encoded, "a file has one encoding");
    if copies.first_is_intact {
        assert!(file.starts_with(&encoded[..second_at]));
    }
    if copies.second_is_intact {
        assert!(file[second_at..].starts_with(&encoded[second_at..]));
    }
    assert_eq!(T::decode(&encoded), Some((value, twin_intact())));
}

const fn twin_intact() -> Copies {
    Copies { first_is_intact: true, second_is_intact: true }
}

/// What is encoded reads back, and still does with either copy destroyed.
fn built<T: Twin>(value: &T, damage: &Damage) {
    let file = value.encode();
    let second_at = second_at(&file);
    let (read, copies) = T::decode(&file).expect("what is encoded decodes");
    assert_eq!((&read, copies), (value, twin_intact()));
    for (range, first_is_intact) in [(0..second_at, false), (second_at..file.len(), true)] {
        let mut destroyed = file.clone();
        destroyed[range].fill(0xA5);
        let (read, copies) = T::decode(&destroyed).expect("either copy serves");
        assert_eq!(&read, value);
        assert_eq!(copies, Copies { first_is_intact, second_is_intact: !first_is_intact });
    }
    let mut damaged = file.clone();
    damage.apply(&mut damaged);
    check::<T>(&damaged);
    if damaged == file {
        return;
    }
    if let Some((read, copies)) = T::decode(&damaged) {
        assert_eq!(&read, value, "damage never makes another value");
        assert!(!copies.are_intact());
    }
}
