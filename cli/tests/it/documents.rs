//! What the documents say of the code is true.

use std::path::Path;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
}

#[test]
fn the_first_example_of_the_readme_runs() {
    let source = read("engine/examples/quickstart.rs");
    let code = source.split_once("\n\n").expect("a heading, then the code").1;
    assert!(read("README.md").contains(code));
}

#[test]
fn files_that_the_documents_name_exist() {
    for document in ["README.md", "ARCHITECTURE.md"] {
        let text = read(document);
        let names = text.split('`').skip(1).step_by(2).filter(|name| {
            ["codec/", "shard/", "engine/", "scripts/"].iter().any(|root| name.starts_with(root))
        });
        let mut count = 0;
        for name in names {
            assert!(
                Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).exists(),
                "{document}: {name}"
            );
            count += 1;
        }
        assert!(count > 3, "{document} names files");
    }
}
