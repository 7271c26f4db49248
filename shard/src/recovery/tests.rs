//! What a recovery makes of a directory.

use std::collections::HashMap;

use caskade_codec::hash::keydir_bits;

use crate::life::{Life, Meddling};

/// Two keys of which the keydir keeps the same bits.
fn colliding_keys(life: &Life) -> [String; 2] {
    let mut seen = HashMap::new();
    for number in 0_u32.. {
        let key = format!("{number}");
        let bits = keydir_bits(life.ctx.hasher.hash(key.as_bytes()));
        if let Some(other) = seen.insert(bits, key.clone()) {
            return [other, key];
        }
    }
    unreachable!("there are more numbers than bits")
}

/// One key stands in the snapshot or a hint, the other behind it.
#[test]
fn recovery_tells_keys_of_equal_hash_bits_apart() {
    for with_snapshot in [false, true] {
        for delete in [false, true] {
            let mut life = Life::new();
            let [first, second] = colliding_keys(&life);
            life.put(&first, "one");
            life.seal();
            if with_snapshot {
                let around = Meddling { life: &life, before_settle: || {} };
                life.shard().snapshot(&around).unwrap();
            }
            life.put(&second, "two");
            if delete {
                life.delete(&second);
            }
            for _ in 0..2 {
                let expected = |key: &str| life.model.get(key.as_bytes()).cloned();
                assert_eq!(life.get(first.as_bytes()), expected(&first));
                assert_eq!(life.get(second.as_bytes()), expected(&second));
                life = life.reopen();
            }
            life.prove();
        }
    }
}
