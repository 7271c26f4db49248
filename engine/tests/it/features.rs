//! The optional features, each with what it promises.

#[cfg(any(feature = "lz4", feature = "zstd"))]
mod compression {
    use std::time::Duration;

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
            // Another expiry is no reason to unpack it.
            let before = db.stats().total.live_bytes;
            assert!(db.expire(&key, Duration::from_secs(1000)).expect("sets the expiry"));
            assert!(db.stats().total.live_bytes < before + 100, "{index}");
            assert_eq!(db.get(&key).expect("gets").expect("is there"), value.as_slice());
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

#[cfg(feature = "metrics")]
mod metrics {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex};

    use caskade::Db;
    use metrics::{
        Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    };

    /// Keeps what it is given, by name and label.
    #[derive(Default)]
    struct Kept {
        cells: Mutex<BTreeMap<(String, String), Arc<AtomicU64>>>,
    }

    impl Kept {
        fn cell(&self, key: &Key) -> Arc<AtomicU64> {
            let labels: Vec<_> =
                key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            let at = (key.name().to_owned(), labels.join(","));
            Arc::clone(self.cells.lock().unwrap().entry(at).or_default())
        }

        fn raw(&self, name: &str, label: &str) -> u64 {
            let cells = self.cells.lock().unwrap();
            cells[&(name.to_owned(), label.to_owned())].load(Ordering::Relaxed)
        }
    }

    impl Recorder for Kept {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(self.cell(key))
        }
        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(self.cell(key))
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[test]
    fn figures_reach_the_recorder() {
        let dir = tempfile::tempdir().expect("a directory");
        let db = Db::open(dir.path().join("data")).expect("opens");
        for i in 0..100_u32 {
            db.put(&i.to_le_bytes(), b"value").expect("puts");
        }
        let kept = Kept::default();
        let stats = db.stats();
        metrics::with_local_recorder(&kept, || stats.record("sessions"));
        let gauge = |name| f64::from_bits(kept.raw(name, "store=sessions"));
        assert!((gauge("caskade_keys") - 100.0).abs() < 1e-9);
        assert!((gauge("caskade_live_bytes") - stats.total.live_bytes as f64).abs() < 1e-9);
        assert!(gauge("caskade_poisoned").abs() < 1e-9);
        assert_eq!(kept.raw("caskade_puts_total", "store=sessions"), 100);
        // The next look shows what came since; a counter does not count twice.
        db.put(b"one more", b"value").expect("puts");
        metrics::with_local_recorder(&kept, || db.stats().record("sessions"));
        assert_eq!(kept.raw("caskade_puts_total", "store=sessions"), 101);
        assert!((gauge("caskade_keys") - 101.0).abs() < 1e-9);
    }
}
