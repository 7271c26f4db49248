//! The optional features, each with what it promises.

#[cfg(any(feature = "lz4", feature = "zstd"))]
mod compression {
    use caskade::{Compression, Db};

    fn values() -> Vec<Vec<u8>> {
        let noise = |len: usize| {
            let mut state = 0x9E37_79B9_7F4A_7C15_u64;
            (0..len)
                .map(|_| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    state as u8
                })
                .collect::<Vec<u8>>()
        };
        vec![Vec::new(), vec![7; 63], vec![7; 64], vec![1; 100_000], noise(100), noise(70_000)]
    }

    fn check(how: Compression) {
        let dir = tempfile::tempdir().expect("a directory");
        let open = |how| Db::builder(dir.path().join("data")).compression(how).open();
        let db = open(how).expect("opens");
        for (index, value) in values().iter().enumerate() {
            db.put(&[index as u8], value).expect("puts");
        }
        let stored = db.stats().total.live_bytes;
        let plain: usize = values().iter().map(Vec::len).sum();
        assert!(
            stored < plain as u64 - 90_000,
            "the repetitive values shrink: {stored} of {plain}"
        );
        assert!(stored > 70_000, "noise is stored as it is");
        db.compact().expect("compacts");
        db.close().expect("closes");
        // Whatever the option says later, each record says how it is stored.
        let db = open(Compression::None).expect("reopens");
        let mut out = Vec::new();
        for (index, value) in values().iter().enumerate() {
            let key = [index as u8];
            assert_eq!(db.get(&key).expect("gets").expect("is there"), value.as_slice());
            assert!(db.get_into(&key, &mut out).expect("gets"));
            assert_eq!(&out, value);
            assert_eq!(db.value_len(&key).expect("measures"), Some(value.len()));
            assert!(db.compare_and_swap(&key, Some(value), Some(b"new")).expect("swaps"));
        }
        assert_eq!(db.iter().expect("iterates").count(), values().len());
    }

    #[cfg(feature = "lz4")]
    #[test]
    fn lz4() {
        check(Compression::Lz4);
    }

    #[cfg(feature = "zstd")]
    #[test]
    fn zstd() {
        check(Compression::Zstd);
    }
}

#[cfg(feature = "bytes")]
#[test]
fn values_turn_into_bytes_and_outlive_the_store() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = caskade::Db::open(dir.path().join("data")).expect("opens");
    db.put(b"large", &vec![5; 10_000]).expect("puts");
    let value = db.get(b"large").expect("gets").expect("is there");
    let bytes = bytes::Bytes::from(value);
    db.delete(b"large").expect("deletes");
    db.compact().expect("compacts");
    db.close().expect("closes");
    assert_eq!(bytes, vec![5; 10_000]);
}

#[cfg(feature = "serde")]
#[test]
fn statistics_serialize() {
    fn is_serialize<T: serde::Serialize>() {}
    is_serialize::<caskade::Stats>();
    is_serialize::<caskade::CompactReport>();
    is_serialize::<caskade::VerifyReport>();
}
