//! A service on tokio: reads in place, writes on the blocking pool, and a shutdown that loses nothing.
//!
//! It speaks lines: `GET key`, `PUT key value`, `DEL key`. Without an argument it talks to itself for a
//! moment and shuts down; with an address it serves until Ctrl-C.
//!
//! `cargo run --release -p caskade --example service -- 127.0.0.1:4000`

use std::io;

use caskade::{Db, Durability};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};

/// The longest line that is read.
const LINE_MAX: u64 = 64 << 10;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    // Durable: the client that reads `OK` may forget what it sent. Writers that wait share fsyncs.
    let db = Db::builder(folder.path().join("service")).durability(Durability::Sync).open()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match std::env::args().nth(1) {
            Some(address) => {
                let listener = TcpListener::bind(address).await?;
                println!("serving on {}; Ctrl-C ends it", listener.local_addr()?);
                let (stop, stopped) = watch::channel(false);
                let server = tokio::spawn(serve(db, listener, stopped));
                tokio::signal::ctrl_c().await?;
                stop.send_replace(true);
                server.await??;
            }
            None => rehearse(db).await?,
        }
        Ok(())
    })
}

/// Takes connections until it is told to stop, waits for those that are open, and closes the store.
async fn serve(
    db: Db,
    listener: TcpListener,
    mut stopped: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(converse(db.clone(), stream, stopped.clone()));
            }
            // Of one connection; the next one may come through.
            Err(error) => eprintln!("accept: {error}"),
        }
        // Those that ended give back their memory.
        while connections.try_join_next().is_some() {}
    }
    while let Some(ended) = connections.join_next().await {
        if let Ok(Err(error)) = ended {
            eprintln!("connection: {error}");
        }
    }
    // Waits for the disk, so not on a thread that runs other tasks.
    spawn_blocking(move || db.close()).await?.map_err(io::Error::other)
}

/// Answers line by line. A command that was read is finished and answered, even while stopping.
async fn converse(db: Db, stream: TcpStream, mut stopped: watch::Receiver<bool>) -> io::Result<()> {
    let (input, mut output) = stream.into_split();
    let mut input = BufReader::new(input);
    let mut line = String::new();
    while !*stopped.borrow() {
        line.clear();
        let mut limited = (&mut input).take(LINE_MAX);
        let len = tokio::select! {
            len = limited.read_line(&mut line) => len?,
            _ = stopped.changed() => break,
        };
        if len == 0 {
            break;
        }
        let answer = match answer(&db, line.trim_end()).await {
            Ok(answer) => answer,
            Err(error) => format!("ERROR {error}"),
        };
        output.write_all(answer.as_bytes()).await?;
        output.write_all(b"\n").await?;
    }
    Ok(())
}

async fn answer(db: &Db, line: &str) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let mut words = line.splitn(3, ' ');
    let words = (words.next().unwrap_or_default(), words.next(), words.next());
    Ok(match words {
        // No lock and no system call: quick enough to do right here. Where values are large and
        // cold, a page fault waits for the disk; then this belongs on the blocking pool as well.
        ("GET", Some(key), None) => match db.get(key.as_bytes())? {
            Some(value) => format!("VALUE {}", String::from_utf8_lossy(&value)),
            None => "NONE".to_owned(),
        },
        ("PUT", Some(key), Some(value)) => {
            let (db, key, value) = (db.clone(), key.to_owned(), value.to_owned());
            spawn_blocking(move || db.put(key.as_bytes(), value.as_bytes())).await??;
            "OK".to_owned()
        }
        ("DEL", Some(key), None) => {
            let (db, key) = (db.clone(), key.to_owned());
            let was_there = spawn_blocking(move || db.delete(key.as_bytes())).await??;
            if was_there { "OK".to_owned() } else { "NONE".to_owned() }
        }
        _ => "ERROR try GET key, PUT key value, DEL key".to_owned(),
    })
}

/// Sixteen clients at once, then a shutdown; all that was answered with OK is there.
async fn rehearse(db: Db) -> Result<(), Box<dyn std::error::Error>> {
    const CLIENTS: usize = 16;
    const PUTS: usize = 20;
    let path = db.path().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = watch::channel(false);
    let server = tokio::spawn(serve(db, listener, stopped));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(async move {
            let mut stream = BufReader::new(TcpStream::connect(address).await?);
            for put in 0..PUTS {
                assert_eq!(ask(&mut stream, &format!("PUT {client}/{put} hello")).await?, "OK");
            }
            assert_eq!(ask(&mut stream, &format!("GET {client}/0")).await?, "VALUE hello");
            assert_eq!(ask(&mut stream, &format!("DEL {client}/0")).await?, "OK");
            assert_eq!(ask(&mut stream, &format!("GET {client}/0")).await?, "NONE");
            io::Result::Ok(())
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    stop.send_replace(true);
    server.await??;
    let db = Db::builder(path).create(false).open()?;
    assert_eq!(db.len(), (CLIENTS * (PUTS - 1)) as u64);
    println!("{CLIENTS} clients, {} keys after the shutdown", db.len());
    Ok(db.close()?)
}

async fn ask(stream: &mut BufReader<TcpStream>, line: &str) -> io::Result<String> {
    stream.write_all(format!("{line}\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_line(&mut answer).await?;
    Ok(answer.trim_end().to_owned())
}
