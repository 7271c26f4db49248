//! Writes the inputs that fuzzing starts from to a directory for each target:
//! `cargo run -p caskade-fuzz --example seeds -- fuzz/work`.

use caskade_fuzz::seeds;
use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::args_os().nth(1).expect("usage: seeds DIRECTORY"));
    for (target, inputs) in seeds::all() {
        let dir = root.join(target);
        fs::create_dir_all(&dir)?;
        for (index, input) in inputs.iter().enumerate() {
            fs::write(dir.join(format!("seed-{index:02}")), input)?;
        }
    }
    Ok(())
}
