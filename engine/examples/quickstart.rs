//! The README's first example. `cargo run -p caskade --example quickstart`

use caskade::{Batch, Db};

fn main() -> caskade::Result<()> {
    let db = Db::open(std::env::temp_dir().join("caskade-quickstart"))?;
    db.put(b"user:1", b"Ada")?;
    assert_eq!(db.get(b"user:1")?.unwrap(), b"Ada");

    let mut batch = Batch::new();
    batch.put(b"user:2", b"Grace").delete(b"user:1");
    db.write(&batch)?; // after a crash, all of it is there or nothing

    let visits = db.fetch_add(b"visits", 1)?;
    println!("{visits} visits, {} keys", db.len());
    db.close()
}
