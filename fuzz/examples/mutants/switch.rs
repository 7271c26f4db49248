// Goes into the package under test. The environment variable MUTANT is the number of the mutant that
// lives in this process; MUTANTS_MET names a file with a byte for each, set when its place is met.

/// Whether the place has this mutant.
#[inline]
pub fn is(number: usize) -> bool {
    static SWITCH: std::sync::OnceLock<(usize, Option<memmap2::MmapRaw>)> =
        std::sync::OnceLock::new();
    let (lives, met) = SWITCH.get_or_init(|| {
        let lives = std::env::var("MUTANT").map_or(0, |text| text.parse().expect("a number"));
        let met = std::env::var_os("MUTANTS_MET").map(|path| {
            let file = std::fs::File::options().read(true).write(true).open(path);
            memmap2::MmapRaw::map_raw(&file.expect("opens")).expect("maps")
        });
        (lives, met)
    });
    if let Some(met) = met {
        assert!(number < met.len());
        // SAFETY: The byte lies in the map, and all that anybody does is to set it.
        unsafe { met.as_mut_ptr().add(number).write_volatile(1) };
    }
    *lives == number
}
