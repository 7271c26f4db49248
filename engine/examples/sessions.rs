//! A session store: each use lets a session live on for a while, and nothing has to clean up.
//!
//! `cargo run --release -p caskade --example sessions`

use std::time::Duration;

use caskade::{Db, Expiry, Result, WriteOptions};

/// How long a session lives after its last use. Half an hour would be usual.
const IDLE: Duration = Duration::from_secs(1);

/// Sessions by their token.
struct Sessions {
    db: Db,
}

impl Sessions {
    fn start(&self, token: &str, user: &str) -> Result<()> {
        let options = WriteOptions::new().ttl(IDLE);
        self.db.put_with(token.as_bytes(), user.as_bytes(), options)?;
        Ok(())
    }

    /// The user of a session, which lives on from now.
    fn touch(&self, token: &str) -> Result<Option<String>> {
        let Some(user) = self.db.get(token.as_bytes())? else { return Ok(None) };
        // Writing for every request would be a waste: once a third of the time is over will do.
        if let Some(Expiry::In(left)) = self.db.ttl(token.as_bytes())?
            && left < IDLE * 2 / 3
        {
            self.db.expire(token.as_bytes(), IDLE)?;
        }
        Ok(Some(String::from_utf8_lossy(&user).into_owned()))
    }

    fn end(&self, token: &str) -> Result<bool> {
        self.db.delete(token.as_bytes())
    }
}

fn main() -> Result<()> {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let sessions = Sessions { db: Db::open(folder.path().join("sessions"))? };
    sessions.start("t-ada", "Ada")?;
    sessions.start("t-grace", "Grace")?;
    sessions.start("t-alan", "Alan")?;

    // Grace logs out, Ada keeps clicking, Alan goes for lunch.
    assert!(sessions.end("t-grace")?);
    for _ in 0..4 {
        std::thread::sleep(IDLE * 2 / 5);
        assert_eq!(sessions.touch("t-ada")?.as_deref(), Some("Ada"));
    }
    for token in ["t-ada", "t-grace", "t-alan"] {
        println!("{token}: {:?}", sessions.touch(token)?);
    }
    assert_eq!(sessions.touch("t-grace")?, None);
    assert_eq!(sessions.touch("t-alan")?, None);
    sessions.db.close()
}
